"""A SavedModel loaded as TensorFlow Serving loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

# Sets of outputs come from clients: enough for every set that is really used, and an end to it.
MAXIMUM_CALLABLES = 64


class SessionModel:
    """A SavedModel in a session, tag set {serve}: what TensorFlow Serving runs, and nothing it could not run.

    Python's `tf.saved_model.load` accepts models that this loader, and so TensorFlow Serving, refuses. Threads may call
    `run` at the same time; `close` waits for none of them.

    Args:
        path: the directory that holds saved_model.pb.

    Raises:
        tf.errors.OpError, OSError, RuntimeError: the directory holds no SavedModel that a session can run.
    """

    def __init__(self, path: str) -> None:
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], path)
        except BaseException:
            self._session.close()
            raise
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self._callables: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Callable[..., Sequence[Any]]] = {}

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs of one signature, all of them or those named; strings are object arrays of bytes.

        A graph that takes longer than the time-out is stopped between two of its ops.

        Raises:
            KeyError: the model has no such signature, input or output.
            tf.errors.OpError: the graph refuses the values.
        """
        feeds = tuple(sorted(inputs))
        fetches = tuple(sorted(self.signatures[signature].outputs if outputs is None else outputs))
        run = self._callables.get((signature, feeds, fetches)) or self._make_callable(signature, feeds, fetches)
        options = _run_options(timeout_seconds)
        values = run(*(inputs[name] for name in feeds), options=options)
        return {name: _as_array(value) for name, value in zip(fetches, values, strict=True)}

    def close(self) -> None:
        """Free the session and its weights."""
        self._session.close()

    def _make_callable(
        self, signature: str, feeds: tuple[str, ...], fetches: tuple[str, ...]
    ) -> Callable[..., Sequence[Any]]:
        definition = self.signatures[signature]
        run: Callable[..., Sequence[Any]] = self._session.make_callable(
            [_tensor_name(definition.outputs, name) for name in fetches],
            feed_list=[_tensor_name(definition.inputs, name) for name in feeds],
        )
        if len(self._callables) >= MAXIMUM_CALLABLES:
            self._callables.clear()
        self._callables[signature, feeds, fetches] = run
        return run


def _run_options(timeout_seconds: float | None) -> Any:
    return (
        None if timeout_seconds is None else tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout_seconds * 1000)))
    )


def _tensor_name(tensors: Mapping[str, meta_graph_pb2.TensorInfo], name: str) -> str:
    # Looking up a missing key in a protobuf map would add it.
    if name not in tensors:
        raise KeyError(name)
    tensor_name: str = tensors[name].name
    return tensor_name


def _as_array(value: Any) -> np.ndarray:
    # A session returns a string scalar as plain bytes, which numpy would turn into its own fixed-width type.
    return np.array(value, np.object_) if isinstance(value, bytes) else np.asarray(value)
