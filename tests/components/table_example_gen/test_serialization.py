"""Serialized examples are those of protobuf."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.table_example_gen.serialization import record_digests, serialized_examples

WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)
NUMBER = st.floats(width=32, allow_nan=False)
TEXT = st.binary(max_size=300)
TYPES = {"whole": (pa.int64(), WHOLE), "number": (pa.float32(), NUMBER), "text": (pa.binary(), TEXT)}


def by_protobuf(batch: pa.RecordBatch) -> list[bytes]:
    written = []
    for row in batch.to_pylist():
        example = tf.train.Example()
        for field in batch.schema:
            feature = example.features.feature[field.name]
            value = row[field.name]
            kind = field.type.value_type if pa.types.is_list(field.type) else field.type
            values = value if isinstance(value, list) else [value]
            if pa.types.is_null(kind):
                continue
            of_kind = {pa.int64(): "int64_list", pa.float32(): "float_list", pa.binary(): "bytes_list"}[kind]
            chosen = getattr(feature, of_kind)
            chosen.SetInParent()
            chosen.value.extend(one for one in values if one is not None)
        written.append(example.SerializeToString(deterministic=True))
    return written


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(1, 40))
    names = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
    columns = []
    for _ in names:
        arrow, values = TYPES[draw(st.sampled_from(sorted(TYPES)))]
        cells = st.none() | values
        if draw(st.booleans()):
            arrow, cells = pa.list_(arrow), st.none() | st.lists(cells, max_size=4)
        if draw(st.booleans()):  # few values, many rows
            cells = st.sampled_from(draw(st.lists(cells, min_size=1, max_size=2)))
        columns.append(pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), arrow))
    return pa.RecordBatch.from_arrays(columns, names=names)


@given(batches(), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_records_are_byte_for_byte_those_of_protobuf(batch, start):
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)
    part = batch.slice(start)
    assert serialized_examples(part).to_pylist() == by_protobuf(part)


def test_a_column_without_any_value_is_a_feature_without_a_list():
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), pa.nulls(2)], names=["a", "b"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)
    example = tf.train.Example.FromString(serialized_examples(batch)[0].as_py())
    assert example.features.feature["b"].WhichOneof("kind") is None


def test_a_name_that_begins_another_one_comes_behind_it_as_in_protobuf():
    batch = pa.RecordBatch.from_arrays([pa.array([1])] * 3, names=["thal", "thalach", "t"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)


def test_lengths_around_each_size_of_a_varint_are_right():
    texts = [b"x" * length for length in (0, 1, 113, 114, 115, 116, 117, 127, 128, 16_370, 16_383, 16_384, 2_100_000)]
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.binary())], names=["text"])
    assert serialized_examples(batch).to_pylist() == by_protobuf(batch)


def test_digests_are_sha_256_of_each_record():
    found = record_digests([b"one", b""])
    assert found.tobytes() == hashlib.sha256(b"one").digest() + hashlib.sha256(b"").digest()
    assert found.shape == (2, 32)


def test_a_type_that_no_example_holds_is_refused():
    with pytest.raises((TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError)):
        serialized_examples(pa.RecordBatch.from_arrays([pa.array([True])], names=["a"]))
    assert np.array_equal(record_digests([]), np.empty((0, 32), np.uint8))
