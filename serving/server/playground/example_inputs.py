"""Example inputs to start from: the rows of a version's warm-up requests."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.client.tensors import data_type, from_proto
from serving.missing_values import missing_value
from serving.model_store import PROVENANCE_FILE
from serving.server.json_tensors import BYTES_SUFFIX, float_texts
from serving.server.signatures import DEFAULT_SIGNATURE
from serving.server.versions import WARM_UP_FILE

MAXIMUM_EXAMPLES = 32
MAXIMUM_BYTES = 8 * 2**20  # of all examples, most of all of photos; the first is there whatever its size

# What stands in a form's field: a text as it is typed, or {"b64": …} of bytes that are no text.
Field = str | dict[str, str]

logger = logging.getLogger(__name__)


def example_inputs(version_path: str, name: str, signature: meta_graph_pb2.SignatureDef | None) -> dict[str, Any]:
    """The examples that a version carries for one signature, and what an empty field is sent as.

    Args:
        version_path: of the version.
        name: the signature's.
        signature: what it takes; None where the model has none of that name.

    Returns:
        `examples`: rows, each a field's content by the input's name, empty where the value is missing; [] where the
        version carries no warm-up requests. `missing`: the JSON text that an empty field is sent as, by input; {} where
        the version was not published by ingraph, whose models alone have such forms.
    """
    missing = _missing_texts(version_path, signature) if signature is not None else {}
    rows: list[dict[str, Field]] = []
    size = 0
    for inputs in _requests(version_path, name):
        for row in _rows(inputs, missing):
            size += sum(len(field if isinstance(field, str) else field["b64"]) for field in row.values())
            if len(rows) == MAXIMUM_EXAMPLES or (rows and size > MAXIMUM_BYTES):
                break
            if row not in rows:
                rows.append(row)
    return {"examples": rows, "missing": missing}


def _missing_texts(version_path: str, signature: meta_graph_pb2.SignatureDef) -> dict[str, str]:
    if not tf.io.gfile.exists(tf.io.gfile.join(version_path, PROVENANCE_FILE)):
        return {}
    texts = {}
    for name, info in signature.inputs.items():
        try:
            missing = missing_value(data_type(info.dtype).name)
        except (TypeError, ValueError):
            continue
        texts[name] = f'"{missing}"' if isinstance(missing, str) else f"{missing}"
    return texts


def _requests(version_path: str, signature: str) -> Iterator[Mapping[str, np.ndarray]]:
    path = tf.io.gfile.join(version_path, WARM_UP_FILE)
    try:
        if not tf.io.gfile.exists(path):
            return
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            if request.inputs and (request.model_spec.signature_name or DEFAULT_SIGNATURE) == signature:
                yield {name: from_proto(proto) for name, proto in request.inputs.items()}
    except (tf.errors.OpError, DecodeError, ValueError) as error:
        # They were fine when the version was loaded, so the file has changed; a form without examples does as well.
        logger.warning("the warm-up requests of %s cannot be read: %s", version_path, error)


def _rows(inputs: Mapping[str, np.ndarray], missing: Mapping[str, str]) -> Iterator[dict[str, Field]]:
    if any(values.ndim == 0 for values in inputs.values()):
        yield {name: _field(name, values, missing) for name, values in inputs.items()}
        return
    for row in zip(*inputs.values(), strict=False):
        yield {name: _field(name, np.asarray(value), missing) for name, value in zip(inputs, row, strict=True)}


def _field(name: str, value: np.ndarray, missing: Mapping[str, str]) -> Field:
    """One value, or of an input with more dimensions than the batch's a JSON list of values."""
    if value.dtype.kind not in "OSU":
        text = _number_text(value)
        return "" if text == missing.get(name) else text
    if value.size != 1:
        return ""  # lists of texts are not suggested
    content: bytes = value.reshape(-1)[0]
    if not name.endswith(BYTES_SUFFIX):
        try:
            return content.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(content).decode()}


def _number_text(value: np.ndarray) -> str:
    flat = value.reshape(-1)
    if value.dtype in (np.float32, np.float64):
        texts = float_texts(flat)
    else:
        texts = [str(item).lower() for item in flat.tolist()]  # True is true in JSON
    return texts[0] if value.size == 1 else _list_text(np.array(texts, object).reshape(value.shape))


def _list_text(texts: np.ndarray) -> str:
    return f"[{', '.join(_list_text(part) if isinstance(part, np.ndarray) else part for part in texts)}]"
