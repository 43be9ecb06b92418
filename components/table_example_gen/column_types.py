"""Types of columns: what a tf.Example can hold, found for a column as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from components.table_example_gen.options import TableReading

WHOLE, NUMBER, TEXT, NOTHING = pa.int64(), pa.float32(), pa.binary(), pa.null()


def example_type(found: pa.DataType) -> pa.DataType | None:
    """What becomes of an Arrow type: WHOLE, NUMBER, TEXT, NOTHING, or a list of one of them.

    Booleans, dates and times become text. None: structures, and lists of lists, which no column of a table holds.
    """
    if pa.types.is_dictionary(found):
        return example_type(found.value_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        item = example_type(found.value_type)
        return None if item is None or pa.types.is_list(item) else pa.list_(item)
    if pa.types.is_nested(found):
        return None
    if pa.types.is_null(found):
        return NOTHING
    if pa.types.is_integer(found):
        return WHOLE
    return NUMBER if pa.types.is_floating(found) or pa.types.is_decimal(found) else TEXT


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both: TEXT where one holds numbers and the other texts."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_list(one) or pa.types.is_list(other):
        items = [found.value_type if pa.types.is_list(found) else found for found in (one, other)]
        return pa.list_(common_type(*items))
    return NUMBER if {one, other} == {WHOLE, NUMBER} else TEXT


def common_types(tables: Sequence[Mapping[str, pa.DataType]]) -> dict[str, pa.DataType]:
    """Column -> the type that holds its values in all tables."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: reduce(common_type, (table[name] for table in tables if name in table)) for name in names}


def example_column(column: pa.Array, wanted: pa.DataType, reading: TableReading) -> pa.Array:
    """The values as the wanted one of the types above; NaN and what the reading calls missing are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(wanted) or pa.types.is_null(column.type):
        return pa.nulls(len(column), wanted)
    if pa.types.is_list(wanted):
        return _list_column(column, wanted, reading)
    if wanted == TEXT:
        return _text(column, reading)
    # Decimals have no direct cast to float32.
    numbers = pc.cast(column, pa.int64() if wanted == WHOLE else pa.float64(), safe=False)
    if wanted == WHOLE:
        return numbers
    return pc.cast(pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers), NUMBER, safe=False)


def _list_column(column: pa.Array, wanted: pa.DataType, reading: TableReading) -> pa.Array:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        if pa.types.is_fixed_size_list(column.type):
            column = pc.cast(column, pa.list_(column.type.value_type))
        else:
            column = pa.ListArray.from_arrays(pa.array(range(len(column) + 1), pa.int32()), column)
    column = pc.cast(column, pa.list_(column.type.value_type))
    values = example_column(column.values, wanted.value_type, reading)
    return pa.ListArray.from_arrays(column.offsets, values, mask=column.is_null() if column.null_count else None)


def _text(column: pa.Array, reading: TableReading) -> pa.Array:
    found = column.type
    if pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found):
        return pc.cast(column, TEXT)
    text = _as_string(column)
    if reading.strip:
        text = pc.utf8_trim_whitespace(text)
    missing = pa.array(["", *reading.missing], pa.string())
    return pc.cast(pc.if_else(pc.is_in(text, missing), pa.scalar(None, pa.string()), text), TEXT)


def _as_string(column: pa.Array) -> pa.Array:
    """As pandas writes it in a CSV file."""
    found = column.type
    if pa.types.is_boolean(found):
        return pc.if_else(column, "True", "False")
    if pa.types.is_timestamp(found):
        seconds = pc.strftime(pc.cast(column, pa.timestamp("s", found.tz), safe=False), "%Y-%m-%d %H:%M:%S")
        fraction = pc.cast(pc.subsecond(column), pa.string())
        # "0.25" -> ".25"; a whole second has none.
        fraction = pc.if_else(pc.equal(pc.subsecond(column), 0.0), "", pc.utf8_slice_codeunits(fraction, 1))
        zone = pc.replace_substring_regex(pc.strftime(column, "%z"), r"(\d\d)(\d\d)$", r"\1:\2") if found.tz else ""
        return pc.binary_join_element_wise(seconds, fraction, zone, "")
    if pa.types.is_floating(found):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, found), column)
    return pc.cast(column, pa.string())
