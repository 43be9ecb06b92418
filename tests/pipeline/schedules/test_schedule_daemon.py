"""The local daemon: with a clock that tests set, and as a process that is killed over real seconds."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.errors import BrokenInput
from pipeline.options import ScheduleOptions
from pipeline.schedules.daemon import DueTrigger, LocalSchedule, run_due, start_schedule
from pipeline.schedules.journal import RunJournal

MIDNIGHT = datetime(2026, 5, 4, tzinfo=UTC)
COUNTED = ("sh", "-c", "echo run >> runs.txt")


def at(hour: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hour)


def hourly(folder: Path, now: Callable[[], datetime], **options: Any) -> LocalSchedule:
    given = {"overlap": "skip", "catch_up": "none", "command": COUNTED, **options}
    trigger = DueTrigger(ScheduleOptions(cron="0 * * * *"))
    return LocalSchedule("heart", trigger, workdir=folder, journal=RunJournal(folder / "schedule"), now=now, **given)


def run_count(folder: Path) -> int:
    path = folder / "runs.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def logged(folder: Path) -> list[tuple[str, str]]:
    """Due time and what became of it, a pair a line of the log."""
    lines = (folder / "schedule/schedule.log").read_text(encoding="utf-8")
    return re.findall(r"due \S+ ([\d:]+): (exit status -?\d+|skipped|died|could not be started)", lines)


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", [("02:00:00", "skipped"), ("03:00:00", "skipped"), ("04:00:00", "skipped")]),
        ("latest", [("02:00:00", "skipped"), ("03:00:00", "skipped"), ("04:00:00", "exit status 0")]),
        ("all", [("02:00:00", "exit status 0"), ("03:00:00", "exit status 0"), ("04:00:00", "exit status 0")]),
    ],
)
def test_of_the_runs_missed_while_no_daemon_was_there_those_are_made_up_that_catch_up_says(
    catch_up, expected, tmp_path
):
    start_schedule(hourly(tmp_path, lambda: at(0.5), catch_up=catch_up))
    run_due(hourly(tmp_path, lambda: at(1), catch_up=catch_up))
    assert logged(tmp_path) == [("01:00:00", "exit status 0")]
    for _ in range(2):  # a second restart finds all settled
        start_schedule(hourly(tmp_path, lambda: at(4.5), catch_up=catch_up))
        run_due(hourly(tmp_path, lambda: at(4.6), catch_up=catch_up))
        assert logged(tmp_path)[1:] == expected
    assert run_count(tmp_path) == 1 + sum("exit" in outcome for _, outcome in expected)


def test_a_new_schedule_misses_nothing(tmp_path):
    start_schedule(hourly(tmp_path, lambda: at(7.5), catch_up="all"))
    run_due(hourly(tmp_path, lambda: at(7.9), catch_up="all"))
    assert run_count(tmp_path) == 0


def test_a_daemon_whose_machine_slept_has_missed_what_is_late_and_runs_what_is_punctual(tmp_path):
    start_schedule(hourly(tmp_path, lambda: at(0.5)))
    run_due(hourly(tmp_path, lambda: at(3) + timedelta(seconds=20)))
    assert logged(tmp_path) == [("01:00:00", "skipped"), ("02:00:00", "skipped"), ("03:00:00", "exit status 0")]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", [("01:00:00", "exit status 0"), ("02:00:00", "skipped"), ("03:00:00", "skipped")]),
        ("queue", [("01:00:00", "exit status 0"), ("02:00:00", "exit status 0"), ("03:00:00", "exit status 0")]),
    ],
)
def test_what_falls_due_while_a_run_takes_longer_than_the_interval_is_skipped_or_queued(overlap, expected, tmp_path):
    # The first run takes until 3:30, the others a minute.
    hours = {0: 1.0, 1: 3.5, 2: 3.52, 3: 3.54}
    schedule = hourly(tmp_path, lambda: at(hours[run_count(tmp_path)]), overlap=overlap)
    schedule.journal.settle(at(0.5))
    run_due(schedule)
    assert logged(tmp_path) == expected


def test_what_is_queued_when_the_daemon_is_told_to_stop_is_made_up_by_the_next_one(tmp_path):
    # The first run takes until 3:30; the daemon is told to stop meanwhile.
    def now() -> datetime:
        if run_count(tmp_path):
            schedule.stopping.set()
        return at(3.5 if run_count(tmp_path) else 1)

    schedule = hourly(tmp_path, now, overlap="queue", catch_up="all")
    schedule.journal.settle(at(0.5))
    run_due(schedule)
    assert logged(tmp_path) == [("01:00:00", "exit status 0")]
    start_schedule(hourly(tmp_path, lambda: at(3.5), overlap="queue", catch_up="all"))
    assert [due for due, _ in logged(tmp_path)] == ["01:00:00", "02:00:00", "03:00:00"]


def test_a_missed_run_that_is_to_be_made_up_is_not_lost_behind_one_that_is_skipped(tmp_path):
    # 1:00 and 2:00 were missed; the first takes until 4:30, which 3:00 and 4:00 overlap with.
    hours = {0: 2.5, 1: 4.5, 2: 4.6}
    schedule = hourly(tmp_path, lambda: at(hours[run_count(tmp_path)]), catch_up="all")
    schedule.journal.settle(at(0.5))
    start_schedule(schedule)
    assert logged(tmp_path) == [
        ("01:00:00", "exit status 0"),
        ("02:00:00", "exit status 0"),
        ("03:00:00", "skipped"),
        ("04:00:00", "skipped"),
    ]


def test_a_run_that_was_started_is_not_started_again_for_the_same_due_time(tmp_path):
    journal = RunJournal(tmp_path / "schedule")
    journal.settle(at(0.5))
    launch = [
        sys.executable,
        "-m",
        "pipeline.schedules.journal",
        str(journal.folder),
        at(1).isoformat(),
        *COUNTED,
    ]
    both = [subprocess.Popen(launch, cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert run_count(tmp_path) == 1
    run_due(hourly(tmp_path, lambda: at(1)))
    assert run_count(tmp_path) == 1


def test_the_log_has_the_exit_status_and_the_output_is_kept(tmp_path):
    said: list[str] = []
    command = ("sh", "-c", "echo no new data; exit 8")
    schedule = hourly(tmp_path, lambda: at(1), command=command, echo=said.append)
    schedule.journal.settle(at(0.5))
    run_due(schedule)
    assert said == ["heart: due 2026-05-04 01:00:00: exit status 8 after 0 s"]
    assert (tmp_path / "schedule/last_output.log").read_text(encoding="utf-8") == "no new data\n"


def test_a_program_that_is_not_there_has_the_exit_status_that_a_shell_gives_it(tmp_path):
    schedule = hourly(tmp_path, lambda: at(1), command=(str(tmp_path / "none"),))
    schedule.journal.settle(at(0.5))
    run_due(schedule)
    assert logged(tmp_path) == [("01:00:00", "exit status 127")]
    assert "No such file" in (tmp_path / "schedule/last_output.log").read_text(encoding="utf-8")


def test_state_that_is_damaged_is_named(tmp_path):
    schedule = hourly(tmp_path, lambda: at(1))
    (schedule.journal.folder / "settled.json").write_text("{", encoding="utf-8")
    with pytest.raises(BrokenInput, match=r"settled\.json: not what a daemon wrote .* remove it"):
        start_schedule(schedule)


DAEMON = """
import sys
from datetime import UTC
from pathlib import Path
from apscheduler.triggers.cron import CronTrigger
from pipeline.schedules.daemon import LocalSchedule, run_daemon
from pipeline.schedules.journal import RunJournal

