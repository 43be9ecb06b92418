"""Write a model with every signature as one SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SERVING_DEFAULT = "serving_default"
CLASSIFY = "classify"
SERVE_EXAMPLES = "serve_examples"
TRANSFORM_FEATURES = "transform_features"

# The label's number among the transformed features.
LABEL = "label"


class ServedModel(tf.Module):
    """What an export holds; attributes of tf.Module type bring their tables and assets along.

    Args:
        signatures: signature name -> function of the raw inputs, and the specs of those inputs by name.
        resources: what the functions use of tables and assets.
    """

    def __init__(
        self,
        signatures: Mapping[str, tuple[Callable[..., Mapping[str, tf.Tensor]], Mapping[str, tf.TensorSpec]]],
        resources: Mapping[str, Any],
    ) -> None:
        super().__init__(name="served_model")
        self.resources = dict(resources)
        self.concrete_signatures = {
            # Without autograph, which takes seconds and finds nothing to convert.
            name: tf.function(function, autograph=False).get_concrete_function(**inputs)
            for name, (function, inputs) in signatures.items()
        }


def export(model: ServedModel, path: str) -> None:
    """Write the SavedModel; TensorFlow Serving's session loader accepts it, for it has no Keras variable."""
    tf.saved_model.save(model, path, signatures=model.concrete_signatures)


def freeze(function: Callable[..., tf.Tensor], *inputs: tf.TensorSpec) -> Callable[..., tf.Tensor]:
    """The function with its variables as constants: all signatures share it, so the weights are in the file once."""
    frozen = frozen_function(function, *inputs)

    def call(*values: tf.Tensor) -> tf.Tensor:
        (output,) = frozen(*values)
        return output

    return call


def frozen_function(function: Callable[..., tf.Tensor], *inputs: tf.TensorSpec) -> Any:
    """A concrete function with one graph of core operations: its variables are constants, its calls are inlined."""
    return convert_variables_to_constants_v2(tf.function(function, autograph=False).get_concrete_function(*inputs))
