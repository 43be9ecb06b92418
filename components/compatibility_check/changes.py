"""Changes between two models that their clients would notice: signatures and classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2


def class_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """A sentence for each kind of difference; none where the classes and their order are the same.

    Args:
        before: the labels of the served model, in the order of their probabilities.
        after: those of the candidate.
    """
    allowed = "or set data.spans.class_changes to allow"
    new = [label for label in after if label not in before]
    vanished = [label for label in before if label not in after]
    changes = []
    if new:
        changes.append(f"new class {_quoted(new)}; correct the label in the data, {allowed}")
    if vanished:
        changes.append(f"class {_quoted(vanished)} is gone; add examples of it, {allowed}")
    if not changes and list(before) != list(after):
        changes.append(
            f"the classes are in another order, {_quoted(after)}, before {_quoted(before)}; put "
            f"preprocessing.label.order back, {allowed}"
        )
    return changes


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))


Signatures = Mapping[str, meta_graph_pb2.SignatureDef]
Tensors = Mapping[str, meta_graph_pb2.TensorInfo]


def signature_changes(before: Signatures, after: Signatures) -> list[str]:
    """A sentence for each signature, input and output that vanished or changed, and for each input that is new.

    A new signature or output harms nobody. The shapes of outputs follow the number of classes, and are not compared.

    Args:
        before: of the served model.
        after: of the candidate.
    """
    changes = []
    for name, signature in sorted(before.items()):
        if name.startswith("__"):  # TensorFlow's own
            continue
        if name not in after:
            changes.append(f"the signature {name!r} is gone; export it again")
            continue
        changes += _input_changes(name, signature.inputs, after[name].inputs)
        changes += _output_changes(name, signature.outputs, after[name].outputs)
    return changes


def _input_changes(signature: str, before: Tensors, after: Tensors) -> Iterator[str]:
    advice = "clients send what the served model takes: keep the columns of the data and their types"
    for name in sorted(after.keys() - before.keys()):
        yield f"{signature}: new input {name!r}, {_described(after[name])}; {advice}"
    for name in sorted(before.keys() - after.keys()):
        yield (
            f"{signature}: the input {name!r} is gone, and TensorFlow Serving refuses clients that still send it; keep "
            "the column in the data and out of the ignored ones, or publish the model under another name"
        )
    for name in sorted(before.keys() & after.keys()):
        if _described(before[name]) != _described(after[name]):
            was, now = _described(before[name]), _described(after[name])
            yield f"{signature}: input {name!r} is {now}, before {was}; {advice}"


def _output_changes(signature: str, before: Tensors, after: Tensors) -> Iterator[str]:
    for name in sorted(before.keys() - after.keys()):
        yield f"{signature}: the output {name!r} is gone; clients read it: export it again"
    for name in sorted(before.keys() & after.keys()):
        if before[name].dtype != after[name].dtype:
            yield f"{signature}: output {name!r} is {_dtype(after[name])}, before {_dtype(before[name])}"


def _described(tensor: meta_graph_pb2.TensorInfo) -> str:
    return f"{_dtype(tensor)} {_shape(tensor.tensor_shape)}"


def _dtype(tensor: meta_graph_pb2.TensorInfo) -> str:
    return str(tf.dtypes.as_dtype(tensor.dtype).name)


def _shape(shape: tensor_shape_pb2.TensorShapeProto) -> str:
    return "of any shape" if shape.unknown_rank else str([dimension.size for dimension in shape.dim])
