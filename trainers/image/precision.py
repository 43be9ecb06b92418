"""Export in bfloat16: the heavy operations of a network in lower precision, and what that gains.

Two switches of the libraries were tried instead (Keras 3.15, TensorFlow 2.21, InceptionV3). Keras's policy
`mixed_bfloat16` rounds batch normalization and the probabilities too: off by 2e-4 where this is off by 1e-6. Grappler's
`auto_mixed_precision_onednn_bfloat16` belongs to the process that serves: a SavedModel does not carry it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer

from serving.signatures.common import frozen_function, graph_function


def folded_graph(graph: graph_pb2.GraphDef, inputs: str, output: str) -> graph_pb2.GraphDef:
    """The graph with its constants folded; batch normalization becomes part of the convolutions before it.

    TensorFlow does the same when it loads a model. What rounds the constants needs it done before.

    Args:
        graph: frozen: weights are constants.
        inputs: the name of the tensor that is fed.
        output: the name of the tensor that is fetched.
    """
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    signature = meta_graph.signature_def["signature"]
    for tensors, name in ((signature.inputs, inputs), (signature.outputs, output)):
        tensors[name].name = name
        tensors[name].dtype = tf.float32.as_datatype_enum
    config = config_pb2.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.optimizers.extend(["remap", "constfold", "dependency"])
    rewrites.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    return tf_optimizer.OptimizeGraph(config, meta_graph)


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


def bfloat16_function(
    function: Callable[[tf.Tensor], tf.Tensor], pixels: tf.TensorSpec
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Float32 pixels -> float32 probabilities, computed in bfloat16 between them; the weights are constants.

    Args:
        function: in float32; made of core operations, its state in variables only.
        pixels: what it takes.
    """
    frozen = frozen_function(function, pixels)
    (fed,), (fetched,) = frozen.inputs, frozen.outputs
    graph = bfloat16_graph(folded_graph(frozen.graph.as_graph_def(), fed.name, fetched.name))
    # Without the weights in float32, which nothing uses any more.
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, [fetched.op.name])
    return graph_function(graph, [fed], fetched)


def float32_function(
    function: Callable[[tf.Tensor], tf.Tensor], pixels: tf.TensorSpec
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same in float32: batch normalization is folded now, which otherwise each server does for each signature."""
    frozen = frozen_function(function, pixels)
    (fetched,) = frozen.outputs
    graph = frozen.graph.as_graph_def()
    if len(frozen.inputs) == 1:  # no table of a model from elsewhere
        graph = folded_graph(graph, frozen.inputs[0].name, fetched.name)
    return graph_function(graph, frozen.inputs, fetched)


Function = Callable[[tf.Tensor], tf.Tensor]

# Batch size -> how often it is measured.
_TURNS = {1: 9, 8: 3}


def precision_gain(function: Function, in_float32: Function, height: int, width: int) -> dict[str, float]:
    """Batch size -> the time that `function` takes, as a share of the time of `in_float32`; medians.

    Args:
        function: of pixels, float32 [batch, height, width, 3].
        in_float32: the same with float32 arithmetic.
        height: of the pixels.
        width: likewise.
    """
    gain = {}
    for batch, turns in _TURNS.items():
        pixels = tf.random.stateless_uniform([batch, height, width, 3], [0, 0], -1, 1)
        # They take turns, so that whatever else the machine does falls on both.
        seconds = np.array([[_seconds(call, pixels) for call in (function, in_float32)] for _ in range(turns + 1)])
        lower, full = np.median(seconds[1:], axis=0)  # in the first turn TensorFlow optimises the graphs
        gain[str(batch)] = round(float(lower / full), 3)
    return gain


def _seconds(call: Function, pixels: tf.Tensor) -> float:
    start = time.perf_counter()
    call(pixels).numpy()
    return time.perf_counter() - start
