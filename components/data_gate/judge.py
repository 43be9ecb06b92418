"""The verdict on a run's data: whether they may be trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.data_gate.splits import (
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


def unshared_labels(splits: Sequence[SplitFindings], label: str) -> Iterable[str]:
    """Splits whose labels the first one, which is learned from, does not have at all: nothing could be measured."""
    classes = {split.name: class_counts(split.columns[label]) for split in splits if label in split.columns}
    (first, learned), *others = classes.items() or [("", {})]
    for name, found in others:
        if learned and found and not learned.keys() & found.keys():
            yield (
                f"{name} split: the label column {label!r} holds {format_counts(found)}, none of the labels of the "
                f"{first} split, {format_values(sorted(learned))}; write the same label alike in both."
            )


def judge(
    splits: Iterable[SplitFindings],
    schema: schema_pb2.Schema,
    label: str,
    schema_is_curated: bool,
    minimum_examples: int,
    schema_path: str = "",
    texts: Collection[str] = (),
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
        texts: columns of texts. An inferred schema lists those of the train split where they are few, as if each were a
            category; a new one is nothing to tell.
    """
    if not schema_is_curated:
        schema = _without_domains(schema, texts)
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
        for column, sentence, structural in _anomalies(split, schema, schema_path, () if schema_is_curated else texts):
            if problem and column == label:
                continue  # said already, and better
            (anomalies if structural or schema_is_curated else warnings).append(sentence)
        warnings += _tolerated_values(split, schema, schema_path)
        if not schema_is_curated:
            warnings += _mixed_columns(split)
    if label:
        unusable += unshared_labels(splits, label)
    return Verdict(
        unusable=tuple(unusable),
        anomalies=tuple(anomalies),
        warnings=tuple(warnings),
        examples={split.name: split.examples for split in splits},
        classes={split.name: class_counts(split.columns[label]) if label in split.columns else {} for split in splits},
    )


def _without_domains(schema: schema_pb2.Schema, columns: Collection[str]) -> schema_pb2.Schema:
    without = schema_pb2.Schema()
    without.CopyFrom(schema)
    for feature in without.feature:
        if feature.name in columns:
            feature.ClearField("domain_info")
    return without


def _anomalies(
    split: SplitFindings, schema: schema_pb2.Schema, schema_path: str, texts: Collection[str]
) -> Iterable[tuple[str, str, bool]]:
    """Column, sentence, and whether the anomaly stops also a run whose schema was only inferred."""
    if split.anomalies.HasField("dataset_anomaly_info"):
        yield "", f"{split.name} split: {split.anomalies.dataset_anomaly_info.description}", False
    for name, anomaly in sorted(split.anomalies.anomaly_info.items()):
        column = ".".join(anomaly.path.step) or name
        # Several reasons often say the same of one column: a missing column also lacks its minimum count.
        reasons = [reason for reason in anomaly.reason if column not in texts or reason.type != _NO_CATEGORY]
        sentences = {anomaly_sentence(split, column, reason, schema, schema_path): reason for reason in reasons}
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


SHOWN = 8


def format_values(values: Sequence[str]) -> str:
    """`'a', 'b'`; of many the first eight, and how many more there are."""
    return _shortened([repr(value) for value in values])


def format_counts(counts: Mapping[str, int]) -> str:
    """`'a' (3 rows), 'b' (1 row)`."""
    return _shortened([f"{value!r} ({rows(count)})" for value, count in counts.items()])


def rows(count: int) -> str:
    """`1 row`, `2 rows`."""
    return "1 row" if count == 1 else f"{count} rows"


def _shortened(items: Sequence[str]) -> str:
    shown = ", ".join(items[:SHOWN])
    return f"{shown} and {len(items) - SHOWN} more" if len(items) > SHOWN else shown


TYPES = {schema_pb2.INT: "whole numbers", schema_pb2.FLOAT: "numbers", schema_pb2.BYTES: "text"}


def schema_expectation(column: schema_pb2.Feature, schema: schema_pb2.Schema) -> str:
    """For example "text in every row, one of 'fixed', 'normal', 'reversible'"."""
    is_flag = column.HasField("bool_domain") and column.type == schema_pb2.INT
    words = "0 or 1" if is_flag else TYPES.get(column.type, "values")
    if column.presence.min_fraction == 1:
        words += " in every row"
    elif column.presence.min_fraction:
        words += f" in at least {column.presence.min_fraction:.0%} of the rows"
    domain = string_domain(column, schema)
    if domain:
        words += f", one of {format_values(domain)}"
    for bounds in (column.int_domain, column.float_domain):
        if bounds.HasField("min"):
            words += f", {bounds.min:g} or more"
        if bounds.HasField("max"):
            words += f", {bounds.max:g} or less"
    return words


def string_domain(column: schema_pb2.Feature, schema: schema_pb2.Schema) -> Sequence[str]:
    """The values a text column may have; () where the schema lists none."""
    if column.HasField("string_domain"):
        return tuple(column.string_domain.value)
    if column.HasField("domain"):
        return next((tuple(domain.value) for domain in schema.string_domain if domain.name == column.domain), ())
    return ()


