"""Measurements and results: figures with units, goals and bounds; of a whole run the machine, the file and the page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from rich.table import Table

Kind = Literal["time", "step", "memory", "throughput", "quality"]
LARGER_IS_BETTER: frozenset[Kind] = frozenset({"throughput", "quality"})


@dataclass(frozen=True)
class Goal:
    """What a figure is to keep to: at most where less is better, at least where more is.

    Attributes:
        limit: the bound.
        of: whether it holds for the ratio or for the value.
    """

    limit: float
    of: Literal["ratio", "value"] = "ratio"


@dataclass(frozen=True)
class Measurement:
    """A figure, and what it is to be compared with.

    Attributes:
        name: of what was measured, sizes included: figures of the same name can be compared between runs.
        value: in `unit`.
        unit: "s", "ms", "MiB", "1/s", "AUC", "accuracy".
        kind: `step` is the time of one component of many; the kind decides what counts as noise.
        ratio: the value over that of `beside`; None of what others are compared with.
        beside: what was measured in the same run for comparison.
        goal: None where nothing is promised.
    """

    name: str
    value: float
    unit: str
    kind: Kind
    ratio: float | None = None
    beside: str = ""
    goal: Goal | None = None

    @property
    def larger_is_better(self) -> bool:
        return self.kind in LARGER_IS_BETTER

    @property
    def reaches_goal(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None:
            return None
        found = self.value if self.goal.of == "value" else self.ratio
        if found is None:
            return None
        return found >= self.goal.limit if self.larger_is_better else found <= self.goal.limit


HEADINGS = ("", "measured", "ratio", "to", "goal")


def table_cells(measurement: Measurement) -> tuple[str, str, str, str, str]:
    """What stands below HEADINGS."""
    ratio = "" if measurement.ratio is None else f"{measurement.ratio:.2f}"
    if measurement.kind == "quality" and measurement.ratio is not None:
        ratio = f"{measurement.ratio:.3f}"
    return measurement.name, _value(measurement), ratio, measurement.beside, _goal(measurement)


def _value(measurement: Measurement) -> str:
    if measurement.kind == "quality":
        return f"{measurement.value:.4f} {measurement.unit}"
    decimals = 0 if measurement.value >= 100 else 1 if measurement.value >= 10 else 2
    return f"{measurement.value:,.{decimals}f} {measurement.unit}"


def _goal(measurement: Measurement) -> str:
    if measurement.goal is None:
        return ""
    wanted = f"{_bound(measurement)} {_limit(measurement.goal, measurement.unit)}"
    return wanted if measurement.reaches_goal else f"{wanted}: **missed**"


def _bound(measurement: Measurement) -> str:
    return "at least" if measurement.larger_is_better else "at most"


def _limit(goal: Goal, unit: str) -> str:
    return f"{goal.limit:,g} {unit}" if goal.of == "value" else f"{goal.limit:g}"


def measurements_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """A table for rich to print."""
    table = Table(*HEADINGS, title=title)
    for measurement in measurements:
        table.add_row(*table_cells(measurement))
    return table


LIBRARIES = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "scikit-learn")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Machine:
    """What decides how fast it is.

    Attributes:
        processor: its name, and which instructions for numbers it has.
        cores: how many of them may be used.
        memory: in GiB.
        system: the operating system.
        versions: of Python and of the libraries that do the work.
    """

    processor: str
    cores: int
    memory: float
    system: str
    versions: dict[str, str]


def this_machine() -> Machine:
    """The machine that this runs on (Linux)."""
    facts = _facts(Path("/proc/cpuinfo"))
    flags = facts.get("flags", "").split()
    known = " ".join(name for name in _INSTRUCTIONS if name in flags)
    kibibytes = int(_facts(Path("/proc/meminfo"))["MemTotal"].split()[0])
    return Machine(
        processor=f"{facts.get('model name', platform.machine())} ({known or 'no vector instructions known'})",
        cores=len(os.sched_getaffinity(0)),
        memory=round(kibibytes / 2**20, 1),
        system=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    )


def _facts(file: Path) -> dict[str, str]:
    """The `name: value` lines of a file below /proc, of several with one name the last."""
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


@dataclass(frozen=True)
class Outcome:
    """What a benchmark measured, or why it did not.

    Attributes:
        name: of the benchmark.
        title: what it is about.
        state: `skipped` where this machine has not what it needs, or the short form leaves it out.
        seconds: how long it took.
        reason: why it was skipped or failed.
        measurements: its figures.
    """

    name: str
    title: str
    state: Literal["measured", "skipped", "failed"]
    seconds: float = 0.0
    reason: str = ""
    measurements: tuple[Measurement, ...] = ()


RESULTS_FILE = "benchmarks/results.json"  # in the repository


@dataclass(frozen=True)
class Results:
    """What was measured, where and when.

    Attributes:
        date: of the run, as in 2026-01-31.
        short: whether it was the short form.
        machine: that it ran on.
        outcomes: of each benchmark.
    """

    date: str
    short: bool
    machine: Machine
    outcomes: tuple[Outcome, ...]

    def measurements(self) -> dict[tuple[str, str], Measurement]:
        """(benchmark, name) -> figure."""
        return {(outcome.name, found.name): found for outcome in self.outcomes for found in outcome.measurements}


_RESULTS = TypeAdapter(Results)


def read_results(content: bytes) -> Results:
    """The results in a JSON document.

    Raises:
        pydantic.ValidationError: it holds none.
    """
    return _RESULTS.validate_json(content)


def write_results(results: Results, path: Path) -> None:
    """Write them as JSON."""
    path.write_bytes(_RESULTS.dump_json(results, indent=1, exclude_defaults=True) + b"\n")


BEGIN = "<!-- written by make bench: begin -->"
END = "<!-- written by make bench: end -->"


def results_page(results: Results) -> str:
    """Markdown: the machine, and a section for each benchmark."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    minutes = sum(outcome.seconds for outcome in results.outcomes) / 60
    form = "The short form" if results.short else "All"
    lines = [
        f"{results.date}, {machine.processor}, {machine.cores} cores, {machine.memory:g} GiB, {machine.system};",
        f"{versions}. {form} took {minutes:.0f} minutes.",
    ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(map(_section, results.outcomes))


def replaced(page: str, part: str) -> str:
    """The page with `part` between its markers.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in the page; put them where the table belongs")
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def _section(outcome: Outcome) -> str:
    heading = f"### {outcome.title}\n\n"
    if outcome.state != "measured":
        return f"{heading}{outcome.state.capitalize()}: {outcome.reason}."
    rows = [
        _row(HEADINGS),
        _row(["---"] * len(HEADINGS)),
        *(_row(table_cells(found)) for found in outcome.measurements),
    ]
    return f"{heading}`--only {outcome.name}`, {outcome.seconds:.0f} s.\n\n" + "\n".join(rows)


def _row(cells: Sequence[str] | Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