overlap, catch_up, seconds = sys.argv[1:]
folder = Path.cwd()
command = ("sh", "-c", f"echo run >> runs.txt; exec sleep {seconds}")
every_second = CronTrigger(second="*", timezone=UTC)
run_daemon([LocalSchedule("heart", every_second, overlap, catch_up, command, folder, RunJournal(folder / "schedule"),
                          echo=lambda line: print(line, flush=True))])
"""


@pytest.fixture
def daemon(tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a daemon with a run due every second; what it leaves behind is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(overlap: str, catch_up: str, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DAEMON, overlap, catch_up, str(seconds)]
        started.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def due_and_run(folder: Path) -> list[datetime]:
    log = folder / "schedule/schedule.log"
    lines = log.read_text(encoding="utf-8") if log.exists() else ""
    return [datetime.fromisoformat(due) for due in re.findall(r"due (\S+ \S+): exit", lines)]


def test_a_daemon_ends_at_once_where_its_state_is_damaged_and_runs_nothing(daemon, tmp_path):
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule/settled.json").write_text("{", encoding="utf-8")
    assert daemon("queue", "all", 0.1).wait(timeout=60) == 1
    assert not (tmp_path / "runs.txt").exists()


def test_a_daemon_that_is_killed_again_and_again_misses_and_repeats_nothing_when_all_is_made_up(daemon, tmp_path):
    for kill in range(3):
        before = len(due_and_run(tmp_path))
        process = daemon("queue", "all", 0.1)
        wait_for(lambda enough=before + 2: len(due_and_run(tmp_path)) >= enough)
        time.sleep(0.37 * kill)  # at another point of the second each time
        if kill < 2:
            process.kill()
            process.wait()
            time.sleep(1.2)
    process.terminate()
    assert process.wait() == 0
    due = due_and_run(tmp_path)
    assert {later - earlier for earlier, later in itertools.pairwise(due)} == {timedelta(seconds=1)}
    assert run_count(tmp_path) == len(due)


def test_a_daemon_that_was_killed_makes_up_for_nothing_where_catch_up_is_none(daemon, tmp_path):
    process = daemon("skip", "none", 0.1)
    wait_for(lambda: len(due_and_run(tmp_path)) >= 2)
    process.kill()
    process.wait()
    time.sleep(0.5)
    with RunJournal(tmp_path / "schedule").lock("run.lock", blocking=True):  # a run that it left behind has ended
        before = due_and_run(tmp_path)
    time.sleep(1.2)
    restarted = datetime.now(UTC).replace(tzinfo=None)
    process = daemon("skip", "none", 0.1)
    wait_for(lambda: len(due_and_run(tmp_path)) >= len(before) + 1)
    process.terminate()
    assert process.wait() == 0
    due = due_and_run(tmp_path)
    assert due[: len(before)] == before and due[len(before)] > restarted
    assert len(set(due)) == len(due) == run_count(tmp_path)
    assert "missed, and catch_up is none" in (tmp_path / "schedule/schedule.log").read_text(encoding="utf-8")


def test_a_run_outlives_a_daemon_that_is_killed_and_the_next_one_waits_for_it(daemon, tmp_path):
    process = daemon("skip", "none", 2)
    wait_for(lambda: run_count(tmp_path) == 1)
    process.kill()
    process.wait()
    process = daemon("skip", "none", 2)
    wait_for(lambda: len(logged(tmp_path)) > 0)
    outcomes = logged(tmp_path)
    process.terminate()
    process.wait()
    assert outcomes[0][1] == "exit status 0"
    assert run_count(tmp_path) <= 2  # the first, and perhaps one after it that SIGTERM waited for
    times = [due for due, _ in logged(tmp_path)]
    assert len(set(times)) == len(times)


def test_a_run_that_died_with_its_daemon_is_logged_once_and_not_repeated(daemon, tmp_path):
    journal = RunJournal(tmp_path / "schedule")
    journal.settle(at(0.5))
    launch = [sys.executable, "-m", "pipeline.schedules.journal", str(journal.folder), at(1).isoformat()]
    run = subprocess.Popen([*launch, "sleep", "60"], start_new_session=True)
    wait_for(lambda: journal.last_run is not None)
    time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for _ in range(2):
        start_schedule(hourly(tmp_path, lambda: at(1.5), catch_up="all"))
        assert logged(tmp_path) == [("01:00:00", "died")]


def test_sigterm_lets_the_run_end_and_logs_it(daemon, tmp_path):
    process = daemon("skip", "none", 1)
    wait_for(lambda: run_count(tmp_path) == 1)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert run_count(tmp_path) == 1
    assert [outcome for _, outcome in logged(tmp_path) if outcome != "skipped"] == ["exit status 0"]
    assert "a run that goes on is waited for" in output
    assert "exit status 0 after 1 s" in output


def test_a_second_signal_ends_the_run_too(daemon, tmp_path):
    process = daemon("skip", "none", 600)
    wait_for(lambda: run_count(tmp_path) == 1)
    process.terminate()
    assert "waited for" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert "exit status -15" in [outcome for _, outcome in logged(tmp_path)]


def test_no_thread_that_an_import_starts_could_take_the_signals():
    script = "import os, pipeline.schedules.daemon; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_two_daemons_do_not_keep_the_same_schedule(daemon, tmp_path):
    daemon("skip", "none", 0.1)
    wait_for(lambda: run_count(tmp_path) > 0)
    second = subprocess.run(
        [sys.executable, "-c", DAEMON, "skip", "none", "0.1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert (
        "RunUnderWay" in second.stderr and "another daemon keeps the schedule of heart; end it first" in second.stderr
    )


def test_the_command_starts_retrain_for_what_was_missed_and_ends_by_sigterm(tmp_path):
    config = tmp_path / "sales.yaml"
    config.write_text(
        """
name: sales
task: tabular
data: {spans: {path: "data/{SPAN}.csv", window: 3}}
preprocessing: {label: {column: bought}}
evaluation: {at_least: {auc: 0.7}}
schedule: {cron: "0 * * * *", catch_up: latest}
""",
        encoding="utf-8",
    )
    journal = RunJournal(tmp_path / "work/runs/sales/schedule")
    journal.settle(datetime.now(UTC) - timedelta(hours=3))
    ingraph = str(Path(sys.executable).with_name("ingraph"))
    command = [ingraph, "schedule", "run", str(config), "--workdir", str(tmp_path / "work")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
    finally:
        process.terminate()
    assert process.wait() == 0
    assert [re.sub(r"\d{4}-\S+ \d\d:00:00", "TIME", line) for line in lines[:2]] == [
        "sales: due TIME: skipped: missed, and catch_up is latest\n"
    ] * 2
    # There is no span yet.
    assert re.match(r"sales: due \S+ \d\d:00:00: exit status 2 after \d+ s", lines[2])
    assert "data/{SPAN}.csv" in (journal.folder / "last_output.log").read_text(encoding="utf-8")
