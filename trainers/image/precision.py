"""Export in bfloat16 or int8: the heavy operations of a network in lower precision, and what that gains.

For bfloat16, two switches of the libraries were tried instead (Keras 3.15, TensorFlow 2.21, InceptionV3). Keras's
policy `mixed_bfloat16` rounds batch normalization and the probabilities too: off by 2e-4 where this is off by 1e-6.
Grappler's `auto_mixed_precision_onednn_bfloat16` belongs to the process that serves: a SavedModel does not carry it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.framework import kernels
from tensorflow.python.grappler import tf_optimizer

from serving.signatures.common import frozen_function, graph_function
from trainers.errors import TrainingError


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


Function = Callable[[tf.Tensor], tf.Tensor]


def bfloat16_function(function: Function, pixels: tf.TensorSpec) -> Function:
    """Float32 pixels -> float32 probabilities, computed in bfloat16 between them; the weights are constants.

    Args:
        function: in float32; made of core operations, its state in variables only.
        pixels: what it takes.

    Raises:
        TrainingError: it has state elsewhere.
    """
    return _lowered(function, pixels, lambda graph, _: bfloat16_graph(graph))


def _lowered(
    function: Function,
    pixels: tf.TensorSpec,
    lower: Callable[[graph_pb2.GraphDef, tf.Tensor], graph_pb2.GraphDef],
) -> Function:
    """The function with its graph, folded, made another one of; `lower` gets the graph and what is fed."""
    frozen = frozen_function(function, pixels)
    if len(frozen.inputs) != 1:
        raise TrainingError(
            "the model has tables, or other state that is no variable, and cannot be exported in a lower precision; "
            "set trainer.precision to float32"
        )
    (fed,), (fetched,) = frozen.inputs, frozen.outputs
    graph = lower(folded_graph(frozen.graph.as_graph_def(), fed.name, fetched.name), fed)
    # Without the weights in float32, which nothing uses any more.
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, [fetched.op.name])
    return graph_function(graph, [fed], fetched)


def float32_function(function: Function, pixels: tf.TensorSpec) -> Function:
    """The same in float32: batch normalization is folded now, which otherwise each server does for each signature."""
    frozen = frozen_function(function, pixels)
    (fetched,) = frozen.outputs
    graph = frozen.graph.as_graph_def()
    if len(frozen.inputs) == 1:  # no table of a model from elsewhere
        graph = folded_graph(graph, frozen.inputs[0].name, fetched.name)
    return graph_function(graph, frozen.inputs, fetched)


def int8_function(function: Function, pixels: tf.TensorSpec, photos: Iterable[tf.Tensor]) -> Function:
    """Float32 pixels -> float32 probabilities, with convolutions in int8 between them, as int8_graph makes them.

    Args:
        function: in float32; made of core operations, its state in variables only.
        pixels: what it takes.
        photos: batches of pixels, which tell how large the outputs of its layers get.

    Raises:
        TrainingError: it has state elsewhere, or no convolution that int8_graph takes, or TensorFlow has none in int8.
    """
    if not kernels.get_registered_kernels_for_op(_QUANTIZED_CONVOLUTION).kernel:
        raise TrainingError(
            "its convolutions are in TensorFlow's packages for x86 processors only, and not in the one that runs here"
        )

    def lower(graph: graph_pb2.GraphDef, fed: tf.Tensor) -> graph_pb2.GraphDef:
        return int8_graph(graph, fed.name, photos)

    return _lowered(function, pixels, lower)


# Sums of products of int8 go into convolutions of this operation, by oneDNN; see tensorflow/core/ops/mkl_nn_ops.cc.
_QUANTIZED_CONVOLUTION = "_FusedQuantizedConv2D"
_INT8, _QINT8, _UINT8, _QUINT8 = types_pb2.DT_INT8, types_pb2.DT_QINT8, types_pb2.DT_UINT8, types_pb2.DT_QUINT8
_MOST_INT8 = 127
# Without AVX512-VNNI and its like, sums of two products are kept in 16 bits, and cut off there: 2 * 255 * 64 is within
# them. So the answers are the same on all processors, at the price of a bit.
_MOST_WEIGHT = 63
# What makes no number less than 0 of numbers that are not, and no larger ones.
_SELECTING = frozenset({"AvgPool", "ConcatV2", "Identity", "MaxPool"})


@dataclass(frozen=True)
class _Layer:
    """A convolution, what is added to its channels, and the ReLU behind it.

    Attributes:
        convolution: its node.
        kernel: float32 [height, width, inputs, outputs].
        bias: float32 [outputs].
        names: of the nodes that all this is, the ReLU last.
    """

    convolution: node_def_pb2.NodeDef
    kernel: np.ndarray
    bias: np.ndarray
    names: tuple[str, ...]

    @property
    def given(self) -> str:
        """The node that it takes."""
        return _producer(self.convolution.input[0])


def _layers(graph: graph_pb2.GraphDef) -> dict[str, _Layer]:
    """ReLU -> its layer, of those that take nothing below 0: outputs of a ReLU, as they are or pooled and joined."""
    nodes = {node.name: node for node in graph.node}
    consumers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in map(_producer, node.input):
            consumers.setdefault(name, []).append(node.name)
    positive = _positive(graph)
    found = {}
    for relu in (node for node in graph.node if node.op == "Relu" and _is_float32(node)):
        names, bias, before = [relu.name], None, nodes[_producer(relu.input[0])]
        if before.op in ("AddV2", "BiasAdd"):
            added = _values(nodes[_producer(before.input[1])])
            if added is None or not added.ndim or added.size != added.shape[-1]:
                continue
            bias = added.reshape(-1)
            names.append(before.name)
            before = nodes[_producer(before.input[0])]
        names.append(before.name)
        kernel = _values(nodes[_producer(before.input[1])]) if before.op == "Conv2D" else None
        if (
            kernel is not None
            and before.attr["data_format"].s == b"NHWC"
            and _producer(before.input[0]) in positive
            and all(len(consumers[name]) == 1 for name in names[1:])
        ):
            bias = np.zeros(kernel.shape[-1], np.float32) if bias is None else bias
            found[relu.name] = _Layer(before, kernel, np.broadcast_to(bias, kernel.shape[-1:]), tuple(names[::-1]))
    return found


def _positive(graph: graph_pb2.GraphDef) -> set[str]:
    """The names of what is a ReLU, or made of such by what selects."""
    positive = {node.name for node in graph.node if node.op == "Relu" and _is_float32(node)}
    return _spread(graph, positive, _SELECTING)


def _spread(graph: graph_pb2.GraphDef, names: set[str], operations: frozenset[str]) -> set[str]:
    """The names, and those of nodes of these operations that take nothing else."""
    while True:
        more = {
            node.name
            for node in graph.node
            if node.op in operations
            and node.name not in names
            and all(_producer(name) in names for name in _data_inputs(node))
        }
        if not more:
            return names
        names = names | more


def _values(node: node_def_pb2.NodeDef) -> np.ndarray | None:
    return np.asarray(tf.make_ndarray(node.attr["value"].tensor)) if node.op == "Const" else None


@dataclass(frozen=True)
class _Seen:
    """What photos tell of a network.

    Attributes:
        greatest: ReLU -> the greatest of its outputs.
        means: what a layer takes -> the mean of each channel, float32 [channels].
    """

    greatest: Mapping[str, float]
    means: Mapping[str, np.ndarray]


def _seen(graph: graph_pb2.GraphDef, fed: str, layers: Mapping[str, _Layer], photos: Iterable[tf.Tensor]) -> _Seen:
    relus = sorted(node.name for node in graph.node if node.op == "Relu" and _is_float32(node))
    given = sorted({layer.given for layer in layers.values()})
    with tf.Graph().as_default() as own:
        tf.import_graph_def(graph, name="")
        greatest = [tf.reduce_max(own.get_tensor_by_name(f"{name}:0")) for name in relus]
        means = [tf.reduce_mean(own.get_tensor_by_name(f"{name}:0"), [0, 1, 2]) for name in given]
    # Not in the graph: photos are read in what is the default one.
    with closing(tf.compat.v1.Session(graph=own)) as session:
        run = session.make_callable([greatest, means], [fed])
        found = [(*run(pixels.numpy()), len(pixels)) for pixels in photos if len(pixels)]
    if not found:
        raise TrainingError(
            "photos of the train split tell how large the numbers in the network get, and none can be used"
        )
    greatest_of, means_of, counts = zip(*found, strict=True)
    return _Seen(
        dict(zip(relus, np.max(greatest_of, axis=0).tolist(), strict=True)),
        {
            name: np.average([of_batch[place] for of_batch in means_of], axis=0, weights=counts)
            for place, name in enumerate(given)
        },
    )


def int8_graph(graph: graph_pb2.GraphDef, fed: str, photos: Iterable[tf.Tensor]) -> graph_pb2.GraphDef:
    """The graph with its convolutions before a ReLU in int8; its inputs and outputs, and all else, stay float32.

    The weights of each output channel are whole numbers from -63 to 63, times a factor of the channel. What a ReLU
    gives, and what is pooled and joined of that, are whole numbers from 0 to 255, times a factor of the layer. CPUs
    with AVX512-VNNI, AVX-VNNI or AMX add the products of four such numbers at once. TensorFlow computes it by oneDNN
    only, which is in its packages for x86 processors, and on by default there.

    Args:
        graph: frozen, and folded.
        fed: the name of the tensor that is fed.
        photos: batches of what is fed, which tell how large the numbers get, and what they are in the mean.

    Raises:
        TrainingError: there is no such convolution, or no photo.

    Sources: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        https://arxiv.org/abs/1712.05877, section 2; Nagel et al., Data-Free Quantization Through Weight Equalization
        and Bias Correction, https://arxiv.org/abs/1906.04721, section 4.2: what rounding the weights adds to a channel
        in the mean is taken from its bias. The pooled features of 64 photos of flowers (mixed4) are off by
        0.068 of a standard deviation then, by 0.031 in bfloat16; with weights from -127 to 127 by 0.049, and 0.090
        without the correction.
    """
    layers = _layers(graph)
    seen = _seen(graph, fed, layers, photos)
    # Not convolutions in groups of channels.
    layers = {name: layer for name, layer in layers.items() if layer.kernel.shape[2] == len(seen.means[layer.given])}
    if not layers:
        raise TrainingError(
            "it is for convolutions with a ReLU before and behind them, as InceptionV3 has, and this network has none"
        )
    return _Int8Graph(graph, layers, seen).made()


class _Int8Graph:
    """Makes int8_graph's. A node is known by its name; what it gives as whole numbers, by that and _WHOLE."""

    _WHOLE = "/int8"

    def __init__(self, graph: graph_pb2.GraphDef, layers: Mapping[str, _Layer], seen: _Seen) -> None:
        self._graph, self._layers, self._means = graph, layers, seen.means
        self._nodes = {node.name: node for node in graph.node}
        # What is there in whole numbers.
        self._lower = _spread(graph, set(layers), frozenset({"ConcatV2", "MaxPool"}))
        self._most = self._ranges(seen.greatest)
        self._result = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
        self._made: set[str] = set()

    def _ranges(self, greatest: Mapping[str, float]) -> dict[str, float]:
        """Node -> what 255 stands for; the same for all that are joined."""
        positive = _positive(self._graph)
        most = {name: greatest.get(name, 0.0) for name in positive}
        while True:
            before = dict(most)
            for name in positive:
                node = self._nodes[name]
                inputs = [_producer(given) for given in _data_inputs(node)] if node.op in _SELECTING else []
                most[name] = max([most[name], *(most[given] for given in inputs)])
                if name in self._lower:
                    most.update(dict.fromkeys((given for given in inputs if given in self._lower), most[name]))
            if most == before:
                # A ReLU that gave nothing but 0.
                return {name: value or 1.0 for name, value in most.items()}

    def made(self) -> graph_pb2.GraphDef:
        inner = {name for layer in self._layers.values() for name in layer.names}
        for node in self._graph.node:
            if node.name in self._layers:
                self._convolution(self._layers[node.name])
            elif node.name in self._lower:
                self._selection(node)
            elif node.name not in inner:
                self._copy(node)
        return self._result

    def _copy(self, node: node_def_pb2.NodeDef) -> None:
        copy = self._result.node.add()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if not name.startswith("^") and _producer(name) in self._lower:
                copy.input[position] = self._as_float32(_producer(name))

    def _selection(self, node: node_def_pb2.NodeDef) -> None:
        """Of numbers of the same factor: what is the greatest or comes next is so of whole numbers, too."""
        inputs = [name if _producer(name) not in self._lower else _producer(name) + self._WHOLE for name in node.input]
        made = node.name + self._WHOLE
        if node.op == "ConcatV2":
            self._add(node.op, made, inputs, like=node, T=_QUINT8)
            return
        # MaxPool takes uint8, which has the same bits as quint8.
        self._add("Bitcast", f"{made}/given", inputs, T=_QUINT8, type=_UINT8)
        self._add(node.op, f"{made}/bits", [f"{made}/given"], like=node, T=_UINT8)
        self._add("Bitcast", made, [f"{made}/bits"], T=_UINT8, type=_QUINT8)

    def _convolution(self, layer: _Layer) -> None:
        name, given = layer.names[-1], layer.given
        of_channel = np.abs(layer.kernel).max(axis=(0, 1, 2))
        of_channel = np.where(of_channel > 0, of_channel, 1).astype(np.float32)
        kernel = np.round(layer.kernel / of_channel * _MOST_WEIGHT).astype(np.int8)
        added = np.einsum("hwio,i->o", kernel * (of_channel / _MOST_WEIGHT) - layer.kernel, self._means[given])
        of_127 = of_channel * np.float32(_MOST_INT8 / _MOST_WEIGHT)
        inputs = [
            given + self._WHOLE if given in self._lower else self._quantized(given),
            self._once("Bitcast", f"{name}/weights", [self._constant(f"{name}/bits", kernel)], T=_INT8, type=_QINT8),
            self._constant(f"{name}/bias", layer.bias - added),
            *self._range(given),
            self._constant(f"{name}/least_weights", -of_127),
            self._constant(f"{name}/most_weights", of_127),
            *self._range(name),
        ]
        made = self._add(
            _QUANTIZED_CONVOLUTION,
            name + self._WHOLE,
            inputs,
            Tinput=_QUINT8,
            Tfilter=_QINT8,
            Tbias=_FLOAT32,
            Tsummand=_QUINT8,
            out_type=_QUINT8,
            Tdevice_inputs=[_QUINT8, _QINT8, _FLOAT32],
            Thost_inputs=[_FLOAT32] * 6,
            Tdevice_outputs=[_QUINT8],
            Thost_outputs=[_FLOAT32] * 2,
        )
        for key in ("strides", "padding", "explicit_paddings", "dilations", "data_format"):
            if key in layer.convolution.attr:
                made.attr[key].CopyFrom(layer.convolution.attr[key])
        made.attr["fused_ops"].list.s.extend([b"BiasAdd", b"Relu", b"Requantize"])

    def _quantized(self, name: str) -> str:
        """What is float32, in whole numbers."""
        ranges = self._range(name)
        return self._once(
            "QuantizeV2", f"{name}/quantized", [name, *ranges], T=_QUINT8, mode=b"SCALED", round_mode=b"HALF_TO_EVEN"
        )

    def _as_float32(self, name: str) -> str:
        ranges = self._range(name)
        return self._once("Dequantize", f"{name}/float32", [name + self._WHOLE, *ranges], T=_QUINT8, mode=b"SCALED")

    def _range(self, name: str) -> list[str]:
        return [self._constant(f"{name}/least", np.zeros([])), self._constant(f"{name}/most", self._most[name])]

    def _constant(self, name: str, values: np.ndarray | float) -> str:
        """Of int8 where the values are, else of float32."""
        if name not in self._made:
            self._made.add(name)
            node = self._result.node.add(name=name, op="Const")
            given = np.asarray(values)
            proto = tf.make_tensor_proto(given if given.dtype == np.int8 else given.astype(np.float32))
            node.attr["dtype"].type = proto.dtype
            node.attr["value"].tensor.CopyFrom(proto)
        return name

    def _once(self, operation: str, name: str, inputs: list[str], **attributes: Any) -> str:
        if name not in self._made:
            self._add(operation, name, inputs, **attributes)
        return name

    def _add(
        self,
        operation: str,
        name: str,
        inputs: list[str],
        like: node_def_pb2.NodeDef | None = None,
        **attributes: Any,
    ) -> node_def_pb2.NodeDef:
        self._made.add(name)
        node = self._result.node.add()
        if like is not None:
            node.CopyFrom(like)
            del node.input[:]
        node.name, node.op = name, operation
        node.input.extend(inputs)
        for key, value in attributes.items():
            if isinstance(value, list):
                node.attr[key].list.type.extend(value)
            elif isinstance(value, bytes):
                node.attr[key].s = value
            else:
                node.attr[key].type = value
        return node


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
