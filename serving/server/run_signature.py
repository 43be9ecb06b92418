"""One signature of a loaded model, run on a request's tensors as TensorFlow Serving does (predict_util.cc)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.client.tensor_proto import data_type, data_type_of, from_proto
from serving.server.serving_error import ServingError, invalid_argument
from serving.session_model import SessionModel

DEFAULT_SIGNATURE = "serving_default"


def run_signature(
    model: SessionModel,
    name: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
    timeout_seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """The outputs that the filter names, or all of the signature's, in the signature's order.

    Raises:
        ServingError: INVALID_ARGUMENT, inputs or filter do not fit the signature; DEADLINE_EXCEEDED, the graph did not
            finish in time; or the op's own code and message.
        KeyError: the model has no such signature.
    """
    feeds, fetches = checked_request(model.signatures[name], inputs, output_filter)
    return run_checked(model, name, feeds, fetches, timeout_seconds)


def checked_request(
    signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray], output_filter: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What to feed, the signature's defaults included, and which outputs to fetch, in the order of the answer.

    Raises:
        ServingError: INVALID_ARGUMENT, inputs or filter do not fit the signature.
    """
    feeds = _with_defaults(signature, inputs)
    _check_data_types(signature, feeds)
    _check_output_filter(signature, output_filter)
    return feeds, tuple(output_filter or sorted(signature.outputs))


def run_checked(
    model: SessionModel,
    name: str,
    feeds: Mapping[str, np.ndarray],
    fetches: Sequence[str],
    timeout_seconds: float | None = None,
) -> dict[str, np.ndarray]:
    """Run what `checked_request` has returned.

    Raises:
        ServingError: the code and message of the op that fails; DEADLINE_EXCEEDED, the graph did not finish in time.
    """
    try:
        outputs = model.run(name, feeds, fetches, timeout_seconds)
    except tf.errors.OpError as error:
        raise ServingError.from_tensorflow(error) from error
    return {alias: outputs[alias] for alias in fetches}


def _with_defaults(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    required, sent = set(signature.inputs), set(inputs)
    if len(sent) > len(required) or (len(sent) < len(required) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(required)} len({_braces(sent)}) != "
            f"len({_braces(required)}). Sent extra: {_braces(sent - required)}. "
            f"Missing but required: {_braces(required - sent)}."
        )
    for alias in sorted(sent - required):
        raise invalid_argument(
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the set {_braces(required)}."
        )
    missing = required - sent - set(signature.defaults)
    if missing:
        raise invalid_argument(f"Missing but required inputs: {_braces(missing)}.")
    return dict(inputs) | {alias: from_proto(signature.defaults[alias]) for alias in required - sent}


def _check_data_types(signature: meta_graph_pb2.SignatureDef, feeds: Mapping[str, np.ndarray]) -> None:
    for position, alias in enumerate(sorted(feeds)):
        expected = data_type(signature.inputs[alias].dtype).name
        received = data_type_of(feeds[alias]).name
        if received != expected:
            raise invalid_argument(f"Expects arg[{position}] ({alias}) to be {expected} but {received} is provided")


def _check_output_filter(signature: meta_graph_pb2.SignatureDef, output_filter: Sequence[str]) -> None:
    for position, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_braces(set(signature.outputs))}."
            )
        if alias in output_filter[:position]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")


def _braces(names: set[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
