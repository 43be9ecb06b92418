"""Backbones without their heads: their pixels, their weights, and the blocks where they are cut."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from trainers.errors import TrainingError, first_line
from trainers.image.options import BLUE_GREEN_RED, IMAGENET, NO_WEIGHTS, STANDARDISED
from trainers.warm_start import copy_weights
from transform.options import ImageOptions

# Of ImageNet's photos: in the order blue, green, red, from 0 to 255; and in the order red, green, blue, from 0 to 1.
_MEAN_BLUE_GREEN_RED = (103.939, 116.779, 123.68)
_MEAN_RED_GREEN_BLUE = (0.485, 0.456, 0.406)
_DEVIATION_RED_GREEN_BLUE = (0.229, 0.224, 0.225)


def pixels_as_trained(name: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """From pixels of 0 to 255 to what the model of this name takes; most do it themselves, for some it is done here."""
    if name in BLUE_GREEN_RED:
        centred = keras.layers.Normalization(mean=_MEAN_BLUE_GREEN_RED, variance=[1.0] * 3)
        return centred(keras.ops.flip(pixels, axis=-1))
    if name in STANDARDISED:
        mean = [255 * value for value in _MEAN_RED_GREEN_BLUE]
        variance = [(255 * value) ** 2 for value in _DEVIATION_RED_GREEN_BLUE]
        return keras.layers.Normalization(mean=mean, variance=variance)(pixels)
    return pixels


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


Shape = tuple[int, int, int]


def image_backbone(name: str, weights: str, preprocessing: ImageOptions) -> keras.Model:
    """A Keras model from pixels as `preprocessing` makes them to what the last block makes of them.

    Args:
        name: one of trainers.image.backbones.BACKBONES.
        weights: `imagenet`, `none`, the path of a .weights.h5 file of the backbone or of a .keras file, or the
            directory or handle of a TF-Hub model.
        preprocessing: size and scaling of the pixels.

    Raises:
        TrainingError: the weights cannot be had, or do not fit.
    """
    shape = (preprocessing.height, preprocessing.width, 3)
    pixels = keras.Input(shape, name="pixels")
    as_trained = pixels_as_trained(name, pixels) if preprocessing.scaling == "raw" else pixels
    if weights == IMAGENET:
        return _with_imagenet_weights(name, shape, as_trained)
    if weights.endswith(".keras"):
        return _from_keras_file(weights, shape)
    if weights != NO_WEIGHTS and not weights.endswith(".h5"):
        return _from_saved_model(weights, pixels)
    # Weights go by the order of the layers: they are read before anything is put in front of them.
    backbone = _construct(name, shape, as_trained)
    if weights != NO_WEIGHTS:
        _load_weights(backbone, name, shape, weights)
    return backbone


def _construct(name: str, shape: Shape, pixels: keras.KerasTensor, weights: str | None = None) -> keras.Model:
    try:
        return getattr(keras.applications, name)(
            include_top=False, weights=weights, input_shape=shape, input_tensor=pixels
        )
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {first_line(error)}; give other "
            "preprocessing.height and preprocessing.width, or leave them out"
        ) from error


def _with_imagenet_weights(name: str, shape: Shape, pixels: keras.KerasTensor) -> keras.Model:
    try:
        return _construct(name, shape, pixels, IMAGENET)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        if isinstance(error, TrainingError) or "URL fetch failure" not in str(error):
            raise
        raise TrainingError(
            f"the ImageNet weights of {name} cannot be downloaded ({first_line(error)}); set trainer.weights to a "
            ".weights.h5 file without the head, a .keras file or the directory of a TF-Hub model, or to none"
        ) from error


def _load_weights(backbone: keras.Model, name: str, shape: Shape, path: str) -> None:
    # The file knows nothing of the layers that turn pixels into what the backbone was trained on.
    bare = _construct(name, shape, keras.Input(shape))
    try:
        bare.load_weights(path)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path}: these weights cannot be loaded into a {name} without its head: {first_line(error)}; "
            "trainer.weights takes what save_weights made of keras.applications' model with include_top=False"
        ) from error
    added = len(backbone.layers) - len(bare.layers)
    for layer, source in zip(backbone.layers[added:], bare.layers, strict=True):
        copy_weights(source, layer)


def _from_keras_file(path: str, shape: Shape) -> keras.Model:
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: the model cannot be loaded: {first_line(error)}; save it by Keras 3") from error
    expected = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) != 1 or any(size not in (None, given) for size, given in zip(expected, shape, strict=False)):
        raise TrainingError(
            f"{path}: the model takes {expected}, preprocessing makes {shape}; set preprocessing.height and "
            "preprocessing.width to what it takes"
        )
    return model


def _from_saved_model(path: str, pixels: keras.KerasTensor) -> keras.Model:
    try:
        directory = path
        if "://" in path:
            # Not at the top: an old version of it, which plain pip installs, cannot be imported.
            import tensorflow_hub

            directory = tensorflow_hub.resolve(path)
        return keras.Model(pixels, keras.layers.TFSMLayer(directory, call_endpoint="serving_default")(pixels))
    except Exception as error:
        # Whatever the network, the hub and the loader raise.
        raise TrainingError(
            f"{path}: no TF-Hub model can be loaded from there: {first_line(error)}; set trainer.weights to the "
            "directory of a downloaded one, to a .weights.h5 or .keras file, or to none"
        ) from error
