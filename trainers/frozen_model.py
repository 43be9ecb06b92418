"""A trained model as a function that can be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from serving.export import freeze


def frozen_model(model: keras.Model) -> Callable[[Mapping[str, tf.Tensor]], tf.Tensor]:
    """Features by name -> the model's output; its weights are constants, its inputs a dict by feature name."""
    names = list(model.input)
    frozen = freeze(
        lambda *values: model(dict(zip(names, values, strict=True)), training=False),
        *(tf.TensorSpec([None, *model.input[name].shape[1:]], model.input[name].dtype) for name in names),
    )
    return lambda features: frozen(*(features[name] for name in names))
