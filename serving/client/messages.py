"""TensorFlow Serving's messages as classes, in a descriptor pool of their own.

The generated modules of tensorflow-serving-api import all of TensorFlow; these import protobuf only. Both may live in
one process: messages of the one are not messages of the other, only their bytes are the same.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.client.message_descriptors import FILE_DESCRIPTOR_SET


def _message_classes() -> dict[str, Any]:
    files = descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(base64.b64decode(FILE_DESCRIPTOR_SET)))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClassesForFiles([file.name for file in files.file], pool)


_CLASSES = _message_classes()

PredictRequest = _CLASSES["tensorflow.serving.PredictRequest"]
PredictResponse = _CLASSES["tensorflow.serving.PredictResponse"]
GetModelMetadataRequest = _CLASSES["tensorflow.serving.GetModelMetadataRequest"]
GetModelMetadataResponse = _CLASSES["tensorflow.serving.GetModelMetadataResponse"]
SignatureDefMap = _CLASSES["tensorflow.serving.SignatureDefMap"]
GetModelStatusRequest = _CLASSES["tensorflow.serving.GetModelStatusRequest"]
GetModelStatusResponse = _CLASSES["tensorflow.serving.GetModelStatusResponse"]
