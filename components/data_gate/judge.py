"""The verdict on a run's data: whether they may be trained on."""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_gate.sentences import (
    STRUCTURAL,
    UNLISTED_VALUES,
    anomaly_sentence,
    format_counts,
    format_values,
    rows,
    string_domain,
    values_outside_domain,
)
from components.data_gate.split_statistics import (
    SplitFindings,
    class_counts,
    column_name,
    non_numeric_values,
    present_count,
    value_counts,
)
from components.data_gate.verdict import Verdict


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


def judge(
    splits: Iterable[SplitFindings],
    schema: schema_pb2.Schema,
    label: str,
    schema_is_curated: bool,
    minimum_examples: int,
    schema_path: str = "",
) -> Verdict:
    """Judge the splits of a run.

    On a curated schema every anomaly stops the run. An inferred one has seen the train split only: what it did not see
    is a warning, a missing column or a wrong type still stops.

    Args:
        splits: what is known of each split.
        schema: what the data is expected to be.
        label: the label column; "" where nothing is learned, and labels are not looked at.
        schema_is_curated: whether a person wrote or reviewed the schema.
        minimum_examples: how many examples each split needs.
        schema_path: the file a person would correct; "" for an inferred schema.
    """
    unusable: list[str] = []
    anomalies: list[str] = []
    warnings: list[str] = []
    splits = list(splits)
    for split in splits:
        if split.examples < minimum_examples or not split.examples:
            unusable.append(
                f"{split.name} split: {split.examples or 'no'} examples, at least {max(minimum_examples, 1)} are "
                "needed; add data, or change the split."
            )
        if not split.examples:
            continue
        problem = unusable_label(split, label) if label else None
        unusable += filter(None, [problem])
        warnings += filter(None, [missing_labels(split, label) if label else None])
        for column, sentence, structural in _anomalies(split, schema, schema_path):
            if problem and column == label:
                continue  # said already, and better
            (anomalies if structural or schema_is_curated else warnings).append(sentence)
        warnings += _tolerated_values(split, schema, schema_path)
        if not schema_is_curated:
            warnings += _mixed_columns(split)
    return Verdict(
        unusable=tuple(unusable),
        anomalies=tuple(anomalies),
        warnings=tuple(warnings),
        examples={split.name: split.examples for split in splits},
        classes={split.name: class_counts(split.columns[label]) if label in split.columns else {} for split in splits},
    )


def _anomalies(split: SplitFindings, schema: schema_pb2.Schema, schema_path: str) -> Iterable[tuple[str, str, bool]]:
    """Column, sentence, and whether the anomaly stops also a run whose schema was only inferred."""
    if split.anomalies.HasField("dataset_anomaly_info"):
        yield "", f"{split.name} split: {split.anomalies.dataset_anomaly_info.description}", False
    for name, anomaly in sorted(split.anomalies.anomaly_info.items()):
        column = ".".join(anomaly.path.step) or name
        # Several reasons often say the same of one column: a missing column also lacks its minimum count.
        sentences = {anomaly_sentence(split, column, reason, schema, schema_path): reason for reason in anomaly.reason}
        for sentence, reason in sentences.items():
            yield column, sentence, reason.type in STRUCTURAL


def _tolerated_values(split: SplitFindings, schema: schema_pb2.Schema, schema_path: str) -> Iterable[str]:
    """Values outside of a domain that are too few to be an anomaly."""
    reported = {
        ".".join(anomaly.path.step) or name
        for name, anomaly in split.anomalies.anomaly_info.items()
        if any(reason.type in UNLISTED_VALUES for reason in anomaly.reason)
    }
    for expected in schema.feature:
        column = split.columns.get(expected.name)
        if column is None or expected.name in reported:
            continue
        outside = values_outside_domain(column, expected, schema)
        if outside:
            allowance = 1 - expected.distribution_constraints.min_domain_mass
            listed = format_values(string_domain(expected, schema))
            yield (
                f"{split.name} split, column {expected.name!r}: {format_counts(outside)} not among {listed}, "
                f"but within the {100 * allowance:.3g} % that the schema lets pass; "
                f"the model treats them as unseen values. Correct them, or list them in {schema_path or 'the schema'}."
            )


def _mixed_columns(split: SplitFindings) -> Iterable[str]:
    """Text columns of which most values are numbers: nobody told the inferred schema that they should all be."""
    for column in split.statistics.features:
        text = non_numeric_values(column)
        if text and sum(text.values()) < sum(value_counts(column).values()) / 2:
            yield (
                f"{split.name} split, column {column_name(column)!r}: most values are numbers, but it is read as text "
                f"because of {format_counts(text)}; correct them if the column should be numeric."
            )
