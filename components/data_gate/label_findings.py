"""What is wrong with the label column of a split."""

from __future__ import annotations

from components.data_gate.column_statistics import class_counts, present_count
from components.data_gate.quoted import rows
from components.data_gate.split_findings import SplitFindings


def unusable_label(split: SplitFindings, label: str) -> str | None:
    """Why nothing can be learned from this split's label; None where it can."""
    column = split.columns.get(label)
    if column is None:
        names = ", ".join(split.columns) or "none"
        return (
            f"{split.name} split: there is no label column {label!r}; the columns are {names}. "
            "Name one of them as the label in the config, or add the column to the data."
        )
    if not present_count(column):
        return f"{split.name} split: the label column {label!r} is empty in every row; fill in the labels."
    classes = class_counts(column)
    if len(classes) == 1:
        (value,) = classes
        return (
            f"{split.name} split: the label column {label!r} holds one value only, {value!r}, in "
            f"{rows(classes[value])}; at least two classes are needed, add examples of another."
        )
    return None


def missing_labels(split: SplitFindings, label: str) -> str | None:
    """How many rows have no label, where some have."""
    column = split.columns.get(label)
    present = present_count(column) if column is not None else 0
    if not 0 < present < split.examples:
        return None
    return (
        f"{split.name} split: the label column {label!r} is empty in {split.examples - present} of "
        f"{rows(split.examples)}; they are neither trained nor evaluated on."
    )
