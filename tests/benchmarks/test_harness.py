"""The harness: a suite that is run, its results, their page, and the comparison of two runs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks.compare import NOISE, compare, main
from benchmarks.harness.pipelines import Scale, growth
from benchmarks.harness.results import (
    BEGIN,
    END,
    RESULTS_FILE,
    Goal,
    Measurement,
    Outcome,
    read_results,
    replaced,
    results_page,
    write_results,
)
from benchmarks.harness.running import TEST_DATA, Benchmark, run_benchmark
from benchmarks.suite import SUITE

FINE = """
import sys
from benchmarks.harness.results import Measurement
from benchmarks.harness.running import report
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

    outcome = run_benchmark(benchmark("broken_benchmark", needs_images=True), short=False)

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


ROOT = Path(__file__).parents[2]


def rows(page):
    return [line for line in page.splitlines() if line.startswith("|")]


def test_a_figure_stands_with_its_unit_its_ratio_and_what_that_is_to(results):
    figures = results(
        Measurement("stock", 120.04, "s", "time"),
        Measurement("ours", 12.345, "s", "time", 0.1028, "stock", Goal(1)),
        Measurement("ours", 0.87654, "AUC", "quality", 0.99812, "scikit-learn"),
    )

    assert rows(results_page(figures))[2:] == [
        "| stock | 120 s |  |  |  |",
        "| ours | 12.3 s | 0.10 | stock | at most 1 |",
        "| ours | 0.8765 AUC | 0.998 | scikit-learn |  |",
    ]


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (Measurement("memory", 4097, "MiB", "memory", goal=Goal(4096, of="value")), "at most 4,096 MiB: **missed**"),
        (Measurement("memory", 4096, "MiB", "memory", goal=Goal(4096, of="value")), "at most 4,096 MiB"),
        (Measurement("rate", 9, "1/s", "throughput", 0.89, "x", Goal(0.9)), "at least 0.9: **missed**"),
        (Measurement("rate", 9, "1/s", "throughput", 0.9, "x", Goal(0.9)), "at least 0.9"),
        (Measurement("time", 9, "s", "time", 1.101, "x", Goal(1.1)), "at most 1.1: **missed**"),
    ],
)
def test_a_goal_that_is_missed_says_so(results, measurement, said):
    assert rows(results_page(results(measurement)))[-1].split(" | ")[-1] == f"{said} |"


def test_a_benchmark_that_failed_or_was_skipped_stands_there_with_its_reason(results):
    page = results_page(
        results(
            Outcome("a", "Photos", "skipped", reason="needs the photos that INGRAPH_TEST_DATA names"),
            Outcome("b", "Texts", "failed", 3.0, "status 1: MemoryError"),
        )
    )

    assert page.endswith(
        "### Photos\n\nSkipped: needs the photos that INGRAPH_TEST_DATA names.\n\n"
        "### Texts\n\nFailed: status 1: MemoryError."
    )


def test_the_page_names_machine_versions_date_and_time(results):
    page = results_page(results(Measurement("ours", 1.0, "s", "time")))

    assert page.startswith(
        "2026-01-31, Some processor (avx2), 2 cores, 23.5 GiB, Linux 6.1;\n"
        "python 3.11.2, tfx 1.21.0. All took 1 minutes."
    )
    assert "### How fast\n\n`--only speed`, 62 s." in page


def test_only_what_stands_between_the_markers_is_replaced():
    page = f"# By hand\n\n{BEGIN}\nold\n{END}\n\n## By hand too\n"

    assert replaced(page, "new") == f"# By hand\n\n{BEGIN}\n\nnew\n\n{END}\n\n## By hand too\n"


def test_a_page_without_markers_is_not_written_over():
    with pytest.raises(ValueError, match="expected the lines"):
        replaced("# By hand\n", "new")


def test_results_are_the_same_after_they_were_written_and_read(results, tmp_path):
    written = results(
        Measurement("ours", 1.0, "s", "time", 0.5, "theirs", Goal(1)), Outcome("a", "Photos", "skipped", reason="none")
    )

    write_results(written, tmp_path / "results.json")

    assert read_results((tmp_path / "results.json").read_bytes()) == written


def test_the_page_shows_the_committed_results():
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")

    assert replaced(page, results_page(read_results((ROOT / RESULTS_FILE).read_bytes()))) == page


def figure(kind, ratio, name="ours"):
    return Measurement(name, 10.0, "s", kind, ratio, "theirs")


