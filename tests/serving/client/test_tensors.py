"""Tensors: what the client writes TensorFlow reads, and the other way round."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.client.tensors import from_proto, to_proto

ARRAYS = {
    "float": np.array([[1.5, -2.0]], np.float32),
    "double": np.array([1e308]),
    "half": np.array([1.5, np.inf], np.float16),
    "bfloat16": np.array([1.5, -3.0], ml_dtypes.bfloat16),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([0, 255], np.uint8),
    "int16": np.array([-1, 1], np.int16),
    "uint16": np.array([65535], np.uint16),
    "int32": np.array([-(2**31)], np.int32),
    "uint32": np.array([2**32 - 1], np.uint32),
    "int64": np.array([-(2**63)]),
    "uint64": np.array([2**64 - 1], np.uint64),
    "bool": np.array([True, False]),
    "complex64": np.array([1 + 2j], np.complex64),
    "complex128": np.array([1 - 2j]),
    "string": np.array([b"a\0", "Zoë".encode()], object),
    "scalar": np.array(3.0, np.float32),
    "no rows": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("name", ARRAYS)
def test_tensorflow_reads_what_is_written(name, as_content):
    proto = tensor_pb2.TensorProto()
    to_proto(ARRAYS[name], proto, as_content)

    read = tf.make_ndarray(proto)

    assert read.shape == ARRAYS[name].shape
    assert read.tolist() == ARRAYS[name].tolist()
    assert read.dtype == ARRAYS[name].dtype


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_written_is_read_back(name, as_content):
    proto = tensor_pb2.TensorProto()
    to_proto(ARRAYS[name], proto, as_content)

    read = from_proto(proto)

    assert (read.dtype, read.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
    assert read.tolist() == ARRAYS[name].tolist()


def float_proto(shape, **fields):
    return tensor_pb2.TensorProto(dtype=1, tensor_shape=tf.TensorShape(shape).as_proto(), **fields)


@pytest.mark.parametrize(
    ("values", "expected"), [([7.0], [7.0] * 4), ([1.0, 2.0], [1.0, 2.0, 2.0, 2.0]), ([], [0.0] * 4)]
)
def test_the_last_value_fills_the_shape(values, expected):
    assert from_proto(float_proto([4], float_val=values)).tolist() == expected


@pytest.mark.parametrize("name", ARRAYS)
def test_without_a_value_zeros_fill_the_shape_as_in_tensorflow(name):
    number = tf.as_dtype(ARRAYS[name].dtype).as_datatype_enum
    proto = tensor_pb2.TensorProto(dtype=number, tensor_shape=tf.TensorShape([2]).as_proto())
    zeros = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(number)).numpy()

    read = from_proto(proto)

    assert (read.dtype, read.tolist()) == (zeros.dtype, zeros.tolist())


@pytest.mark.parametrize(
    "proto",
    [
        tensor_pb2.TensorProto(dtype=0, float_val=[1.0]),
        tensor_pb2.TensorProto(dtype=20),  # a resource
        float_proto(None, float_val=[1.0]),
        float_proto([2], tensor_content=b"123"),
        float_proto([2**31], float_val=[1.0]),
        float_proto([1] * 65, float_val=[1.0]),
    ],
    ids=["no dtype", "resource", "unknown rank", "short content", "too large", "too many dimensions"],
)
def test_what_is_no_tensor_is_refused(proto):
    with pytest.raises(ValueError):
        from_proto(proto)


@pytest.mark.parametrize("bits", [0x3C00, 0x3C00 - 2**16, 0x3C00 + 2**16])
def test_of_a_half_value_the_lower_16_bits_count(bits):
    proto = tensor_pb2.TensorProto(dtype=19, half_val=[bits])

    assert from_proto(proto).tolist() == 1.0
