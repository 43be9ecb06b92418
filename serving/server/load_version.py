"""A version directory -> a model that is ready for its first request."""

from __future__ import annotations

import tensorflow as tf

from serving.client.canonical_code import CanonicalCode
from serving.server.serving_error import ServingError, invalid_argument
from serving.server.warm_up import warm_up
from serving.session_model import SessionModel


def load_version(path: str) -> SessionModel:
    """Load the SavedModel of a version directory and replay its warm-up requests, where it has some.

    Raises:
        ServingError: the directory holds no model that a session can run, or a warm-up request failed.
    """
    try:
        model = _load(path)
        try:
            _check_variables(model)
            warm_up(model, path)
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
