"""Classify signatures and their results (servables/tensorflow/classifier.cc)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2

from serving.server.serving_error import invalid_argument

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
