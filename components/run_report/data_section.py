"""The data, as a report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.run_report.charts.class_balance_chart import class_balance_chart
from components.run_report.charts.column_chart import column_chart
from components.run_report.column_shift import ColumnShift
from components.run_report.column_summary import ColumnSummary
from components.run_report.data_summary import DataSummary

# More pictures than that make the page slow and tell nobody anything.
COLUMNS_WITH_PICTURE = 40
SHOWN_SHIFTS = 8


@dataclass(frozen=True)
class ColumnRow:
    """A row of the table of columns: the summary, its picture, and the shift between the splits."""

    summary: ColumnSummary
    picture: str
    shift: ColumnShift | None


@dataclass(frozen=True)
class DataSection:
    """What the template shows of the data."""

    summary: DataSummary
    balance: str
    columns: list[ColumnRow]
    skew: str
    drift: str


def data_section(summary: DataSummary) -> DataSection:
    """Put words and pictures to a summary."""
    shifts = {shift.column: shift for shift in summary.skew}
    columns = [
        ColumnRow(column, column_chart(column) if place < COLUMNS_WITH_PICTURE else "", shifts.get(column.name))
        for place, column in enumerate(summary.columns)
    ]
    return DataSection(
        summary=summary,
        balance=class_balance_chart(summary.classes) if any(summary.classes.values()) else "",
        columns=columns,
        skew=_words(summary.skew, "the eval split", "the train split"),
        drift=""
        if summary.drift is None
        else _words(summary.drift, "the train split", "that of the model it is compared with"),
    )


def _words(shifts: Sequence[ColumnShift], after: str, before: str) -> str:
    if not shifts:
        return f"No column of {after} has a distribution that can be compared with {before}."
    shifted = [shift for shift in shifts if shift.shifted]
    if not shifted:
        return f"No column of {after} differs from {before} by more than chance explains."
    named = ", ".join(
        f"{shift.column} ({shift.distance:.3f}; chance explains {shift.by_chance:.3f})"
        for shift in shifted[:SHOWN_SHIFTS]
    )
    more = f" and {len(shifted) - SHOWN_SHIFTS} more" if len(shifted) > SHOWN_SHIFTS else ""
    return (
        f"{len(shifted)} of {len(shifts)} columns of {after} differ from {before} by more than chance: {named}{more}."
    )
