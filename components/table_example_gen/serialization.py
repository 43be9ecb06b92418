"""Serialized tf.Examples made from Arrow columns, byte for byte as protobuf's deterministic serialization has them.

And TFRecord files made of these, byte for byte as TensorFlow frames records.

tfx_bsl's encoder writes a record's features in an order that changes with the process, and would have to be parsed and
written again before anything can be hashed: five times the work.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.table_example_gen.options import TableReading

# Field numbers and wire types of tensorflow/core/example/{example,feature}.proto.
_LENGTH_DELIMITED_1, _LENGTH_DELIMITED_2 = b"\x0a", b"\x12"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"
_FLOAT_BYTES = 4
_VARINT_BITS = 7
_AFTER_UTF8 = b"\xff"

# Of each row, or the same for all rows.
_Part: TypeAlias = Any  # pa.BinaryArray or pa.BinaryScalar


def serialized_examples(batch: pa.RecordBatch) -> pa.BinaryArray:
    """One serialized tf.Example for each row.

    Args:
        batch: columns of int64, float32 or binary, or lists of them. A null is a feature with an empty list of its
            type; in a column of type null, a feature without a list.
    """
    parts, lengths = _record_parts(batch)
    return _joined(_headers(lengths, _features_header), *parts, rows=len(batch))


def framed_examples(batch: pa.RecordBatch) -> pa.BinaryArray:
    """serialized_examples, each as `framed` has it but with zeros for its checksum, which put_checksums fills in."""
    parts, lengths = _record_parts(batch)

    def header(length: int) -> bytes:
        features = _features_header(length)
        return _frame_header(len(features) + length) + features

    return _joined(_headers(lengths, header), *parts, _no_checksum(), rows=len(batch))


def _features_header(length: int) -> bytes:
    return _LENGTH_DELIMITED_1 + _varint(length)


def _record_parts(batch: pa.RecordBatch) -> tuple[list[_Part], np.ndarray]:
    """The entries of Features.feature in parts that follow each other; and how long they are together, int64 [n]."""
    parts: list[_Part] = []
    coded: _Coded | None = None
    # upb, which Python's protobuf stands on, sorts maps by their keys; one that another begins with comes after it.
    for name in sorted(batch.schema.names, key=lambda name: name.encode() + _AFTER_UTF8):
        following = _coded_entries(name.encode(), batch.column(name))
        if coded is not None:
            both = coded.joined(following) if following is not None else None
            if both is not None:
                coded = both
                continue
            parts.append(coded.of_rows())
        coded = following
        if coded is None:
            parts += _distinct_entries(name.encode(), batch.column(name))
    if coded is not None:
        parts.append(coded.of_rows())
    lengths = np.zeros(len(batch), np.int64)
    for part in parts:
        lengths += _lengths(part)
    return parts, lengths


# Where so many rows share a value, each value is serialized once. The first rows tell whether it is worth a look.
_ROWS_PER_VALUE = 8
_FIRST_ROWS = 4_096
_VALUES_OF_FIRST_ROWS = 3_000


@dataclass(frozen=True)
class _Coded:
    """Entries of which many rows have the same.

    Attributes:
        entries: the different ones.
        codes: the place among them of each row's, int32 [n].
    """

    entries: pa.BinaryArray
    codes: np.ndarray

    def joined(self, following: _Coded) -> _Coded | None:
        """With those of the next column behind them; None where too many are different then."""
        mine, others = len(self.entries), len(following.entries)
        if mine * others * _ROWS_PER_VALUE > len(self.codes):
            return None
        places = np.arange(mine * others)
        parts = self.entries.take(pa.array(places // others)), following.entries.take(pa.array(places % others))
        return _Coded(_joined(*parts, rows=len(places)), self.codes * np.int32(others) + following.codes)

    def of_rows(self) -> pa.BinaryArray:
        return self.entries.take(pa.array(self.codes))


def _coded_entries(key: bytes, column: pa.Array) -> _Coded | None:
    """Features.feature: one entry of the map for each row; None where too many are different."""
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return None
    if pc.count_distinct(column.slice(0, _FIRST_ROWS)).as_py() > _VALUES_OF_FIRST_ROWS:
        return None
    encoded = column.dictionary_encode(null_encoding="encode")
    values = encoded.dictionary
    if len(values) * _ROWS_PER_VALUE > len(column):
        return None
    entries = _joined(*_distinct_entries(key, values), rows=len(values))
    return _Coded(entries, encoded.indices.to_numpy(zero_copy_only=False))


def _distinct_entries(key: bytes, column: pa.Array) -> list[_Part]:
    prefix = _LENGTH_DELIMITED_1 + _varint(len(key)) + key + _LENGTH_DELIMITED_2

    def entry(feature: bytes, payload: int) -> bytes:
        """All that comes before a payload of so many bytes, whose feature begins with these."""
        value = prefix + _varint(len(feature) + payload) + feature
        return _LENGTH_DELIMITED_1 + _varint(len(value) + payload) + value

    if pa.types.is_null(column.type):
        return [pa.scalar(entry(b"", 0), pa.binary())]
    of_list, payloads = _payloads(column)

    def header(length: int) -> bytes:
        packed = b"" if of_list == _BYTES_LIST or not length else _LENGTH_DELIMITED_1 + _varint(length)
        return entry(of_list + _varint(len(packed) + length) + packed, length)

    return [_headers(_lengths(payloads), header), payloads]


def _payloads(column: pa.Array) -> tuple[bytes, pa.BinaryArray]:
    """The field of Feature, and the content of its list for each row: packed numbers, or repeated strings."""
    offsets, values = _flattened(column)
    if pa.types.is_int64(values.type):
        return _INT64_LIST, _grouped(_varints(values.to_numpy(zero_copy_only=False)), offsets)
    if pa.types.is_float32(values.type):
        packed = np.ascontiguousarray(values.to_numpy(zero_copy_only=False), "<f4")
        ends = np.arange(len(packed) + 1, dtype=np.int64) * _FLOAT_BYTES
        return _FLOAT_LIST, _binary(packed.view(np.uint8), ends[offsets])
    lengths = _lengths(values)
    headers = _headers(lengths, lambda length: _LENGTH_DELIMITED_1 + _varint(length))
    return _BYTES_LIST, _grouped(_joined(headers, values, rows=len(values)), offsets)


def _flattened(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Where each row's values begin and the last ones end, int64 [rows + 1], and all values without the missing."""
    if pa.types.is_list(column.type):
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        values = column.flatten()
        if values.null_count:
            counts = _counts_without_nulls(values, counts)
            values = values.drop_null()
    else:
        counts = pc.cast(column.is_valid(), pa.int64()).to_numpy(zero_copy_only=False)
        values = column.drop_null()
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), values


