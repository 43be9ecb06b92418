"""A month of `ingraph retrain`, a day after the other: what is published, what is not and why, and what clients notice.

    python -m benchmarks.retraining_month            # thirty days
    python -m benchmarks.retraining_month --week     # what the tests live through

Each day brings a folder of sales, or none; one is broken, one drifted, one was labelled by dice, and so on. The days
are made up, no clock is waited for. `ingraph serve` runs all the time, and a client asks it again and again, without
retries. Ends with status 1 where an attempt did not end as it is expected to, or a request failed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
from rich.console import Console
from rich.table import Table

from benchmarks.serving.servers import serve_command
from pipeline.cli import main as ingraph
from pipeline.exit_status import ExitStatus
from serving import model_store
from serving.client.connection import RetryPolicy
from serving.client.rest import RestClient

NAME = "shop"
CONFIG = f"""
name: {NAME}
task: tabular
data:
  minimum_examples: 5
  spans: {{path: "sales/{{YYYY}}-{{MM}}-{{DD}}/*.csv", window: 3, maximum_drift: 0.1}}
preprocessing: {{label: {{column: bought}}, columns: {{income: z_score}}}}
trainer: {{hidden_units: [], epochs: 60, learning_rate: 0.05, warm_start: true}}
evaluation: {{at_least: {{auc: 0.9}}, may_worsen_by: {{auc: 0.05}}}}
"""
QUESTION = {"age": [40], "income": [50.0], "city": ["Rome"]}

Kind = Literal["ordinary", "drifted", "broken", "noisy", "new class", "no rows"]
Event = Literal["", "killed", "withdrawn"]


@dataclass(frozen=True)
class Attempt:
    """A retrain and how it ends.

    Attributes:
        day: of the month.
        arrives: day -> what its folder holds from now on.
        status: with which it ends; -9 where it is killed.
        served: the version served after it, 0 for none.
        says: a part of what it says; of a second retrain, where the first is killed.
        event: "killed" while it trains, after a second retrain was turned away; or before it the served version is
            "withdrawn".
        compared_with: the version that the new model was compared with, where it was published; 0 for none.
    """

    day: int
    arrives: Mapping[int, Kind]
    status: int
    served: int
    says: str
    event: Event = ""
    compared_with: int | None = None


@dataclass
class Month:
    """What happened: for each attempt what was expected in it, and what the client noticed."""

    outcomes: list[Attempt] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    answers: int = 0
    failures: list[str] = field(default_factory=list)


def _published(day: int, version: int, *mended: int, compared_with: int | None = None, event: Event = "") -> Attempt:
    return Attempt(
        day,
        dict.fromkeys([*mended, day], "ordinary"),
        ExitStatus.PUBLISHED,
        version,
        f"published as version {version}",
        event=event,
        compared_with=version - 1 if compared_with is None else compared_with,
    )


WEEK = [
    _published(1, 1),
    Attempt(2, {2: "ordinary"}, -signal.SIGKILL, 1, "runs this pipeline; wait until it has ended", event="killed"),
    _published(2, 2),
    Attempt(3, {3: "broken"}, ExitStatus.BROKEN_INPUT, 2, "line 151: column 'income' is 'unknown'"),
    Attempt(
        4, {3: "ordinary", 4: "drifted"}, ExitStatus.ANOMALIES, 2, "span 2026-01-04, column 'income': Jensen-Shannon"
    ),
    Attempt(5, {4: "ordinary", 5: "noisy"}, ExitStatus.NOT_BLESSED, 2, "expected at least 0.9"),
    _published(6, 3, 5),
    Attempt(6, {7: "no rows"}, ExitStatus.NO_NEW_DATA, 3, "no new data: version 3 learned from 3 spans"),
    Attempt(7, {}, ExitStatus.NO_NEW_DATA, 2, "which is withdrawn", event="withdrawn"),
    _published(8, 4, compared_with=2),
]
MONTH = [
    *(_published(day, day) for day in range(1, 5)),
    Attempt(5, {5: "broken"}, ExitStatus.BROKEN_INPUT, 4, "line 151: column 'income' is 'unknown'"),
    _published(6, 5, 5),
    Attempt(7, {}, ExitStatus.NO_NEW_DATA, 5, "no new data: version 5 learned from 3 spans"),
    _published(8, 6),
    Attempt(9, {9: "drifted"}, ExitStatus.ANOMALIES, 6, "span 2026-01-09, column 'income': Jensen-Shannon"),
    Attempt(9, {}, ExitStatus.ANOMALIES, 6, "span 2026-01-09, column 'income': Jensen-Shannon"),
    _published(10, 7, 9),
    Attempt(11, {11: "no rows"}, ExitStatus.NO_NEW_DATA, 7, "no new data: version 7 learned from 3 spans"),
    Attempt(12, {12: "ordinary"}, -signal.SIGKILL, 7, "runs this pipeline; wait until it has ended", event="killed"),
    _published(12, 8),
    Attempt(13, {13: "new class"}, ExitStatus.INCOMPATIBLE, 8, "new class 'maybe'"),
    _published(14, 9, 13),
    Attempt(15, {15: "noisy"}, ExitStatus.NOT_BLESSED, 9, "expected at least 0.9"),
    _published(16, 10, 15),
    _published(17, 11),
    Attempt(18, {}, ExitStatus.NO_NEW_DATA, 10, "which is withdrawn", event="withdrawn"),
    _published(19, 12, compared_with=10),
    *(_published(day, day - 7) for day in range(20, 31)),
]


@click.command()
@click.option("--week", is_flag=True, help="Only what the tests live through.")
def main(week: bool) -> None:
    """Print each attempt as it ended, and what the client noticed."""
    with tempfile.TemporaryDirectory() as folder:
        expected = WEEK if week else MONTH
        month = live_through(expected, Path(folder))
    table = Table("day", "status", "served", "compared with", "said", box=None)
    for outcome, said in zip(month.outcomes, month.said, strict=True):
        says = outcome.says or f"unexpected: {said}"
        shown = (outcome.day, outcome.status, outcome.served, outcome.compared_with, says)
        table.add_row(*("" if value is None else str(value) for value in shown))
    console = Console()
    console.print(table)
    console.print(f"{month.answers:,} requests answered, {len(month.failures)} failed: {month.failures[:3]}")
    if month.outcomes != expected or month.failures:
        raise SystemExit(1)


def live_through(attempts: Sequence[Attempt], workdir: Path) -> Month:
    """Retrain as often as is asked for, with a server and a client beside it from the first published version on.

    Args:
        attempts: what arrives, and what is expected.
        workdir: an empty folder.
    """
    config = workdir / f"{NAME}.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    month = Month()
    with contextlib.ExitStack() as stack:
        for attempt in attempts:
            _deliver(attempt.arrives, workdir)
            outcome, said = _live_through(attempt, config, workdir)
            month.outcomes.append(outcome)
            month.said.append(said)
            if outcome.served and len(month.outcomes) == 1:
                stack.enter_context(_client(workdir, month))
    return month


def _live_through(attempt: Attempt, config: Path, workdir: Path) -> tuple[Attempt, str]:
    """The attempt as it ended, and all that was said."""
    base_path = str(workdir / "models" / NAME)
    if attempt.event == "withdrawn":
        model_store.withdraw(base_path, reason="complaints")
    if attempt.event == "killed":
        status, said = _killed(config, workdir)
    else:
        status, said = _retrain(config, workdir)
    served = model_store.served_version(base_path)
    outcome = Attempt(
        attempt.day,
        attempt.arrives,
        status,
        served.number if served else 0,
        attempt.says if attempt.says in said else "",
        attempt.event,
        _compared_with(workdir) if status == ExitStatus.PUBLISHED else None,
    )
    return outcome, said


def _retrain(config: Path, workdir: Path) -> tuple[int, str]:
    """Exit status and output of `ingraph retrain` in this process: TFX is imported once."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(output.fileno(), 1)
        try:
            with contextlib.redirect_stdout(output):
                ingraph(["retrain", str(config), "--workdir", str(workdir)])
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        output.seek(0)
        said = output.read()
    return status, said


