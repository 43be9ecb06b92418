"""A version directory -> a model that is ready for its first request."""

from __future__ import annotations

import logging

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import from_proto
from serving.server.run_signature import DEFAULT_SIGNATURE, run_signature
from serving.server.serving_error import ServingError, invalid_argument
from serving.session_model import SessionModel

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"
MAXIMUM_WARM_UP_RECORDS = 1000

logger = logging.getLogger(__name__)


def load_version(path: str) -> SessionModel:
    """Load the SavedModel of a version directory and replay its warm-up requests, where it has some.

    Raises:
        ServingError: the directory holds no model that a session can run, or a warm-up request failed.
    """
    try:
        model = _load(path)
        try:
            _check_variables(model)
            _warm_up(model, tf.io.gfile.join(path, WARM_UP_FILE))
        except BaseException:
            model.close()
            raise
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    return model


def _load(path: str) -> SessionModel:
    if not any(tf.io.gfile.exists(tf.io.gfile.join(path, f"saved_model.{kind}")) for kind in ("pb", "pbtxt")):
        raise ServingError(
            CanonicalCode.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {path}",
        )
    try:
        return SessionModel(path)
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    except OSError as error:
        raise ServingError(CanonicalCode.DATA_LOSS, str(error)) from error
    except Exception as error:
        # Python's loader raises almost anything for a graph that parses and still is none: no {serve} tag, unknown ops.
        raise invalid_argument(str(error)) from error


def _check_variables(model: SessionModel) -> None:
    unset = model.unset_variables()
    if unset:
        raise ServingError(
            CanonicalCode.FAILED_PRECONDITION,
            f"The signatures read variables that loading does not fill, so that every request would fail: "
            f"{', '.join(unset)}. Was the model saved by tf.saved_model.save, with Keras 3? keras.export.ExportArchive "
            "writes one that can be served.",
        )


def _warm_up(model: SessionModel, path: str) -> None:
    if not tf.io.gfile.exists(path):
        return
    records = tf.data.TFRecordDataset(path).as_numpy_iterator()
    for number, record in enumerate(records, 1):
        if number > MAXIMUM_WARM_UP_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAXIMUM_WARM_UP_RECORDS})")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except Exception as error:
            raise invalid_argument(f"Failed to parse warmup record {number}") from error
        _replay(model, log)


def _replay(model: SessionModel, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        logger.warning("a warm-up request of kind %s is not replayed: only predict requests are", kind)
        return
    request = log.predict_log.request
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if signature not in model.signatures:
        raise ServingError(CanonicalCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
    try:
        inputs = {alias: from_proto(proto) for alias, proto in request.inputs.items()}
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {error}") from error
    run_signature(model, signature, inputs, tuple(request.output_filter))
