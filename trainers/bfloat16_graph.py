"""A network's heavy operations in bfloat16."""

from __future__ import annotations

import ml_dtypes
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2, types_pb2

CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
# What is done to the outputs of convolutions: converted too, so that they stay in bfloat16 on their way to the next.
_IN_PASSING = frozenset({
    "AddV2", "AvgPool", "BiasAdd", "ConcatV2", "Elu", "Identity", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu", "Relu6",
    "Reshape", "Sigmoid", "Squeeze", "Sub", "Tanh",
})  # fmt: skip
# Sums over many numbers: converted only on the way to another convolution. The last ones make the probabilities.
_SUMS = frozenset({"MatMul", "Mean"})
_FLOAT32, _BFLOAT16 = types_pb2.DT_FLOAT, types_pb2.DT_BFLOAT16


def bfloat16_graph(graph: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """The graph with its convolutions, and what lies between them, in bfloat16; its inputs and outputs stay float32.

    bfloat16 is float32 with eight bits of precision instead of 24. CPUs with AVX512-BF16 or AMX multiply it at twice
    the speed and more; everywhere else the graph runs too, and gains nothing.

    Args:
        graph: frozen: weights are constants. Batch normalization is best folded into the convolutions before, or it is
            rounded twice.
    """
    nodes = {node.name: node for node in graph.node}
    converted = _converted(graph, nodes)
    result = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
    casts: dict[str, node_def_pb2.NodeDef] = {}
    for node in graph.node:
        copy = result.node.add()
        copy.CopyFrom(node)
        is_converted = node.name in converted
        if is_converted:
            copy.attr["T"].type = _BFLOAT16
        for position, name in enumerate(node.input):
            if _carries_data(node, position) and is_converted != (_producer(name) in converted):
                cast = _constant(nodes[_producer(name)]) if is_converted else None
                cast = cast or _cast(name, _BFLOAT16 if is_converted else _FLOAT32)
                copy.input[position] = casts.setdefault(cast.name, cast).name
    result.node.extend(casts.values())
    return result


def _converted(graph: graph_pb2.GraphDef, nodes: dict[str, node_def_pb2.NodeDef]) -> set[str]:
    """The names of the nodes that are to compute in bfloat16."""
    before_convolution = _ancestors({node.name for node in graph.node if node.op in CONVOLUTIONS}, nodes)
    converted = {node.name for node in graph.node if node.op in CONVOLUTIONS and _is_float32(node)}
    while True:
        found = {
            node.name
            for node in graph.node
            if node.name not in converted
            and _is_float32(node)
            and (node.op in _IN_PASSING or (node.op in _SUMS and node.name in before_convolution))
            and any(_producer(name) in converted for name in _data_inputs(node))
        }
        if not found:
            return converted
        converted |= found


def _ancestors(names: set[str], nodes: dict[str, node_def_pb2.NodeDef]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        for name in map(_producer, nodes[waiting.pop()].input):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _data_inputs(node: node_def_pb2.NodeDef) -> list[str]:
    return [name for position, name in enumerate(node.input) if _carries_data(node, position)]


def _carries_data(node: node_def_pb2.NodeDef, position: int) -> bool:
    """Whether an input holds numbers of the network, and not the axis or the padding of an operation."""
    if node.input[position].startswith("^"):
        return False
    if node.op == "ConcatV2":
        return position < node.attr["N"].i
    return position == 0 if node.op in ("Mean", "Pad", "Reshape") else True


def _is_float32(node: node_def_pb2.NodeDef) -> bool:
    # Looking up a missing key in a protobuf map would add it.
    return "T" in node.attr and node.attr["T"].type == _FLOAT32


def _producer(name: str) -> str:
    return name.removeprefix("^").split(":", 1)[0]


def _constant(node: node_def_pb2.NodeDef) -> node_def_pb2.NodeDef | None:
    """A constant in bfloat16, or None for what is no constant."""
    if node.op != "Const":
        return None
    values = tf.make_ndarray(node.attr["value"].tensor).astype(ml_dtypes.bfloat16)
    constant = node_def_pb2.NodeDef(name=f"{node.name}/bfloat16", op="Const")
    constant.attr["dtype"].type = _BFLOAT16
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return constant


def _cast(name: str, target: int) -> node_def_pb2.NodeDef:
    dtype = tf.as_dtype(target).name
    cast = node_def_pb2.NodeDef(name=f"{name.replace(':', '_')}/{dtype}", op="Cast", input=[name])
    cast.attr["SrcT"].type = _FLOAT32 if target == _BFLOAT16 else _BFLOAT16
    cast.attr["DstT"].type = target
    return cast
