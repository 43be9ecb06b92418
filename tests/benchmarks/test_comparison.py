"""`make bench-compare`: what counts as worse, and what it ends with."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.compare import main
from benchmarks.harness.comparison import NOISE, compare
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.results import Outcome, write_results


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
