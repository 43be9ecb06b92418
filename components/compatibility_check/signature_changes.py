"""How the signatures of two models differ, as far as a client of the first would notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

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
        yield f"{signature}: the input {name!r} is gone; {advice}"
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
