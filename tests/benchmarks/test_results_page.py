"""What `make bench` writes to docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.measurement import Goal, Measurement
from benchmarks.harness.results import (
    BEGIN,
    END,
    RESULTS_FILE,
    Outcome,
    read_results,
    replaced,
    results_page,
    write_results,
)

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
