"""Signatures of a loaded model, run as TensorFlow Serving runs them: predict, classify, regress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.client.tensors import data_type, data_type_of, from_proto
from serving.server.errors import ServingError, invalid_argument
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


def serialized_examples(input_: input_pb2.Input) -> np.ndarray:
    """One serialized tf.Example per example, object [n]; a context stands in front of each, so that it counts less.

    Raises:
        ServingError: INVALID_ARGUMENT, there are no examples.
    """
    if input_.WhichOneof("kind") == "example_list_with_context":
        context = input_.example_list_with_context.context.SerializeToString()
        examples = input_.example_list_with_context.examples
    else:
        context, examples = b"", input_.example_list.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    serialized = np.empty(len(examples), np.object_)
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized


INPUTS = "inputs"
CLASSES = "classes"
SCORES = "scores"


def classification_outputs(signature: meta_graph_pb2.SignatureDef) -> tuple[str, ...]:
    """Which outputs a classification is made of; the method name of the signature is not looked at.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no classify signature.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    outputs = tuple(name for name in (CLASSES, SCORES) if name in signature.outputs)
    if not outputs:
        raise invalid_argument(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature was: {signature}"
        )
    return outputs


def classification_result(outputs: Mapping[str, np.ndarray], examples: int) -> classification_pb2.ClassificationResult:
    """The classes and scores of each example.

    Args:
        outputs: "classes" string [examples, n], "scores" float32 [examples, n], or one of them.
        examples: how many there are.

    Raises:
        ServingError: INVALID_ARGUMENT, the model's outputs are no classification.
    """
    for name, kind, dtype in ((CLASSES, "O", "DT_STRING"), (SCORES, "f", "DT_FLOAT")):
        if name in outputs:
            _check(name, outputs[name], examples, kind, dtype)
    sizes = [array.shape[1] for array in outputs.values()]
    if len(set(sizes)) != 1:
        raise invalid_argument(f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}")
    result = classification_pb2.ClassificationResult()
    for example in range(examples):
        classes = result.classifications.add().classes
        for number in range(sizes[0]):
            entry = classes.add()
            if CLASSES in outputs:
                entry.label = _label(outputs[CLASSES][example, number])
            if SCORES in outputs:
                entry.score = outputs[SCORES][example, number]
    return result


def _check(name: str, array: np.ndarray, examples: int, kind: str, dtype: str) -> None:
    if array.ndim != 2:
        shape = ",".join(map(str, array.shape))
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got [{shape}]")
    if array.dtype.kind != kind or (kind == "f" and array.dtype != np.float32):
        raise invalid_argument(f"Expected {name} Tensor of {dtype}. Got: {array.dtype}")
    if array.shape[0] != examples:
        raise invalid_argument(f"Expected {name} output batch size of {examples}. Got: {array.shape[0]}")


def _label(label: bytes) -> str:
    try:
        return label.decode()
    except UnicodeDecodeError as error:
        raise invalid_argument(f"The model's class {label!r} is no UTF-8 text, which a classification needs") from error


OUTPUTS = "outputs"


def regression_outputs(signature: meta_graph_pb2.SignatureDef) -> tuple[str, ...]:
    """Which output a regression is; the method name of the signature is not looked at.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no regress signature.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if OUTPUTS not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return (OUTPUTS,)


def regression_result(values: np.ndarray, examples: int) -> regression_pb2.RegressionResult:
    """The value of each example.

    Args:
        values: float32 [examples] or [examples, 1].
        examples: how many there are.

    Raises:
        ServingError: INVALID_ARGUMENT, the model's output is no regression.
    """
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"[{','.join(map(str, values.shape))}]"
        )
    if values.shape[0] != examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {examples} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result