@pytest.mark.parametrize(
    ("kind", "before", "now", "worse_by"),
    [
        ("time", 2.0, 2.4, 0.2),
        ("time", 2.0, 1.0, -0.5),
        ("memory", 1.0, 1.05, 0.05),
        ("throughput", 2.0, 1.5, 0.25),
        ("throughput", 2.0, 3.0, -0.5),
        ("quality", 1.0, 0.99, 0.01),
    ],
)
def test_worse_is_more_time_and_memory_and_less_throughput_and_quality(results, kind, before, now, worse_by):
    (change,) = compare(results(figure(kind, before)), results(figure(kind, now)))

    assert change.worse_by == pytest.approx(worse_by)
    assert not change.is_regression


@pytest.mark.parametrize("kind", NOISE)
def test_a_regression_is_what_goes_beyond_the_noise_of_its_kind(results, kind):
    sign = -1 if kind in ("throughput", "quality") else 1
    share = NOISE[kind].share
    within, beyond = figure(kind, 1 + sign * share * 0.9), figure(kind, 1 + sign * share * 1.1)

    changes = [compare(results(figure(kind, 1.0)), results(now))[0] for now in (within, beyond)]

    assert [change.is_regression for change in changes] == [False, True]


def test_a_short_step_may_double_as_long_as_it_stays_short(results):
    doubled = compare(results(figure("step", 0.02)), results(figure("step", 0.04)))[0]
    tenfold = compare(results(figure("step", 0.02)), results(figure("step", 0.2)))[0]

    assert (doubled.is_regression, tenfold.is_regression) == (False, True)


def test_only_ratios_that_both_runs_have_are_compared(results):
    earlier = results(figure("time", 1.0, "10 rows"), figure("time", 1.0, "100 rows"), figure("time", None, "script"))
    later = results(figure("time", 1.0, "10 rows"), figure("time", 9.0, "1,000 rows"), figure("time", None, "script"))

    assert [change.name for change in compare(earlier, later)] == ["10 rows"]


def test_a_ratio_to_something_else_is_no_change(results):
    earlier = results(Measurement("ours", 10.0, "s", "time", 1.0, "theirs"))
    later = results(Measurement("ours", 10.0, "s", "time", 9.0, "the script"))

    assert compare(earlier, later) == []


def written(folder, name, results):
    write_results(results, folder / name)
    return str(folder / name)


@pytest.fixture
def ended(tmp_path, results):
    """Compares two runs by the command."""

    def end(earlier, later):
        base = written(tmp_path, "earlier.json", results(earlier))
        return CliRunner().invoke(main, [written(tmp_path, "later.json", results(later)), "--with", base])

    return end


def test_the_command_names_a_regression_and_ends_with_status_1(ended):
    result = ended(figure("time", 1.0), figure("time", 1.5))

    assert "compared with 2026-01-31: 1 ratios, 1 worse beyond noise" in result.output
    assert "regression: speed: ours: 1.00 -> 1.50" in result.output
    assert result.exit_code == 1


def test_the_command_ends_with_status_0_where_nothing_is_worse(ended):
    result = ended(figure("time", 1.0), figure("time", 1.1))

    assert "regression" not in result.output
    assert result.exit_code == 0


def test_a_benchmark_that_failed_is_no_pass(ended):
    result = ended(figure("time", 1.0), Outcome("speed", "How fast", "failed", 1.0, "status 1: MemoryError"))

    assert "failed, so not compared: speed: status 1: MemoryError" in result.output
    assert result.exit_code == 1


def test_an_item_stands_beside_one_of_the_size_before_and_goals_hold_for_the_last_size():
    found = [
        Scale(10, {"look": 1.0, "read": 3.0}, 100.0),
        Scale(100, {"look": 20.0, "read": 20.0}, 150.0),
        Scale(1000, {"look": 300.0, "read": 120.0}, 150.0),
    ]

    figures = growth("rows", found, Goal(1.1), Goal(149, of="value"))

    assert [(each.name, each.value, each.ratio, each.beside, each.reaches_goal) for each in figures] == [
        ("10 rows: look", 1.0, None, "", None),
        ("10 rows: read", 3.0, None, "", None),
        ("10 rows: all steps", 4.0, None, "", None),
        ("10 rows: peak memory", 100.0, None, "", None),
        ("100 rows: look", 20.0, pytest.approx(2.0), "each of 10", None),
        ("100 rows: read", 20.0, pytest.approx(2 / 3), "each of 10", None),
        ("100 rows: all steps", 40.0, pytest.approx(1.0), "each of 10", None),
        ("100 rows: peak memory", 150.0, pytest.approx(1.5), "10 rows", None),
        ("1,000 rows: look", 300.0, pytest.approx(1.5), "each of 100", None),
        ("1,000 rows: read", 120.0, pytest.approx(0.6), "each of 100", None),
        ("1,000 rows: all steps", 420.0, pytest.approx(1.05), "each of 100", True),
        ("1,000 rows: peak memory", 150.0, pytest.approx(1.0), "100 rows", False),
    ]
