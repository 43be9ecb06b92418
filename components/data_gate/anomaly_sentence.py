"""A TFDV anomaly as a sentence that a person can act on."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.data_gate.column_statistics import non_numeric_values, present_count
from components.data_gate.quoted import quoted_counts, rows
from components.data_gate.schema_expectation import schema_expectation
from components.data_gate.split_findings import SplitFindings
from components.data_gate.values_outside_domain import values_outside_domain

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
            return quoted_counts(outside), "correct the values, or list them"
    missing = split.examples - present_count(column)
    if reason.type in MISSING_VALUES and missing:
        return f"none in {missing} of {rows(split.examples)}", "fill in the values, or allow for missing ones"
    if reason.type in WRONG_TYPE:
        strange = non_numeric_values(column)
        examples = f", such as {quoted_counts(strange)}" if strange else ""
        kind = type(column).Type.Name(column.type).lower()
        return f"{kind}{examples}", "correct the values, or change the type"
    return (reason.description or reason.short_description).strip().rstrip("."), "correct the data, or the constraint"
