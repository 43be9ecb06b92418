"""Warm-up requests: what a version answers before it is available (servables/tensorflow/saved_model_warmup.cc)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import from_proto
from serving.server.classification import INPUTS, classification_outputs
from serving.server.regression import regression_outputs
from serving.server.run_signature import DEFAULT_SIGNATURE, run_signature
from serving.server.serialized_examples import serialized_examples
from serving.server.serving_error import ServingError, invalid_argument
from serving.session_model import SessionModel

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
MAXIMUM_RECORDS = 1000

Outputs = Callable[[meta_graph_pb2.SignatureDef], tuple[str, ...]]


def warm_up(model: SessionModel, version_path: str) -> None:
    """Replay the version's warm-up requests, where it has some.

    Raises:
        ServingError: a record is no PredictionLog or of a kind that cannot be replayed, there are too many, or one
            failed.
        tf.errors.OpError: the file is none of TFRecords.
    """
    path = tf.io.gfile.join(version_path, WARM_UP_FILE)
    if not tf.io.gfile.exists(path):
        return
    for number, record in enumerate(tf.data.TFRecordDataset(path).as_numpy_iterator(), 1):
        if number > MAXIMUM_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAXIMUM_RECORDS})")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except Exception as error:
            raise invalid_argument(f"Failed to parse warmup record {number}") from error
        _replay(model, log)


def _replay(model: SessionModel, log: prediction_log_pb2.PredictionLog) -> None:
    match log.WhichOneof("log_type"):
        case None:
            return
        case "predict_log":
            _predict(model, log.predict_log.request)
        case "classify_log":
            _infer(model, log.classify_log.request.model_spec, log.classify_log.request.input, classification_outputs)
        case "regress_log":
            _infer(model, log.regress_log.request.model_spec, log.regress_log.request.input, regression_outputs)
        case "multi_inference_log":
            request = log.multi_inference_log.request
            for task in request.tasks:
                regress = task.method_name.endswith("/regress")
                _infer(model, task.model_spec, request.input, regression_outputs if regress else classification_outputs)
        case kind:
            raise ServingError(CanonicalCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _predict(model: SessionModel, request: Any) -> None:
    try:
        inputs: Mapping[str, Any] = {alias: from_proto(proto) for alias, proto in request.inputs.items()}
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {error}") from error
    run_signature(model, _signature(model, request.model_spec), inputs, tuple(request.output_filter))


def _infer(model: SessionModel, spec: Any, examples: input_pb2.Input, outputs: Outputs) -> None:
    signature = _signature(model, spec)
    names = outputs(model.signatures[signature])
    run_signature(model, signature, {INPUTS: serialized_examples(examples)}, names)


def _signature(model: SessionModel, spec: Any) -> str:
    signature: str = spec.signature_name or DEFAULT_SIGNATURE
    if signature not in model.signatures:
        raise ServingError(CanonicalCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
    return signature
