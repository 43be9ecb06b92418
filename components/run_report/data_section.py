"""The data, as a report shows it."""

from __future__ import annotations

from dataclasses import dataclass

from components.run_report.charts.class_balance_chart import class_balance_chart
from components.run_report.charts.column_chart import column_chart
from components.run_report.charts.shift_chart import shift_chart
from components.run_report.column_shift import ColumnShift
from components.run_report.column_summary import ColumnSummary
from components.run_report.data_summary import DataSummary
from components.run_report.shift_sentence import shift_sentence

# More pictures than that make the page slow and tell nobody anything.
COLUMNS_WITH_PICTURE = 40


@dataclass(frozen=True)
class ColumnRow:
    """A row of the table of columns: the summary, its picture, the shift between the splits and that from before."""

    summary: ColumnSummary
    picture: str
    skew: ColumnShift | None
    drift: ColumnShift | None


@dataclass(frozen=True)
class DataSection:
    """What the template shows of the data."""

    summary: DataSummary
    balance: str
    columns: list[ColumnRow]
    skew: str
    skew_picture: str
    drift: str
    drift_picture: str


def data_section(summary: DataSummary) -> DataSection:
    """Put words and pictures to a summary."""
    skew, drift = ({shift.column: shift for shift in shifts or ()} for shifts in (summary.skew, summary.drift))
    columns = [
        ColumnRow(
            summary=column,
            picture=column_chart(column) if place < COLUMNS_WITH_PICTURE else "",
            skew=skew.get(column.name),
            drift=drift.get(column.name),
        )
        for place, column in enumerate(summary.columns)
    ]
    return DataSection(
        summary=summary,
        balance=class_balance_chart(summary.classes) if any(summary.classes.values()) else "",
        columns=columns,
        skew=shift_sentence(summary.skew, "the eval split", "the train split"),
        skew_picture=shift_chart(summary.skew, "divergence, eval from train") if summary.skew else "",
        drift=""
        if summary.drift is None
        else shift_sentence(summary.drift, "the train split", "that of the model it is compared with"),
        drift_picture=shift_chart(summary.drift, "divergence from the served model's data") if summary.drift else "",
    )
