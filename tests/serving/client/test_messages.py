"""The client's own copies of TensorFlow Serving's messages."""

from __future__ import annotations

import base64
import subprocess
import sys
import zlib

from google.protobuf import descriptor_pb2

from serving.client import message_descriptors, messages
from tests.serving.client import write_message_descriptors

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


def test_the_descriptors_are_those_of_the_installed_packages():
    shipped = descriptor_pb2.FileDescriptorSet.FromString(
        zlib.decompress(base64.b64decode(message_descriptors.FILE_DESCRIPTOR_SET))
    )

    assert shipped == write_message_descriptors.needed_descriptors()


def test_messages_have_the_wire_format_of_the_generated_ones():
    from tensorflow_serving.apis import predict_pb2

    request = messages.PredictRequest(output_filter=["y"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 7
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add().size = 2
    request.inputs["x"].float_val.extend([1.0, 2.0])

    generated = predict_pb2.PredictRequest.FromString(request.SerializeToString())

    assert str(generated) == str(request)
    assert generated.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)
