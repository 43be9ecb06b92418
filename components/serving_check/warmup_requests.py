"""The requests with which a server warms up a model before it answers others.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tfx.utils import io_utils, path_utils

Request = tuple[str, Mapping[str, np.ndarray]]


def predict_request(signature: str, inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """The Predict request for one signature."""
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def write_warmup_requests(saved_model: str, requests: Iterable[Request]) -> int:
    """Write assets.extra/tf_serving_warmup_requests; how many requests it holds."""
    logs = [
        prediction_log_pb2.PredictionLog(predict_log={"request": predict_request(signature, inputs)})
        for signature, inputs in requests
    ]
    io_utils.write_tfrecord_file(path_utils.warmup_file_path(saved_model), *logs)
    return len(logs)


def read_warmup_requests(saved_model: str) -> Iterator[Request]:
    """The requests that a SavedModel carries."""
    for record in tf.data.TFRecordDataset(path_utils.warmup_file_path(saved_model)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(values) for name, values in request.inputs.items()}
        yield request.model_spec.signature_name, inputs
