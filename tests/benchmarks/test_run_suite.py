"""Benchmarks as processes: what they report arrives, and one that fails is told."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.results import read_results
from benchmarks.harness.running import TEST_DATA, Benchmark, run_benchmark
from benchmarks.suite import SUITE

FINE = """
import sys
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.report import report
report("fine", [Measurement(f"given {sys.argv[1:]}", 2.0, "s", "time", 0.5, "theirs")])
"""
MODULES = {
    "fine_benchmark": FINE,
    "broken_benchmark": "print('so far so good'); raise MemoryError('1,000,000 rows')",
    "silent_benchmark": "print('what was measured is nobody\\'s business')",
    "slow_benchmark": "import time; time.sleep(600)",
}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))


def benchmark(module, **others):
    return Benchmark(module.removesuffix("_benchmark"), "title", module, **others)


def test_what_a_benchmark_reports_arrives():
    outcome = run_benchmark(benchmark("fine_benchmark", arguments=("--rows", "9")), short=False)

    assert outcome.state == "measured"
    assert outcome.measurements == (Measurement("given ['--rows', '9']", 2.0, "s", "time", 0.5, "theirs"),)


def test_the_short_form_has_its_own_arguments():
    outcome = run_benchmark(benchmark("fine_benchmark", arguments=("9",), short=("1",)), short=True)

    assert outcome.measurements[0].name == "given ['1']"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("broken_benchmark", "status 1: MemoryError: 1,000,000 rows"),
        ("silent_benchmark", "it reported nothing: what was measured is nobody's business"),
        ("slow_benchmark", "not done after 1 s: nothing was said"),
    ],
)
def test_a_benchmark_that_fails_says_why(module, reason):
    outcome = run_benchmark(benchmark(module), short=False, limit_seconds=1 if module == "slow_benchmark" else 60)

    assert (outcome.state, outcome.reason, outcome.measurements) == ("failed", reason, ())


def test_what_needs_photos_is_skipped_without_them(monkeypatch):
    monkeypatch.delenv(TEST_DATA, raising=False)

    outcome = run_benchmark(benchmark("broken_benchmark", needs_photos=True), short=False)

    assert (outcome.state, outcome.reason) == ("skipped", "needs the photos that INGRAPH_TEST_DATA names")


def test_what_the_short_form_leaves_out_is_skipped():
    outcome = run_benchmark(benchmark("broken_benchmark", short=None), short=True)

    assert (outcome.state, outcome.reason) == ("skipped", "not in the short form")


def test_the_others_run_after_one_that_failed_and_the_status_is_1(monkeypatch, tmp_path):
    suite = [benchmark("broken_benchmark"), benchmark("fine_benchmark")]
    monkeypatch.setattr(command, "chosen_benchmarks", lambda only: suite)

    result = CliRunner().invoke(command.main, ["--results", str(tmp_path / "results.json")])

    found = read_results((tmp_path / "results.json").read_bytes())
    assert [outcome.state for outcome in found.outcomes] == ["failed", "measured"]
    assert result.output.splitlines()[-1] == "failed: broken"
    assert result.exit_code == 1


def test_every_benchmark_of_the_suite_can_be_started():
    assert [each.name for each in SUITE if importlib.util.find_spec(each.module) is None] == []
    assert len({each.name for each in SUITE}) == len(SUITE)
