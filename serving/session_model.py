"""A SavedModel loaded as TensorFlow Serving loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session


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
        self._tensors = {name: _SignatureTensors(graph, signature) for name, signature in self.signatures.items()}

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
        tensors = self._tensors[signature]
        fetches = sorted(self.signatures[signature].outputs if outputs is None else outputs)
        feeds: dict[Any, np.ndarray] = {}
        for name, array in inputs.items():
            reference, dtype = tensors.fed(name)
            feeds[reference] = np.asarray(array, dtype)
        values = self._run(feeds, [tensors.fetched(name) for name in fetches], timeout_seconds)
        return {name: _as_array(value) for name, value in zip(fetches, values, strict=True)}

    def unset_variables(self) -> list[str]:
        """The variables that a signature reads and that loading has not filled: every request would fail on them.

        What `tf.saved_model.save(model, signatures=…)` writes of a Keras 3 model is of this kind.
        """
        graph = self._session.graph
        outputs = [info.name for signature in self.signatures.values() for info in signature.outputs.values()]
        # A name is that of a tensor, or that of an operation without output, such as the one that initialises.
        handles = _variables_read([graph.get_operation_by_name(name.partition(":")[0]) for name in outputs if name])
        with graph.as_default():
            filled = self._session.run(
                [tf.raw_ops.VarIsInitializedOp(resource=handle.outputs[0]) for handle in handles]
            )
        return sorted(handle.name for handle, is_filled in zip(handles, filled, strict=True) if not is_filled)

    def close(self) -> None:
        """Free the session and its weights."""
        self._session.close()

    def _run(
        self, feeds: Mapping[Any, np.ndarray], fetches: Sequence[tf.Tensor], timeout_seconds: float | None
    ) -> Sequence[Any]:
        options = None
        if timeout_seconds is not None:
            wanted = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(timeout_seconds * 1000)))
            options = tf_session.TF_NewBufferFromString(wanted.SerializeToString())
        try:
            # Not by Session.run, which refuses what does not have the shape of a placeholder. TensorFlow Serving leaves
            # that to the graph: it may take it all the same, or say better what is wrong with it.
            values: Sequence[Any] = self._session._do_run(None, [], fetches, feeds, options, None)
        except UnicodeDecodeError as error:
            # An op's message quotes a value that is no UTF-8, on which Python's session fails and loses the code.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from error
        finally:
            if options is not None:
                tf_session.TF_DeleteBuffer(options)
        return values


class _SignatureTensors:
    """The tensors that a signature names, each looked up once: looking up takes as long as running a small graph."""

    def __init__(self, graph: tf.Graph, signature: meta_graph_pb2.SignatureDef) -> None:
        self._graph = graph
        self._inputs = {name: info.name for name, info in signature.inputs.items()}
        self._outputs = {name: info.name for name, info in signature.outputs.items()}
        self._fed: dict[str, tuple[Any, type]] = {}
        self._fetched: dict[str, tf.Tensor] = {}

    def fed(self, name: str) -> tuple[Any, type]:
        """What an input's value is fed as, and its numpy type; a KeyError where there is no such input."""
        if name not in self._fed:
            tensor = self._graph.get_tensor_by_name(self._inputs[name])
            self._fed[name] = tensor.ref(), tensor.dtype.as_numpy_dtype
        return self._fed[name]

    def fetched(self, name: str) -> tf.Tensor:
        """The tensor of an output; a KeyError where there is no such output."""
        if name not in self._fetched:
            self._fetched[name] = self._graph.get_tensor_by_name(self._outputs[name])
        return self._fetched[name]


def _variables_read(operations: Sequence[tf.Operation]) -> list[tf.Operation]:
    """The handles of the variables from which these operations are computed."""
    ahead, seen = list(operations), set(operations)
    while ahead:
        operation = ahead.pop()
        for source in (*(tensor.op for tensor in operation.inputs), *operation.control_inputs):
            if source not in seen:
                seen.add(source)
                ahead.append(source)
    return [operation for operation in seen if operation.type == "VarHandleOp"]


def _as_array(value: Any) -> np.ndarray:
    # A session returns a string scalar as plain bytes, which numpy would turn into its own fixed-width type.
    return np.array(value, np.object_) if isinstance(value, bytes) else np.asarray(value)
