"""The client's messages, tensors and modules: the bytes of TensorFlow and its Serving without their packages."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import Descriptor
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.client import messages_pb2
from serving.client.tensors import from_proto, to_proto

PROJECT = Path(__file__).parents[3]

IMPORT_EVERYTHING = """
import pkgutil, sys
import serving.client
for module in pkgutil.iter_modules(serving.client.__path__, "serving.client."):
    __import__(module.name)
assert "serving.client.grpc" in sys.modules
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tensorflow_serving", "tfx", "keras"})
print(heavy)
"""


def test_no_client_module_imports_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"


COUNTERPARTS = {
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
}


def assert_same_on_the_wire(ours: Descriptor, theirs: Descriptor) -> None:
    """Every field of ours is one of theirs, with the same number, type and label."""
    for field in ours.fields:
        counterpart = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            counterpart.number,
            counterpart.type,
            counterpart.is_repeated,
        ), field.full_name
        if field.enum_type is not None:
            known = {value.name: value.number for value in counterpart.enum_type.values}
            assert {value.name: value.number for value in field.enum_type.values}.items() <= known.items()
        if field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
            assert_same_on_the_wire(field.message_type, counterpart.message_type)


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_messages_are_those_of_tensorflow_serving_on_the_wire(name):
    assert_same_on_the_wire(getattr(messages_pb2, name).DESCRIPTOR, COUNTERPARTS[name].DESCRIPTOR)


def test_every_message_is_one_that_a_client_sends_or_reads():
    reached: set[str] = set()

    def reach(message: Descriptor) -> None:
        if message.full_name not in reached:
            reached.add(message.full_name)
            for field in message.fields:
                if field.message_type is not None:
                    reach(field.message_type)

    for name in COUNTERPARTS:
        reach(getattr(messages_pb2, name).DESCRIPTOR)
    assert {message.full_name for message in messages_pb2.DESCRIPTOR.message_types_by_name.values()} <= reached


def test_the_generated_module_is_that_of_the_proto_file(tmp_path):
    # In a process of its own: the compiler and TensorFlow carry a protobuf library each.
    compiler = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
    subprocess.run([*compiler, "serving/client/messages.proto"], cwd=PROJECT, check=True)
    generated = (tmp_path / "serving/client/messages_pb2.py").read_text()
    assert generated == (PROJECT / "serving/client/messages_pb2.py").read_text()


def test_messages_have_the_wire_format_of_the_generated_ones():
    request = messages_pb2.PredictRequest(output_filter=["y"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 7
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add().size = 2
    request.inputs["x"].float_val.extend([1.0, 2.0])

    generated = predict_pb2.PredictRequest.FromString(request.SerializeToString())

    assert str(generated) == str(request)
    assert generated.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("async_grpc_client", "grpc", "AsyncGrpcClient"),
        ("async_rest_client", "rest", "AsyncRestClient"),
        ("canonical_code", "errors", "CanonicalCode"),
        ("client_tls", "connection", "ClientTls"),
        ("grpc_client", "grpc", "GrpcClient"),
        ("input_array", "tensors", "input_array"),
        ("messages", "messages_pb2", "PredictRequest"),
        ("model_metadata", "metadata", "ModelMetadata"),
        ("prediction_error", "errors", "PredictionError"),
        ("rest_client", "rest", "RestClient"),
        ("retry_policy", "connection", "RetryPolicy"),
        ("retries", "connection", "RetryPolicy"),
        ("table_value", "table_columns", "table_value"),
        ("tensor_proto", "tensors", "to_proto"),
        ("tls", "connection", "ClientTls"),
        ("version_status", "metadata", "VersionStatus"),
    ],
)
def test_an_old_name_still_works_and_says_once_what_it_is_called_now(old, new, name):
    sys.modules.pop(f"serving.client.{old}", None)
    with pytest.warns(
        DeprecationWarning, match=rf"serving\.client\.{old} is called serving\.client\.{new} now"
    ) as said:
        module = importlib.import_module(f"serving.client.{old}")
        importlib.import_module(f"serving.client.{old}")
    assert len(said) == 1
    assert getattr(module, name) is getattr(importlib.import_module(f"serving.client.{new}"), name)


def test_the_package_offers_what_its_modules_define():
    import serving.client

    for name in serving.client.__all__:
        assert getattr(serving.client, name) is not None
    assert serving.client.RestClient is importlib.import_module("serving.client.rest").RestClient


def test_who_speaks_rest_loads_neither_grpc_nor_numpy():
    code = (
        "import sys; from serving.client import ClientTls, RestClient; ClientTls(); "
        "print({'grpc', 'numpy'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True).strip() == "set()"


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
