"""Short forms of `make load`, `make idle` and `make fuzz`."""

from __future__ import annotations

import requests

from benchmarks.serving.fuzz import fuzz_round, fuzz_server
from benchmarks.serving.idle import Round, problems, run_idle
from benchmarks.serving.load import run_load


def test_versions_change_under_load_without_a_failed_request_or_a_wrong_answer():
    result = run_load(seconds=8.0, clients=8, swap_seconds=2.0, seed=7, batching=True)

    assert result.failures == []
    assert result.wrong_versions == []
    assert result.swaps >= 3
    assert all(len(seconds) > 8 for seconds in result.seconds.values())


def test_idle_connections_by_the_thousand_leave_room_for_requests_and_are_let_go_of():
    rounds, files_before = run_idle(connections=4000, rounds=1)

    assert rounds[0].files_open >= files_before + 4000
    assert problems(rounds, files_before) == []


def test_dropped_connections_files_left_open_and_growing_memory_are_told():
    def seen(files_open: int = 123, files_closed: int = 23, memory: float = 800) -> Round:
        return Round(100, files_open, 1.0, memory, memory, files_closed)

    assert problems([seen(memory=900), seen(), seen(), seen(memory=824)], 23) == []
    assert problems([seen(memory=700), seen(files_open=99), seen(files_closed=24), seen(memory=825)], 23) == [
        "round 2: of 100 connections some were dropped: 99 files",
        "round 3: 24 files open after it, 23 before the first",
        "memory grew by 25 MiB after round 3",
    ]


def test_the_server_answers_whatever_comes_in_the_documented_form(base_paths):
    with fuzz_server(base_paths) as server:
        fuzz_round(server, number=1, examples=250)

        answer = requests.get(f"http://127.0.0.1:{server.rest_port}/v1/models/half_plus_two", timeout=30)
        assert answer.json()["model_version_status"][0]["state"] == "AVAILABLE"
