"""Each check tells fine from not fine by what it is given; the command says it in one line and by its exit status."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from components import dependencies
from components.dependencies import Advisory, Installed, Locked
from components.errors import BrokenInput
from pipeline.cli import main
from pipeline.commands import doctor
from pipeline.commands.doctor import Check, Gpus, State
from pipeline.commands.doctor import doctor as command
from pipeline.exit_status import ExitStatus
from pipeline.runners.beam_engine import Trial

NAMES = ["Python", "glibc", "libstdc++", "disk space", "network", "TensorFlow", "model loader", "GPU", "kfp", "TFX"]


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
        (doctor.check_gpus(Gpus(0)), State.OK),
        (doctor.check_gpus(Gpus(2, True, None, "cuda", ("Tesla T4", "Tesla T4"))), State.OK),
        (doctor.check_gpus(Gpus(2, True, None, "cuda", ("Tesla T4",))), State.WARNING),
        (doctor.check_gpus(Gpus(1, False, None, "cuda")), State.WARNING),
    ],
)
def test_a_check_says_what_to_do_exactly_when_it_is_not_fine(check, state):
    assert check.state == state
    assert bool(check.advice) == (state != State.OK)
    assert "\n" not in check.detail + check.advice


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (Gpus(1, False, "-1", "cuda"), "CUDA_VISIBLE_DEVICES='-1' hides them"),
        (Gpus(1, False, None, "cuda"), "driver cannot be loaded"),
        (Gpus(1, True, None, "cpu"), "built without CUDA (tensorflow-cpu)"),
        (Gpus(1, True, None, "cuda"), "CUDA's libraries are not there"),
        (Gpus(1, True, None, ""), "TensorFlow cannot be imported"),
    ],
)
def test_a_gpu_that_is_not_used_has_its_reason(gpus, reason):
    assert doctor.check_gpus(gpus).detail.startswith("1 on this machine, and none is used: ")
    assert reason in doctor.check_gpus(gpus).detail


@pytest.mark.parametrize(("visible", "hidden"), [("-1", "-1"), ("", ""), ("0", None), (None, None)])
def test_gpus_are_counted_on_the_pci_bus_and_tensorflow_is_asked_about_them(tmp_path, monkeypatch, visible, hidden):
    for address, vendor, kind in [
        ("a", "0x10de", "0x030200"),
        ("b", "0x10de", "0x040300"),
        ("c", "0x8086", "0x030000"),
    ]:
        (tmp_path / "pci" / address).mkdir(parents=True)
        (tmp_path / "pci" / address / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "pci" / address / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(doctor, "_ASK_TENSORFLOW", 'print(\'{"build": "cuda", "seen": ["Tesla T4"]}\')')
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = doctor.gpus_of_machine(tmp_path / "pci", tmp_path)
    # Neither its sound nor another maker's card.
    assert (found.cards, found.build, found.seen, found.hidden) == (1, "cuda", ("Tesla T4",), hidden)
    assert doctor.gpus_of_machine(tmp_path, tmp_path) == Gpus(0)


HERE = {"python": "3.11.2", "ingraph": "0.1.0", "tfx": ""}


@pytest.mark.parametrize(
    ("trial", "states", "said"),
    [
        (Trial("", 4.4, HERE, [], True), ["ok", "ok"], "ran a function after 4 s, in an environment of the same"),
        (Trial("no worker has", 9, {}, [], False), ["problem"], "no worker has"),
        (Trial("", 4, {**HERE, "ingraph": ""}, [], True), ["problem", "ok"], "with ingraph missing instead of 0.1.0"),
        (Trial("", 4, {**HERE, "tfx": "1"}, [], True), ["problem", "ok"], "with tfx 1 instead of none"),
        (Trial("", 4, HERE, ["/data"], True), ["ok", "problem"], "a worker does not see /data"),
        (Trial("", 4, HERE, ["/data"], False), ["ok", "problem"], "a worker does not see /data, /runs"),
    ],
)
def test_what_a_worker_lacks_is_named(trial, states, said):
    checks = list(doctor.check_trial(trial, HERE, "/runs"))
    assert [check.state for check in checks] == states
    assert said in " ".join(check.detail for check in checks)
    assert all(bool(check.advice) == (check.state != State.OK) for check in checks)


@pytest.mark.parametrize(
    ("pattern", "fixed"),
    [
        ("/data/a.csv", "/data/a.csv"),
        ("/data/part-*.csv", "/data"),
        ("/data/{YYYY}/a.csv", "/data"),
        ("gs://bucket/a.csv", ""),
    ],
)
def test_of_a_pattern_the_folder_is_looked_for(pattern, fixed):
    assert doctor._fixed_part(pattern) == fixed


def test_without_an_engine_nothing_is_tried(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--beam", "configs/heart.yaml"])
    assert ended.value.code == 0
    assert "none: each step runs Beam in its own process" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--beam", "configs/heart.yaml", "--set", "beam={runner: flink}"])
    assert ended.value.code == ExitStatus.BROKEN_INPUT
    assert "expected master: HOST:PORT with runner: flink or spark" in capsys.readouterr().err


def test_what_cannot_be_tried_is_said_in_a_sentence(tmp_path, capsys):
    def told(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    status, said = told("--set", "a=b")
    assert status == ExitStatus.BROKEN_INPUT and "--set and --workdir go with --beam CONFIG" in said
    # Its job service is one that Beam starts.
    beam = [
        "--beam",
        "configs/heart.yaml",
        "--set",
        "beam={runner: PortableRunner, options: {environment_type: LOOPBACK}}",
    ]
    status, said = told(*beam, "--workdir", "/proc/no")
    assert status == ExitStatus.BROKEN_INPUT and "/proc/no: cannot be written to: No such file or directory" in said
    status, said = told(*beam, "--set", "beam.options.job_endpoint=127.0.0.1:1")
    assert (
        status == 1
        and "Start one (`python -m apache_beam.runners.portability.local_job_service_main --port PORT`)" in said
    )


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


@pytest.fixture
def audit(tmp_path, monkeypatch):
    """`ingraph audit` against an environment of two distributions and a lock; answers how it ended."""
    site = tmp_path / "site-packages"
    for name, version, fields in (
        ("Good_Thing", "2.0", "License-Expression: MIT OR Apache-2.0"),
        ("bad.thing", "1.4", "License: UNKNOWN\nClassifier: License :: OSI Approved"),
        ("old", "0.9", "License: BSD\nClassifier: License :: OSI Approved :: BSD License"),
    ):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{fields}\n"
        (folder / "METADATA").write_text(f"{head}\nLicense: of the README\n")
    found = [metadata.PathDistribution(folder) for folder in sorted(site.iterdir())]
    monkeypatch.setattr(dependencies.metadata, "distributions", lambda: iter(found))
    lock = tmp_path / "my.lock"
    lock.write_text(
        "# by uv\n--index-url https://example.org/simple\n"
        f"good-thing==2.0 \\\n    --hash=sha256:{'b' * 64} \\\n    --hash=sha256:{'A' * 64}\n    # via ingraph\n"
        f"bad-thing==1.5 ; python_version >= '3' \\\n    --hash=sha256:{'c' * 64}\n"
    )

    def run(vulns=None, *arguments, name="bad-thing", version="1.4"):
        entries = [{"name": name, "version": version, "vulns": vulns or []}, {"name": "off", "skip_reason": "local"}]
        (tmp_path / "advisories.json").write_text(json.dumps({"dependencies": entries, "fixes": []}))
        given = [] if vulns is None else ["--advisories", str(tmp_path / "advisories.json")]
        return CliRunner().invoke(main, ["audit", "--lock", str(lock), *given, *arguments])

    return run


FAULT = {"id": "PYSEC-1", "fix_versions": ["1.5"], "aliases": ["CVE-2026-1"], "description": "It\x1b[2J leaks."}


def test_audit_tells_what_is_known_against_the_version_that_is_installed_and_not_against_the_one_that_is_locked(audit):
    shown = audit([FAULT])
    assert shown.exit_code == ExitStatus.VULNERABLE == 11
    assert "affected: bad-thing 1.4 (installed): PYSEC-1 (CVE-2026-1), mended by 1.5" in shown.output.splitlines()
    report = json.loads(audit([FAULT], "--json").output)
    assert report == {
        "affected": [{"name": "bad-thing", "version": "1.4", "where": ["installed"], **FAULT}],
        "without_advisories": ["good-thing", "old"],
        "other_than_locked": {"bad-thing": "1.4"},
        "licences": {"BSD License": ["old"], "MIT OR Apache-2.0": ["Good_Thing"]},
        "unknown_licences": ["bad.thing"],
    }


def test_audit_is_content_where_nothing_is_known_or_somebody_has_looked_into_it(audit):
    for shown in (audit([]), audit([FAULT], "--ignore", "CVE-2026-1"), audit([FAULT], name="elsewhere")):
        assert shown.exit_code == 0
        assert "nothing is known against them" in shown.output
    both = audit([FAULT | {"fix_versions": []}])
    assert both.exit_code == ExitStatus.VULNERABLE
    assert [line.split(":")[1] for line in both.output.splitlines() if line.startswith("affected")] == [
        " bad-thing 1.4 (installed)",
        " bad-thing 1.5 (lock)",
    ]


@pytest.mark.parametrize(
    ("fixes", "version", "concerned"),
    [
        (["1.5"], "1.4", True),
        (["1.5"], "1.0", True),
        (["1.5"], "1.5", False),
        (["1.5"], "2.0", False),
        (["1.5"], "1.5rc1", True),
        ([], "9.0", True),
        (["4.2.16", "5.0.9", "5.1.1"], "4.2.20", False),
        (["4.2.16", "5.0.9", "5.1.1"], "5.0.2", True),
        (["4.2.16", "5.0.9", "5.1.1"], "5.1.0", True),
        (["4.2.16", "5.0.9", "5.1.1"], "5.2", False),
        (["4.2.16", "5.0.9", "5.1.1"], "3.0", True),
        (["not a version"], "1.0", True),
    ],
)
def test_a_version_is_affected_until_one_of_its_own_line_mends_it(fixes, version, concerned):
    assert Advisory("x", "0.1", "ID", fix_versions=tuple(fixes)).concerns(version) is concerned


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"dependencies": [{"name": "x"}]}',
        '{"dependencies": [{"name": "x", "version": "1", "vulns": 3}]}',
        '{"dependencies": [{"name": "x", "version": "1", "vulns": [{"id": "1", "fix_versions": "2"}]}]}',
        "[" * 100_000,
    ],
)
def test_advisories_that_are_none_are_one_sentence(audit, tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    shown = audit(None, "--advisories", str(tmp_path / "other.json"))
    assert shown.exit_code == ExitStatus.BROKEN_INPUT
    assert shown.stderr.count("\n") == 1
    assert "other.json: expected what `pip-audit --format json` writes" in shown.stderr


def test_without_advisories_pip_audit_is_asked_and_where_it_is_not_a_sentence_says_what_to_do(
    audit, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    missing = audit(None, "--bill-of-materials", str(tmp_path / "bill.json"))
    assert missing.exit_code == ExitStatus.BROKEN_INPUT
    assert missing.stderr.startswith("Error: no advisories: expected --advisories FILE, which `uvx pip-audit -r ")
    assert json.loads((tmp_path / "bill.json").read_text())["bomFormat"] == "CycloneDX"

    program = tmp_path / "bin" / "pip-audit"
    program.parent.mkdir()
    answer = json.dumps({"dependencies": [{"name": "good_thing", "version": "2.0", "vulns": [FAULT]}]})
    (tmp_path / "answer.json").write_text(f"{answer}\n")
    # It answers only where it is asked about the lock.
    program.write_text(
        f'#!/bin/sh\nfor one; do [ "$one" = "{tmp_path}/my.lock" ] && while read -r line; do echo "$line"; done '
        f'<"{tmp_path}/answer.json"; done\nexit 1\n'
    )
    program.chmod(0o755)
    asked = audit(None)
    assert (asked.exit_code, "affected: good-thing 2.0 (lock and installed)" in asked.output) == (11, True)
    program.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    assert "pip-audit has nothing to say (no network)" in audit(None).stderr


@pytest.mark.parametrize(
    "line", ["numpy>=2", "numpy==2.*", "numpy", "numpy==2,<3", "./folder", "numpy @ https://x/y.whl"]
)
def test_a_lock_that_leaves_a_version_open_is_refused(tmp_path, line):
    (tmp_path / "open.lock").write_text(f"scipy==1.0\n{line}\n")
    with pytest.raises(BrokenInput, match="expected one version of each dependency"):
        dependencies.read_lock(tmp_path / "open.lock")


def test_the_bill_of_materials_names_each_distribution_with_its_licence_and_the_hashes_of_the_lock():
    locked = {"a-b": Locked("a-b", "1.0+cpu", ("0" * 64,)), "c": Locked("c", "2", ("1" * 64,))}
    installed = [Installed("c", "3", ("MIT License",)), Installed("A_b", "1.0+cpu", ("MIT OR 0BSD",), True)]
    content = dependencies.bill_of_materials(locked, installed)
    assert content == dependencies.bill_of_materials(locked, installed[::-1])
    bill = json.loads(content)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["serialNumber"].startswith("urn:uuid:") and "timestamp" not in bill["metadata"]
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/ingraph@{metadata.version('ingraph')}"
    assert bill["components"] == [
        {
            "type": "library",
            "bom-ref": "pkg:pypi/a-b@1.0%2Bcpu",
            "name": "A_b",
            "version": "1.0+cpu",
            "purl": "pkg:pypi/a-b@1.0%2Bcpu",
            "licenses": [{"expression": "MIT OR 0BSD"}],
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": "pkg:pypi/a-b@1.0%2Bcpu",
                    "hashes": [{"alg": "SHA-256", "content": "0" * 64}],
                }
            ],
        },
        # Another version is locked, whose hashes say nothing of this one.
        {
            "type": "library",
            "bom-ref": "pkg:pypi/c@3",
            "name": "c",
            "version": "3",
            "purl": "pkg:pypi/c@3",
            "licenses": [{"license": {"name": "MIT License"}}],
        },
    ]


def test_this_environment_is_as_the_lock_says():
    locked, installed = dependencies.read_lock(dependencies.LOCK), dependencies.installed_distributions()
    assert installed["tensorflow"].version == locked["tensorflow"].version
    bill = json.loads(dependencies.environment_bill())
    assert dependencies.environment_bill() == dependencies.environment_bill()
    references = [component["bom-ref"] for component in bill["components"]]
    assert len(set(references)) == len(references) == len(installed) > 100
    (tensorflow,) = (component for component in bill["components"] if component["name"] == "tensorflow")
    hashes = tensorflow["externalReferences"][0]["hashes"]
    assert [one["content"] for one in hashes] == list(locked["tensorflow"].hashes)
