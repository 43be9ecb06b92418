"""The signatures of a SavedModel that is not loaded."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from components.serving_check.failures import ModelUnavailable


def read_signatures(path: str) -> Mapping[str, meta_graph_pb2.SignatureDef]:
    """The signatures of the graph tagged {serve}.

    Raises:
        ModelUnavailable: there is no such graph.
    """
    file = f"{path}/saved_model.pb"
    try:
        with tf.io.gfile.GFile(file, "rb") as content:
            saved_model = saved_model_pb2.SavedModel.FromString(content.read())
    except (tf.errors.OpError, DecodeError) as error:
        raise ModelUnavailable(f"the model has no readable {file}: {error}") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {"serve"}:
            return dict(meta_graph.signature_def)
    raise ModelUnavailable(f"{file} holds no graph tagged 'serve'; export the model with tf.saved_model.save")
