"""A SavedModel loaded as TensorFlow Serving loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2


class SessionModel:
    """A SavedModel in a session, tag set {serve}: what TensorFlow Serving runs, and nothing it could not run.

    Python's `tf.saved_model.load` accepts models that this loader, and so TensorFlow Serving, refuses.

    Args:
        path: the directory that holds saved_model.pb.

    Raises:
        tf.errors.OpError, OSError, RuntimeError: the directory holds no SavedModel that a session can run.
    """

    def __init__(self, path: str) -> None:
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], path)
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self._callables: dict[tuple[str, tuple[str, ...], tuple[str, ...]], object] = {}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs of one signature, all of them or those named; strings are object arrays of bytes.

        Raises:
            KeyError: the model has no such signature, input or output.
            tf.errors.OpError: the graph refuses the values.
        """
        definition = self.signatures[signature]
        names = tuple(definition.outputs) if outputs is None else tuple(outputs)
        feeds = tuple(inputs)
        key = (signature, feeds, names)
        if key not in self._callables:
            self._callables[key] = self._session.make_callable(
                [definition.outputs[name].name for name in names],
                feed_list=[definition.inputs[name].name for name in feeds],
            )
        values = self._callables[key](*(inputs[name] for name in feeds))  # type: ignore[operator]
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Free the session and its weights."""
        self._session.close()