def values_outside_domain(
    column: statistics_pb2.FeatureNameStatistics, expected: schema_pb2.Feature, schema: schema_pb2.Schema
) -> Mapping[str, int]:
    """Value -> rows, for a text column whose schema lists its values; {} for other columns.

    TFDV reports such values only beyond the allowance of `distribution_constraints.min_domain_mass`
    (https://www.tensorflow.org/tfx/data_validation/anomalies), so they are read from the statistics.
    """
    domain = set(string_domain(expected, schema))
    return {value: count for value, count in value_counts(column).items() if value not in domain} if domain else {}


_NO_CATEGORY = anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES
UNLISTED_VALUES = {
    anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
    anomalies_pb2.AnomalyInfo.ENUM_TYPE_INVALID_UTF8,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_UNEXPECTED_STRING,
}
MISSING_COLUMN = {
    anomalies_pb2.AnomalyInfo.SCHEMA_MISSING_COLUMN,
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_NOT_PRESENT,
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_NO_VALUES,
}
MISSING_VALUES = {
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT,
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_NUMBER_PRESENT,
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_NUMBER_VALUES,
    anomalies_pb2.AnomalyInfo.INVALID_FEATURE_SHAPE,
}
WRONG_TYPE = {
    anomalies_pb2.AnomalyInfo.UNEXPECTED_DATA_TYPE,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_BYTES_NOT_INT,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_BYTES_NOT_STRING,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_FLOAT_NOT_INT,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_FLOAT_NOT_STRING,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_INT_NOT_STRING,
    anomalies_pb2.AnomalyInfo.BOOL_TYPE_STRING_NOT_INT,
    anomalies_pb2.AnomalyInfo.ENUM_TYPE_BYTES_NOT_STRING,
    anomalies_pb2.AnomalyInfo.ENUM_TYPE_FLOAT_NOT_STRING,
    anomalies_pb2.AnomalyInfo.ENUM_TYPE_INT_NOT_STRING,
    anomalies_pb2.AnomalyInfo.FLOAT_TYPE_NOT_FLOAT,
    anomalies_pb2.AnomalyInfo.FLOAT_TYPE_STRING_NOT_FLOAT,
    anomalies_pb2.AnomalyInfo.FLOAT_TYPE_NON_STRING,
    anomalies_pb2.AnomalyInfo.INT_TYPE_INT_EXPECTED,
    anomalies_pb2.AnomalyInfo.INT_TYPE_NOT_INT_STRING,
    anomalies_pb2.AnomalyInfo.INT_TYPE_NOT_STRING,
    anomalies_pb2.AnomalyInfo.INT_TYPE_STRING_EXPECTED,
    anomalies_pb2.AnomalyInfo.STRING_TYPE_NOW_FLOAT,
    anomalies_pb2.AnomalyInfo.STRING_TYPE_NOW_INT,
}
REPEATED_VALUES = {
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_UNEXPECTED_REPEATED,
    anomalies_pb2.AnomalyInfo.FEATURE_TYPE_HIGH_NUMBER_VALUES,
}
# A feature with a shape is parsed by it: rows without a value then fail in Transform.
WRONG_SHAPE = {anomalies_pb2.AnomalyInfo.INVALID_FEATURE_SHAPE}
# What no model can be trained or served around, however little the schema was thought over.
STRUCTURAL = MISSING_COLUMN | WRONG_TYPE | REPEATED_VALUES | WRONG_SHAPE


def anomaly_sentence(
    split: SplitFindings,
    name: str,
    reason: anomalies_pb2.AnomalyInfo.Reason,
    schema: schema_pb2.Schema,
    schema_path: str,
) -> str:
    """Split and column, what the schema expects, what was found with examples of the values, what to do."""
    expected = next((column for column in schema.feature if column.name == name), None)
    wanted = schema_expectation(expected, schema) if expected else "no such column"
    found, remedy = _finding(split, name, reason, schema)
    return (
        f"{split.name} split, column {name!r}: the schema expects {wanted}, found {found}; "
        f"{remedy} in {schema_path or 'the schema, inferred from the train split'}."
    )


def _finding(
    split: SplitFindings, name: str, reason: anomalies_pb2.AnomalyInfo.Reason, schema: schema_pb2.Schema
) -> tuple[str, str]:
    column = split.columns.get(name)
    if column is None or reason.type in MISSING_COLUMN:
        return "no value in any row", "add the column, or remove it"
    expected = next((feature for feature in schema.feature if feature.name == name), None)
    if expected is None:
        return f"values in {rows(present_count(column))}", "remove the column, or describe it"
    if reason.type in UNLISTED_VALUES:
        outside = values_outside_domain(column, expected, schema)
        if outside:
            return format_counts(outside), "correct the values, or list them"
    missing = split.examples - present_count(column)
    # Features that are there and hold nothing do not count as missing in the statistics.
    if reason.type in MISSING_VALUES and (missing or reason.type not in WRONG_SHAPE):
        return f"none in {missing or 'some'} of {rows(split.examples)}", "fill in the values, or allow for missing ones"
    if reason.type in WRONG_TYPE:
        strange = non_numeric_values(column)
        examples = f", such as {format_counts(strange)}" if strange else ""
        kind = type(column).Type.Name(column.type).lower()
        return f"{kind}{examples}", "correct the values, or change the type"
    if reason.type == anomalies_pb2.AnomalyInfo.BOOL_TYPE_BIG_INT:
        numbers = column.num_stats
        return f"whole numbers from {numbers.min:g} to {numbers.max:g}", "correct the values, or allow for all of them"
    return (reason.description or reason.short_description).strip().rstrip("."), "correct the data, or the constraint"
