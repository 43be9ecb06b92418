"""Backbones without their heads: their pixels, their weights, the blocks where they are cut, and the choice of one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import binomtest

from serving.signatures.common import LABEL
from serving.signatures.image import IMAGE
from trainers.blending import mean_and_error
from trainers.errors import TrainingError, first_line
from trainers.image.batches import BATCH_SIZE, ImageTraining, kept_photos
from trainers.image.heads import chosen_blocks, ridge_head
from trainers.image.options import BACKBONES, BLUE_GREEN_RED, IMAGENET, NO_WEIGHTS, STANDARDISED, FineTuneOptions
from trainers.image.precision import float32_function
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


def image_backbone(name: str, weights: str, preprocessing: ImageOptions, for_several: bool = False) -> keras.Model:
    """A Keras model from pixels as `preprocessing` makes them to what the last block makes of them.

    Args:
        name: one of trainers.image.backbones.BACKBONES.
        weights: `imagenet`, `none`, the path of a .weights.h5 file of the backbone or of a .keras file, or the
            directory or handle of a TF-Hub model.
        preprocessing: size and scaling of the pixels.
        for_several: whether they were made for several backbones, from 0 to 255 and large enough for each: then the
            model begins by making of them what its own was trained on.

    Raises:
        TrainingError: the weights cannot be had, or do not fit.
    """
    shape = (preprocessing.height, preprocessing.width, 3)
    pixels = as_trained = keras.Input(shape, name="pixels")
    if for_several:
        own = BACKBONES[name]
        shape = (min(own.height, preprocessing.height), min(own.width, preprocessing.width), 3)
        if shape != pixels.shape[1:]:
            as_trained = keras.layers.Resizing(*shape[:2], antialias=preprocessing.antialias)(as_trained)
        if own.scaling == "minus_one_to_one":
            as_trained = keras.layers.Rescaling(1 / 127.5, -1.0)(as_trained)
    as_trained = pixels_as_trained(name, as_trained) if preprocessing.scaling == "raw" else as_trained
    if weights == IMAGENET:
        return _with_imagenet_weights(name, shape, as_trained)
    if weights.endswith(".keras"):
        return _from_keras_file(weights, shape)
    if weights != NO_WEIGHTS and not weights.endswith(".h5"):
        return _from_saved_model(weights, pixels)
    backbone = _construct(name, shape, as_trained)
    if weights != NO_WEIGHTS:
        # The file knows nothing of the layers that turn pixels into what the backbone was trained on.
        bare = backbone if as_trained is pixels else keras.Model(as_trained, backbone.output)
        _load_weights(bare, name, weights)
    return backbone


def _construct(name: str, shape: Shape, pixels: keras.KerasTensor, weights: str | None = None) -> keras.Model:
    try:
        backbone = getattr(keras.applications, name)(
            include_top=False, weights=weights, input_shape=shape, input_tensor=pixels
        )
    except ValueError as error:
        raise TrainingError(
            f"{name} cannot take photos of {shape[0]}x{shape[1]} pixels: {first_line(error)}; give other "
            "preprocessing.height and preprocessing.width, or leave them out"
        ) from error
    # Of pixels behind other layers it makes a list of one input.
    return keras.Model(backbone.inputs[0], backbone.output) if isinstance(backbone.input, list) else backbone


class _NotDownloaded(TrainingError):
    """There are no weights of one backbone; where several are tried, the others may have theirs."""


def _with_imagenet_weights(name: str, shape: Shape, pixels: keras.KerasTensor) -> keras.Model:
    try:
        return _construct(name, shape, pixels, IMAGENET)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        if isinstance(error, TrainingError) or "URL fetch failure" not in str(error):
            raise
        raise _NotDownloaded(
            f"the ImageNet weights of {name} cannot be downloaded ({first_line(error)}); set trainer.weights to a "
            ".weights.h5 file without the head, a .keras file or the directory of a TF-Hub model, or to none"
        ) from error


def _load_weights(backbone: keras.Model, name: str, path: str) -> None:
    try:
        backbone.load_weights(path)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path}: these weights cannot be loaded into a {name} without its head: {first_line(error)}; "
            "trainer.weights takes what save_weights made of keras.applications' model with include_top=False"
        ) from error


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


# Candidates are compared by so many photos, or so many of each class; those that are clearly worse by the first ones do
# not see the others. The standard error of an accuracy of 0.95 is then a hundredth.
_ROUNDS, _ROUNDS_OF_EACH_CLASS = (150, 400), (6, 16)
_CLEARLY = 3  # standard errors of the difference
_CHOICE_FILE = "backbone.json"
_TIMED_TURNS = 9


def with_chosen_backbone(
    training: ImageTraining, preprocessing: ImageOptions
) -> tuple[FineTuneOptions, dict[str, Any]]:
    """The options with the candidate that is kept by name, and what the provenance says of all.

    Each candidate's blocks are chosen, and its head solved, on features of the first photos of the split; it is judged
    by those photos, each left out of its head, and by the time that it takes for one photo. A training that was killed
    goes on with what it had chosen.

    Args:
        training: the photos, and the options with `backbone: auto`.
        preprocessing: size and scaling of the pixels.

    Raises:
        TrainingError: no candidate's weights can be had.
    """
    options, file = training.options, training.folder / _CHOICE_FILE
    candidates = options.candidates()
    if file.exists():
        report = json.loads(file.read_text(encoding="utf-8"))
    else:
        report = _compared(candidates, training, preprocessing)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(report), encoding="utf-8")
        unfinished.rename(file)
    kept = report["kept"]
    # Not validated again: `prefer` has done its work, and stays in the options for who reads them.
    return options.model_copy(update={"backbone": kept, "weights": candidates[kept]}), report


@dataclass(frozen=True)
class _Trial:
    """How a candidate does.

    Attributes:
        backbone: the network.
        labels: int64 [photos], the number of each one's label.
        values: block -> its pooled features, float32 [photos, channels].
        blocks: that the head sees.
        right: bool [photos], which ones it tells.
        seconds: that the trial took.
    """

    backbone: keras.Model
    labels: np.ndarray
    values: Mapping[str, np.ndarray]
    blocks: Sequence[str] = ()
    right: np.ndarray = field(default_factory=lambda: np.zeros([0], bool))
    seconds: float = 0.0

    def as_provenance(self, milliseconds: float) -> dict[str, Any]:
        found = binomtest(int(self.right.sum()), len(self.right))
        low, high = found.proportion_ci(method="wilson")
        return {
            "accuracy": [found.statistic, low, high],
            "photos": len(self.right),
            "milliseconds": milliseconds,
            "seconds": round(self.seconds, 2),
            "blocks": list(self.blocks),
        }


def _compared(candidates: Mapping[str, str], training: ImageTraining, preprocessing: ImageOptions) -> dict[str, Any]:
    trials: dict[str, _Trial] = {}
    left_out: dict[str, str] = {}
    for name, weights in candidates.items():
        keras.utils.set_random_seed(training.options.seed)
        try:
            backbone = image_backbone(name, weights, preprocessing, for_several=True)
        except _NotDownloaded as error:
            left_out[name] = str(error.__cause__).splitlines()[0]
        else:
            nothing = {block: np.zeros([0, 0], np.float32) for block in backbone_blocks(backbone)}
            trials[name] = _Trial(backbone, np.zeros([0], np.int64), nothing)
    if not trials:
        raise TrainingError(
            "trainer.backbone: auto has nothing to choose from: the ImageNet weights of "
            f"{', '.join(left_out)} cannot be downloaded ({next(iter(left_out.values()))}); set trainer.weights to a "
            "folder of files such as InceptionV3.weights.h5"
        )
    begin, compared = 0, list(trials)
    for photos, of_each_class in zip(_ROUNDS, _ROUNDS_OF_EACH_CLASS, strict=True):
        end = max(photos, of_each_class * training.classes)
        records = training.photos.records.skip(begin).take(end - begin)
        trials |= {name: _continued(trials[name], records, training) for name in compared}
        best = max((trials[name].right for name in compared), key=np.sum)
        compared = [name for name in compared if not _is_worse(trials[name].right, best, _CLEARLY)]
        begin = end
    milliseconds = {name: _milliseconds(_cut_off(trial)) for name, trial in trials.items()}
    kept, why = kept_backbone({name: trials[name].right for name in compared}, milliseconds, training.options.prefer)
    return {
        "kept": kept,
        "why": why,
        "members": {name: trial.as_provenance(milliseconds[name]) for name, trial in trials.items()},
        "left_out": sorted(left_out),
    }


def _continued(trial: _Trial, records: tf.data.Dataset, training: ImageTraining) -> _Trial:
    """The trial with more photos."""
    started = time.monotonic()
    pooled = keras.Model(trial.backbone.input, pooled_blocks(trial.backbone, list(trial.values)))

    @tf.function(autograph=False, reduce_retracing=True)
    def features(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = pooled(pixels, training=False)
        return outputs

    labels = [trial.labels]
    parts = {block: [values] if len(values) else [] for block, values in trial.values.items()}
    # The files hold photos in an order that has nothing to do with their classes.
    for batch in map(kept_photos(training.options), training.photos.read(BATCH_SIZE, records)):
        labels.append(batch[LABEL].numpy())
        for block, values in features(batch[IMAGE]).items():
            parts[block].append(values.numpy())
    if len(labels) == 1:  # there are no more
        return trial
    told, values = np.concatenate(labels), {block: np.concatenate(of_block) for block, of_block in parts.items()}
    judging = told, training.classes, training.class_weights[told], np.arange(len(told))
    blocks = chosen_blocks(values, *judging)
    head = ridge_head(np.concatenate([values[block] for block in blocks], axis=1), *judging)
    seconds = trial.seconds + time.monotonic() - started
    return _Trial(trial.backbone, told, values, blocks, head.right, seconds)


def _cut_off(trial: _Trial) -> keras.Model:
    """The network up to the last block that its head sees."""
    backbone = trial.backbone
    return keras.Model(backbone.input, joined(list(pooled_blocks(backbone, trial.blocks).values())))


def _milliseconds(model: keras.Model) -> float:
    """What a model takes for a photo, as it is served; the median of some turns."""
    pixels = tf.TensorSpec([None, *model.input.shape[1:]], tf.float32)
    served = float32_function(lambda batch: model(batch, training=False), pixels)
    photo = tf.random.stateless_uniform([1, *model.input.shape[1:]], [0, 0], 0, 255)
    turns = []
    for _ in range(_TIMED_TURNS + 1):
        started = time.perf_counter()
        served(photo).numpy()
        turns.append(time.perf_counter() - started)
    return round(1000 * float(np.median(turns[1:])), 2)  # in the first one TensorFlow optimises the graph


def kept_backbone(right: Mapping[str, np.ndarray], milliseconds: Mapping[str, float], prefer: str) -> tuple[str, str]:
    """The candidate that is kept, by name, and why, for a person.

    Args:
        right: bool [photos], which of the same photos each candidate tells, by their names.
        milliseconds: for a photo.
        prefer: `accuracy`: the candidate that tells most photos, of equals the fastest; `speed`: the fastest of those
            that tell fewer by no more than the standard error of the difference.
    """
    most = max(int(told.sum()) for told in right.values())
    best = min((name for name, told in right.items() if told.sum() == most), key=lambda name: milliseconds[name])
    if prefer == "accuracy":
        return best, "it tells most photos"
    kept = min((name for name in right if not _is_worse(right[name], right[best])), key=lambda name: milliseconds[name])
    if kept == best:
        return best, "none that is faster tells as many photos within the standard error"
    return kept, f"{best}, which tells most photos, tells more by no more than the standard error, and is slower"


def _is_worse(right: np.ndarray, best: np.ndarray, errors: float = 1) -> bool:
    """Whether it tells fewer of the same photos than the best by more than so many standard errors."""
    fewer, error = mean_and_error(best.astype(float) - right)
    return fewer > errors * error