def _killed(config: Path, workdir: Path) -> tuple[int, str]:
    """The exit status of a retrain that is killed while it trains; what another says that is started meanwhile."""
    command = [str(Path(sys.executable).with_name("ingraph")), "retrain", str(config), "--workdir", str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[:1] == ["Transform"]:
                break
        status, said = _retrain(config, workdir)
        process.kill()
    holder = f"process {process.pid}"
    return process.returncode, said if status == ExitStatus.UNDER_WAY and holder in said else f"status {status}: {said}"


def _compared_with(workdir: Path) -> int:
    """The version that the newest run compared its model with."""
    from pipeline.history import open_metadata_store, read_recorded_run, run_ids

    folder = workdir / "runs" / NAME
    recorded = read_recorded_run(open_metadata_store(str(folder / "metadata.sqlite")), run_ids(folder)[0])
    return int(recorded.artifacts["baseline_model"].properties["served_version"])


def _deliver(arrives: Mapping[int, Kind], workdir: Path) -> None:
    for day, kind in arrives.items():
        folder = workdir / "sales" / date(2026, 1, day).isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rows.csv").write_text("\n".join(_sales(day, kind)) + "\n", encoding="utf-8")


def _sales(day: int, kind: Kind, rows: int = 300) -> list[str]:
    chance = random.Random(day)
    lines = ["age,income,city,bought"]
    for row in range(0 if kind == "no rows" else rows):
        age, income = chance.randint(18, 80), chance.uniform(10, 90) + 40 * (kind == "drifted")
        city = chance.choice(["Oslo", "Rome", "Lima"])
        bought = "yes" if income + 20 * (city == "Rome") + chance.gauss(0, 5) > 55 else "no"
        if kind == "noisy":
            bought = chance.choice(["yes", "no"])
        if kind == "new class" and row % 12 == 0:
            bought = "maybe"
        shown = "unknown" if kind == "broken" and len(lines) == 150 else f"{income:.2f}"
        lines.append(f"{age},{shown},{city},{bought}")
    return lines


@contextlib.contextmanager
def _client(workdir: Path, month: Month) -> Iterator[None]:
    """Serve the models, and ask until the context ends."""
    done = threading.Event()
    with serve_command(NAME, str(workdir / "models" / NAME)) as server:
        asking = threading.Thread(target=_ask, args=(server.rest_port, done, month))
        asking.start()
        try:
            yield
        finally:
            done.set()
            asking.join()


def _ask(port: int, done: threading.Event, month: Month) -> None:
    with RestClient(port=port, retry=RetryPolicy(attempts=1)) as client:
        while not done.wait(0.1):
            try:
                answer = client.predict(NAME, QUESTION)["output_0"]
            except Exception as error:
                month.failures.append(repr(error))
            else:
                month.answers += 1
                if list(answer) not in (["yes"], ["no"]):
                    month.failures.append(f"expected yes or no, received {answer}")


if __name__ == "__main__":
    main()
