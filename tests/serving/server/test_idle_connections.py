"""Connections that ask nothing: a short form of benchmarks/serving/idle.py."""

from __future__ import annotations

from benchmarks.serving.idle import Round, problems, run_idle


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