def _counts_without_nulls(values: pa.Array, counts: np.ndarray) -> np.ndarray:
    valid = np.concatenate([[0], np.cumsum(pc.cast(values.is_valid(), pa.int64()).to_numpy(zero_copy_only=False))])
    ends = np.cumsum(counts)
    return np.asarray(valid[ends] - valid[ends - counts])


def _varints(values: np.ndarray) -> pa.BinaryArray:
    """Base 128 varints, least significant group first; negative numbers take ten bytes."""
    unsigned = values.astype(np.int64).view(np.uint64)
    longest = len(_varint(int(unsigned.max()))) if len(unsigned) else 1
    groups = unsigned[:, None] >> (np.arange(longest, dtype=np.uint64) * np.uint64(_VARINT_BITS))
    counts = np.maximum((groups != 0).sum(axis=1), 1)
    digits = (groups & np.uint64(0x7F)).astype(np.uint8)
    position = np.arange(longest)
    digits |= ((position < counts[:, None] - 1) * 0x80).astype(np.uint8)
    return _binary(digits[position < counts[:, None]], np.concatenate([[0], np.cumsum(counts)]))


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= _VARINT_BITS
    groups.append(value)
    return bytes(groups)


_LONG = 1 << 16


def _distinct(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones, sorted, and the place of each among them, int64 both, as numpy.unique has them."""
    if not len(lengths) or lengths.max() >= _LONG:
        return np.unique(lengths, return_inverse=True)
    present = np.bincount(lengths) > 0
    different = np.flatnonzero(present)
    if len(different) == 1:
        return different, np.zeros(len(lengths), np.int64)
    return different, (np.cumsum(present) - 1)[lengths]


def _headers(lengths: np.ndarray, header: Callable[[int], bytes]) -> _Part:
    """The header of each length: there are few different ones."""
    different, places = _distinct(lengths)
    table = pa.array([header(int(length)) for length in different], pa.binary())
    return table[0] if len(table) == 1 else table.take(pa.array(places))


def _lengths(part: _Part) -> np.ndarray:
    lengths = pc.binary_length(part)
    return np.array(lengths.as_py()) if isinstance(lengths, pa.Scalar) else lengths.to_numpy(zero_copy_only=False)


def _grouped(values: pa.BinaryArray, offsets: np.ndarray) -> pa.BinaryArray:
    """Neighbouring values as one, each group from one offset to the next."""
    ends = np.concatenate([[0], np.cumsum(_lengths(values), dtype=np.int64)])
    data = values.buffers()[2]
    first = int(np.frombuffer(values.buffers()[1], np.int32)[values.offset]) if len(values) else 0
    return _binary(np.frombuffer(data, np.uint8)[first:] if data else np.empty(0, np.uint8), ends[offsets])


def _binary(data: np.ndarray, offsets: np.ndarray) -> pa.BinaryArray:
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _joined(*parts: _Part, rows: int) -> pa.BinaryArray:
    if all(isinstance(part, pa.Scalar) for part in parts):
        return pa.array([b"".join(part.as_py() for part in parts)] * rows, pa.binary())
    joined: pa.BinaryArray = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary()))
    return joined


def record_digests(records: Sequence[bytes]) -> np.ndarray:
    """SHA-256 of each record, uint8 [n, 32]."""
    sha256 = hashlib.sha256  # of the time, a fifth is the name's
    digests = b"".join([sha256(record).digest() for record in records])
    return np.frombuffer(digests, np.uint8).reshape(-1, sha256().digest_size)


# TFRecord files. tf.io.TFRecordWriter takes one record a call, which is a Python object each time, and holds the
# interpreter all along. Here a batch becomes one buffer, which is compressed in whatever thread made it.

_FRAME_HEADER, _CHECKSUM = 12, 4
# tensorflow/core/lib/hash/crc32c.h, Mask.
_MASK_DELTA = 0xA282EAD8


def framed(records: Sequence[bytes]) -> pa.BinaryArray:
    """Each record as it stands in a TFRecord file: length, its checksum, the record, the record's checksum.

    Source: tensorflow/core/lib/io/record_writer.h.
    """
    array = pa.array(records, pa.binary())
    headers = _headers(_lengths(array), _frame_header)
    frames = _joined(headers, array, _no_checksum(), rows=len(array))
    put_checksums(frames, record_checksums(records))
    return frames


@cache
def _no_checksum() -> pa.BinaryScalar:
    # Not when this is imported: with its first value pyarrow imports pandas, which a run without changes never needs.
    return pa.scalar(bytes(_CHECKSUM), pa.binary())


def _frame_header(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + record_checksums([head]).tobytes()


def record_checksums(records: Sequence[bytes]) -> np.ndarray:
    """Masked CRC-32C of each, little-endian uint32 [n]."""
    plain = np.fromiter(map(google_crc32c.value, records), np.uint32, len(records))
    masked = ((plain >> np.uint32(15)) | (plain << np.uint32(17))) + np.uint32(_MASK_DELTA)
    return masked.astype("<u4")


def records_of_frames(frames: pa.BinaryArray) -> list[bytes]:
    """The records in frames."""
    offsets, data = _offsets(frames), frames.buffers()[2]
    # Header, record, checksum and header, record: neighbours all, and only the records are looked at.
    ends = np.empty(2 * len(frames) + 1, np.int32)
    ends[0] = offsets[0]
    ends[1::2] = offsets[:-1] + _FRAME_HEADER
    ends[2::2] = offsets[1:] - _CHECKSUM
    pieces = pa.BinaryArray.from_buffers(pa.binary(), 2 * len(frames), [None, pa.py_buffer(ends), data])
    records: list[bytes] = pieces.to_numpy(zero_copy_only=False)[1::2].tolist()
    return records


def put_checksums(frames: pa.BinaryArray, checksums: np.ndarray) -> None:
    """Fill in those of the records, uint32 [n], where the frames stand; nothing else may have a part of them yet."""
    if len(frames):
        offsets, data = _offsets(frames), _content(frames)
        # A number at each byte, most of which overlap.
        numbers = np.ndarray(len(data) - _CHECKSUM + 1, "<u4", data.data, strides=(1,))
        numbers[offsets[1:] - offsets[0] - _CHECKSUM] = checksums


def _offsets(array: pa.BinaryArray) -> np.ndarray:
    """Where each begins in the buffer, and the last one ends, int32 [n + 1]."""
    if not len(array):
        return np.zeros(1, np.int32)
    return np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]


def _content(array: pa.BinaryArray) -> np.ndarray:
    """All of them behind each other, uint8."""
    offsets, data = _offsets(array), array.buffers()[2]
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data else np.empty(0, np.uint8)


# A gzip file for zlib; see its manual on deflateInit2.
_GZIP_WINDOW = 31
# RFC 1952: nothing but the method, the fastest one, of Unix. RFC 1951: the longest block that is stored.
_GZIP_HEADER = bytes.fromhex("1f8b0800000000000403")
_LONGEST_STORED = 0xFFFF


def gzip_member(frames: pa.BinaryArray, level: int) -> bytes:
    """All frames as a gzip file, of which several behind each other are one again.

    Args:
        frames: what `framed` makes.
        level: of the compression, from 0, none, to 9.
    """
    content: memoryview = _content(frames).data
    if level and content:
        compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
        return compressor.compress(content) + compressor.flush()
    return b"".join([_GZIP_HEADER, *_stored_blocks(content), struct.pack("<II", zlib.crc32(content), len(content))])


def _stored_blocks(content: memoryview) -> Iterator[bytes | memoryview]:
    """A third of the time that zlib takes for the same."""
    starts = range(0, max(1, len(content)), _LONGEST_STORED)
    for start in starts:
        block = content[start : start + _LONGEST_STORED]
        yield struct.pack("<BHH", start == starts[-1], len(block), len(block) ^ _LONGEST_STORED)
        yield block


WHOLE, NUMBER, TEXT, NOTHING = pa.int64(), pa.float32(), pa.binary(), pa.null()


def example_type(found: pa.DataType) -> pa.DataType | None:
    """What becomes of an Arrow type: WHOLE, NUMBER, TEXT, NOTHING, or a list of one of them.

    Booleans, dates and times become text. None: structures, lists of lists and intervals, which no column of a table
    holds.
    """
    if pa.types.is_dictionary(found):
        return example_type(found.value_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        item = example_type(found.value_type)
        return None if item is None or pa.types.is_list(item) else pa.list_(item)
    if pa.types.is_nested(found) or pa.types.is_interval(found):
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
    if reading.strip and _may_hold_blanks(text):
        text = pc.utf8_trim_whitespace(text)
    if reading.missing or pc.min(pc.binary_length(text)).as_py() == 0:
        missing = pa.array(["", *reading.missing], pa.string())
        # Not if_else, which takes the wrong bytes of an array that is part of another one.
        text = pc.replace_with_mask(text, pc.is_in(text, missing), pa.scalar(None, pa.string()))
    return pc.cast(text, TEXT)


_BLANK, _DELETE = 0x20, 0x7F


def _may_hold_blanks(text: pa.StringArray) -> bool:
    """A look at all bytes takes a tenth of the time of trimming; beyond ASCII, it does not tell."""
    content = _content(text)
    return bool(len(content)) and bool(content.min() <= _BLANK or content.max() >= _DELETE)


def _as_string(column: pa.Array) -> pa.Array:
    """As pandas writes it in a CSV file; a list as JSON."""
    found = column.type
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        lists = (None if values is None else json.dumps(values, default=str) for values in column.to_pylist())
        return pa.array(lists, pa.string())
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
