"""The features that a head sees."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def pooled_blocks(backbone: keras.Model, blocks: Sequence[str]) -> dict[str, keras.KerasTensor]:
    """Block -> the mean of each of its channels over height and width, [batch, channels]; vectors stay as they are."""
    outputs = {name: backbone.get_layer(name).output for name in blocks}
    return {
        name: keras.layers.GlobalAveragePooling2D()(output) if len(output.shape) == 4 else output
        for name, output in outputs.items()
    }


def joined(features: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """One vector of several, [batch, channels of all]."""
    return features[0] if len(features) == 1 else keras.layers.Concatenate()(list(features))
