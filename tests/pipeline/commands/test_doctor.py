"""Each check tells fine from not fine by what it is given; the command says it in one line and by its exit status."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.commands import doctor
from pipeline.commands.doctor import Check, State
from pipeline.commands.doctor import doctor as command

NAMES = ["Python", "glibc", "libstdc++", "disk space", "network", "TensorFlow", "model loader", "kfp", "TFX"]


@pytest.mark.parametrize(
    ("check", "state"),
    [
        (doctor.check_python((3, 11, 2)), State.OK),
        (doctor.check_python((3, 12, 0)), State.PROBLEM),
        (doctor.check_python((3, 10, 9)), State.PROBLEM),
        (doctor.check_glibc((2, 39)), State.OK),
        (doctor.check_glibc((2, 36)), State.PROBLEM),
        (doctor.check_glibc(None), State.PROBLEM),
        (doctor.check_libstdcxx(True), State.OK),
        (doctor.check_libstdcxx(False), State.PROBLEM),
        (doctor.check_disk(Path("/data"), 6 * 10**9), State.OK),
        (doctor.check_disk(Path("/data"), 2 * 10**9), State.WARNING),
        (doctor.check_disk(Path("/data"), 10**8), State.PROBLEM),
        (doctor.check_package("TFX", "tfx", ""), State.OK),
        (doctor.check_package("TFX", "tfx", "ImportError: no"), State.PROBLEM),
        (doctor.check_package("Nothing", "a-package-nobody-has", ""), State.PROBLEM),
        (doctor.check_model_loader(""), State.OK),
        (doctor.check_model_loader("OSError: no"), State.PROBLEM),
    ],
)
def test_a_check_says_what_to_do_exactly_when_it_is_not_fine(check, state):
    assert check.state == state
    assert bool(check.advice) == (state != State.OK)
    assert "\n" not in check.detail + check.advice


def test_details_hold_what_was_found():
    assert doctor.check_python((3, 12, 1)).detail.startswith("3.12.1 ")
    assert doctor.check_glibc((2, 36)).detail.startswith("2.36")
    assert doctor.check_disk(Path("/data"), 2_500_000_000).detail == "2.5 GB free in /data"
    assert doctor.check_package("kfp", "kfp", "").detail == metadata.version("kfp")
    assert doctor.check_package("kfp", "kfp", "ImportError: no").detail.endswith("importing it fails: ImportError: no")


def test_a_version_that_setup_does_not_ask_for_is_a_problem(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda _: "1.15.0")
    check = doctor.check_package("TFX", "tfx", "")
    assert check.state == State.PROBLEM
    assert check.detail == "1.15.0, where tfx[kfp]~=1.21.0 is asked for"


def test_a_failing_step_does_not_blame_those_before_it_and_stops_those_after_it():
    assert doctor.failures("import json", "import nothing_there", "import csv") == [
        "",
        "ModuleNotFoundError: No module named 'nothing_there'",
        "not tried",
    ]


def test_a_library_that_kills_the_process_is_reported_by_its_signal():
    assert doctor.failures("import os; os.kill(os.getpid(), 4)") == ["the process was ended by SIGILL"]


def test_a_step_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "IMPORT_TIMEOUT", 2)
    assert doctor.failures("import json", "import time; time.sleep(100)") == ["", "no end after 2 seconds"]


def test_the_model_loader_check_notices_a_loader_that_answers_wrongly(monkeypatch):
    import numpy as np

    from serving.session_model import SessionModel

    monkeypatch.setattr(SessionModel, "run", lambda *_: {"doubled": np.zeros(2)})
    with pytest.raises(RuntimeError, match=r"answered \[0.0, 0.0\]"):
        doctor.load_tiny_model()


def test_without_network_the_check_warns_and_names_the_demo_data_still_to_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("INGRAPH_CACHE", str(tmp_path))
    check = doctor.check_network()
    assert check.state == State.WARNING
    assert check.advice == "Needed for set-up and for demo data not fetched yet: hearts, reviews."


@pytest.mark.parametrize(("state", "status"), [(State.OK, 0), (State.WARNING, 0), (State.PROBLEM, 1)])
def test_only_a_problem_makes_the_exit_status_1(monkeypatch, state, status):
    checks = [Check("one", State.OK, "fine"), Check("two", state, "found", "do this")]
    monkeypatch.setattr(doctor, "diagnose", lambda _: iter(checks))
    shown = CliRunner().invoke(command)
    assert shown.exit_code == status
    assert shown.output.splitlines()[1].split() == [state, "two", "found.", "do", "this"]
    as_json = CliRunner().invoke(command, ["--json"])
    assert as_json.exit_code == status
    assert json.loads(as_json.output)["fine"] is (status == 0)
    assert json.loads(as_json.output)["checks"][1] == {
        "name": "two",
        "state": state,
        "detail": "found",
        "advice": "do this",
    }


def test_the_command_finds_this_machine_fit():
    done = subprocess.run([sys.executable, "-c", "from pipeline.cli import main; main()", "doctor", "--json"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    report = json.loads(done.stdout)
    assert [check["name"] for check in report["checks"]] == NAMES
    assert [check for check in report["checks"] if check["state"] == "problem"] == []
    assert done.returncode == 0
