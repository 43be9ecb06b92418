"""Where a backbone can be cut."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from trainers.training_error import TrainingError

_MERGES = (keras.layers.Concatenate, keras.layers.Add)


def backbone_blocks(backbone: keras.Model) -> list[str]:
    """The names of the layers that end a block, in order; the last layer of the backbone is always the last of them.

    A block ends where branches are merged and all that follows depends on the merged tensor alone, as with `mixed0` to
    `mixed10` of InceptionV3. Of a backbone without branches, each convolution or pooling is a block.
    """
    layers = backbone.layers
    place = {layer.name: number for number, layer in enumerate(layers)}
    last_use = {layer.name: place[layer.name] for layer in layers}
    for layer in layers:
        # A layer may be used by other models too.
        for source in filter(place.__contains__, _sources(layer)):
            last_use[source] = max(last_use[source], place[layer.name])
    branches = any(isinstance(layer, _MERGES) for layer in layers)
    blocks, reach = [], 0
    for number, layer in enumerate(layers[:-1]):
        # Nothing before this layer is used behind it.
        alone = reach <= number
        reach = max(reach, last_use[layer.name])
        if alone and (isinstance(layer, _MERGES) if branches else _is_spatial(layer)):
            blocks.append(layer.name)
    last = layers[-1].name
    if blocks and layers[-1] in _after(backbone.get_layer(blocks[-1]), layers):
        blocks.pop()  # only its normalization and activation follow
    return [*blocks, last]


def check_blocks(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is no block.

    Raises:
        TrainingError: it names the blocks there are.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TrainingError(
            f"trainer.blocks names {unknown[0]!r}, no block of this backbone; its blocks are {', '.join(known)}"
        )


def _sources(layer: keras.Layer) -> list[str]:
    return [parent.operation.name for node in layer._inbound_nodes for parent in node.parent_nodes]


def _is_spatial(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.MaxPooling2D | keras.layers.DepthwiseConv2D)


def _after(layer: keras.Layer, layers: list[keras.Layer]) -> list[keras.Layer]:
    """The layers behind `layer` that change nothing but values."""
    behind = []
    for following in layers[layers.index(layer) + 1 :]:
        if not isinstance(following, keras.layers.BatchNormalization | keras.layers.Activation | keras.layers.ReLU):
            break
        behind.append(following)
    return behind
