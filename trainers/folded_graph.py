"""What of a network can be computed once."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer


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
