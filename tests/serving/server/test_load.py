"""The server under load while its model changes: a short, seeded form of benchmarks/serving/load.py."""

from __future__ import annotations

from benchmarks.serving.load import run_load


def test_versions_change_under_load_without_a_failed_request_or_a_wrong_answer():
    result = run_load(seconds=8.0, clients=8, swap_seconds=2.0, seed=7, batching=True)

    assert result.failures == []
    assert result.wrong_versions == []
    assert result.swaps >= 3
    assert all(len(seconds) > 8 for seconds in result.seconds.values())
