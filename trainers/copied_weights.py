"""Weights that go from one layer to another."""

from __future__ import annotations

import keras


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Give a layer, or a model that is one, the weights of another of the same build."""
    target.set_weights(source.get_weights())
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # It computes with copies of its weights.
            layer.finalize_state()
