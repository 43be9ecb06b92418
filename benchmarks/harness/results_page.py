"""Results as a part of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.harness.outcome import Outcome
from benchmarks.harness.results import Results
from benchmarks.harness.table_cells import HEADINGS, table_cells

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
