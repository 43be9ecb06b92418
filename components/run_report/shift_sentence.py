"""Shifts of columns in words."""

from __future__ import annotations

from collections.abc import Sequence

from components.run_report.column_shift import ColumnShift

SHOWN_SHIFTS = 8


def shift_sentence(shifts: Sequence[ColumnShift], after: str, before: str) -> str:
    """Which columns differ by more than chance explains, and by how much.

    Args:
        shifts: what was measured.
        after: what to call the data that is looked at.
        before: what to call the data that it is compared with.
    """
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
