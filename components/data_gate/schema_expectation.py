"""A schema's demands on a column, in words."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_gate.quoted import quoted

TYPES = {schema_pb2.INT: "whole numbers", schema_pb2.FLOAT: "numbers", schema_pb2.BYTES: "text"}


def schema_expectation(column: schema_pb2.Feature, schema: schema_pb2.Schema) -> str:
    """For example "text in every row, one of 'fixed', 'normal', 'reversible'"."""
    words = TYPES.get(column.type, "values")
    if column.presence.min_fraction == 1:
        words += " in every row"
    elif column.presence.min_fraction:
        words += f" in at least {column.presence.min_fraction:.0%} of the rows"
    domain = string_domain(column, schema)
    if domain:
        words += f", one of {quoted(domain)}"
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
