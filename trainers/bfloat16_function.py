"""A network in bfloat16, as a function that can be exported."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from serving.export import frozen_function
from trainers.bfloat16_graph import bfloat16_graph
from trainers.folded_graph import folded_graph


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

    def imported(values: tf.Tensor) -> tf.Tensor:
        (output,) = tf.graph_util.import_graph_def(graph, {fed.name: values}, [fetched.name], name="")
        return tf.ensure_shape(output, fetched.shape)

    # One function for all signatures: the weights are in the file once.
    call: Callable[[tf.Tensor], tf.Tensor] = tf.function(imported, autograph=False).get_concrete_function(pixels)
    return call
