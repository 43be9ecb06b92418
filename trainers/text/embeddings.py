"""Text embeddings that exist, from TF-Hub or a SavedModel, and the network over one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from serving.signatures.common import frozen_function
from trainers.artifacts import load_saved_model
from trainers.errors import TrainingError, first_line

SIGNATURES = ("serving_default", "default")
PROBE = ["a text", ""]


class TextEmbedding(tf.Module):
    """A TF-Hub text embedding or another SavedModel of texts: its weights are constants, its tables stay tables.

    Args:
        handle: a TF-Hub handle, or a directory with saved_model.pb.

    Raises:
        TrainingError: it cannot be loaded, does not take texts, does not give one vector for each, or holds tables that
            cannot be written into another model.
    """

    def __init__(self, handle: str) -> None:
        super().__init__(name="text_embedding")
        loaded = load_saved_model(handle, "trainer.handle")
        texts = tf.TensorSpec([None], tf.string)
        try:
            concrete = tf.function(_embedding_function(loaded, handle), autograph=False).get_concrete_function(texts)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise TrainingError(f"{handle} takes no texts, string [n]: {first_line(error)}; choose another") from error
        self._frozen = frozen_function(concrete, texts)
        self._handles = _table_handles(concrete)
        # An attribute, so that the export takes the tables and their files along.
        self.tables = _tables(loaded, self._handles)
        if len(self.tables) != len(self._handles) or len(self._frozen.inputs) != 1 + len(self._handles):
            raise TrainingError(
                f"{handle} holds tables that cannot be written into another model, as models in TF-Hub's format of "
                "TensorFlow 1 do; choose a later version of it, or another model"
            )
        self.width = _width(self(tf.constant(PROBE)), handle)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """float32 [n, width]: the embedding of texts, string [n]; 0 where the model answers with NaN or infinity."""
        vectors = tf.cast(self._frozen(texts, *self._handles)[0], tf.float32)
        # A mean over no known word is 0 / 0 in some models.
        return tf.where(tf.math.is_finite(vectors), vectors, 0.0)


def _embedding_function(loaded: Any, handle: str) -> Callable[[tf.Tensor], tf.Tensor]:
    if callable(loaded):
        return lambda texts: loaded(texts)
    names = [name for name in SIGNATURES if name in loaded.signatures]
    if not names:
        raise TrainingError(f"{handle} cannot be called, and has no signature {' or '.join(SIGNATURES)}")
    signature = loaded.signatures[names[0]]
    inputs, outputs = list(signature.structured_input_signature[1]), list(signature.structured_outputs)
    output = outputs[0] if len(outputs) == 1 else "default"
    if len(inputs) != 1 or output not in outputs:
        raise TrainingError(
            f"{handle} takes {', '.join(inputs)} and gives {', '.join(outputs)}; expected one input, the texts, and "
            "one output or one called default"
        )
    return lambda texts: signature(**{inputs[0]: texts})[output]


def _table_handles(concrete: Any) -> list[tf.Tensor]:
    """The resources that the function uses and that are no variables, in the order in which it takes them."""
    variables = {id(variable.handle) for variable in concrete.graph.variables}
    return [
        capture
        for capture in concrete.graph.external_captures
        if capture.dtype == tf.resource and id(capture) not in variables
    ]


def _tables(loaded: Any, handles: Sequence[tf.Tensor]) -> list[Any]:
    wanted = {id(handle) for handle in handles}
    return [
        found
        for found in tf.train.TrackableView(loaded).descendants()
        if id(getattr(found, "resource_handle", None)) in wanted
    ]


def _width(vectors: tf.Tensor, handle: str) -> int:
    if vectors.shape.rank != 2 or vectors.shape[0] != len(PROBE):
        raise TrainingError(
            f"{handle} answers {len(PROBE)} texts with {vectors.shape}, expected [{len(PROBE)}, width]: one vector for "
            "each; choose an embedding of whole texts"
        )
    return int(vectors.shape[1])
