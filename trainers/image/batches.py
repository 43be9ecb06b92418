"""Training batches of images and of features: decoded, augmented, shuffled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from serving.signatures.common import LABEL
from serving.signatures.image import IMAGE
from trainers.image.options import AugmentationOptions, FineTuneOptions
from trainers.image.splits import Batch, Images, ImageSplit, is_held_out, is_usable
from transform.options import Scaling


@dataclass(frozen=True)
class ImageTraining:
    """Photos to learn from, and how.

    Attributes:
        photos: the training split.
        split: what is known of it besides the pixels.
        classes: how many labels there are.
        scaling: the range of the pixels.
        options: how to train.
        folder: features and the states of epochs, for a training that is killed to go on with.
    """

    photos: Images
    split: ImageSplit
    classes: int
    scaling: Scaling
    options: FineTuneOptions
    folder: Path

    @property
    def rows(self) -> np.ndarray:
        """Which of the split's photos are trained on: without those that early stopping looks at."""
        if self.options.early_stopping_patience is None:
            return np.arange(len(self.split.labels))
        return np.flatnonzero(~self.split.held_out)

    @property
    def class_weights(self) -> np.ndarray:
        """float [classes]: how much a photo of each class counts, 1 in the mean over all photos."""
        labels = self.split.labels
        if self.options.class_weights == "none":
            return np.ones(self.classes)
        return len(labels) / (self.classes * np.maximum(np.bincount(labels, minlength=self.classes), 1))

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.options.batch_size)


_RANGES: dict[Scaling, tuple[float, float]] = {
    "minus_one_to_one": (-1.0, 1.0),
    "zero_to_one": (0.0, 1.0),
    "raw": (0.0, 255.0),
}
# How bright red, green and blue are, ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def augmented(pixels: tf.Tensor, options: AugmentationOptions, scaling: Scaling, seed: tf.Tensor) -> tf.Tensor:
    """The photos, each changed at random: the same shape and range.

    Args:
        pixels: float32 [batch, height, width, 3], in the range that `scaling` names.
        options: which changes.
        scaling: the range.
        seed: int64 [2]; the same seed makes the same changes.
    """
    count = tf.shape(pixels)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 7))
    if options.flip:
        flipped = tf.random.stateless_uniform([count, 1, 1, 1], seeds[0]) < 0.5
        pixels = tf.where(flipped, tf.reverse(pixels, [2]), pixels)
    if options.crop:
        size = 1 - options.crop * tf.random.stateless_uniform([count, 2], seeds[1])
        corner = (1 - size) * tf.random.stateless_uniform([count, 2], seeds[2])
        boxes = tf.concat([corner, corner + size], axis=1)
        cropped = tf.image.crop_and_resize(pixels, boxes, tf.range(count), tf.shape(pixels)[1:3])
        pixels = tf.ensure_shape(cropped, pixels.shape)
    if options.colour:
        pixels = _recoloured(pixels, options.colour, _RANGES[scaling], seeds[3:6])
    if options.grey:
        chosen = tf.random.stateless_uniform([count, 1, 1, 1], seeds[6]) < options.grey
        pixels = tf.where(chosen, greyed(pixels), pixels)
    return pixels


def greyed(pixels: tf.Tensor) -> tf.Tensor:
    """The photos without their colours, as a grey file is decoded: the same shape and range."""
    grey = tf.reduce_sum(pixels * tf.constant(_LUMA), axis=3, keepdims=True)
    return tf.broadcast_to(grey, tf.shape(pixels))


def _recoloured(pixels: tf.Tensor, share: float, limits: tuple[float, float], seeds: list[tf.Tensor]) -> tf.Tensor:
    lowest, highest = limits
    brightness, contrast, saturation = (
        tf.random.stateless_uniform([tf.shape(pixels)[0], 1, 1, 1], seed, 1 - share, 1 + share) for seed in seeds
    )
    pixels = lowest + (pixels - lowest) * brightness
    mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
    pixels = mean + (pixels - mean) * contrast
    grey = tf.reduce_sum(pixels * tf.constant(_LUMA), axis=3, keepdims=True)
    return tf.clip_by_value(grey + (pixels - grey) * saturation, lowest, highest)


# Encoded photos in memory. The files hold them in an order that has nothing to do with their classes already.
SHUFFLED = 512


def image_training_batches(training: ImageTraining) -> Callable[[int], tf.data.Dataset]:
    """The first epoch -> batches of pixels, one-hot labels and weights, without end, in a new order in each epoch."""
    options, photos, weights = training.options, training.photos, training.class_weights

    def batches(first: int) -> tf.data.Dataset:
        seed = options.seed * 1000 + first

        @tf.autograph.experimental.do_not_convert
        def changed(step: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            pixels = augmented(batch[IMAGE], options.augmentation, training.scaling, tf.stack([seed, step]))
            return pixels, *targets(batch[LABEL], weights)

        records = photos.records.shuffle(SHUFFLED, seed=seed, reshuffle_each_iteration=True).repeat()
        kept = photos.batches(options.batch_size, records).map(kept_photos(options))
        return kept.unbatch().batch(options.batch_size).enumerate().map(changed).prefetch(1)

    return batches


def held_out_images(training: ImageTraining) -> tf.data.Dataset:
    """Batches of the photos that early stopping looks at."""
    weights = training.class_weights

    @tf.autograph.experimental.do_not_convert
    def held_out(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        chosen = tf.logical_and(is_usable(batch), is_held_out(batch))
        return tf.boolean_mask(batch[IMAGE], chosen), *targets(tf.boolean_mask(batch[LABEL], chosen), weights)

    return training.photos.batches(training.options.batch_size).map(held_out)


def targets(labels: tf.Tensor, class_weights: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """float32 [batch, classes] and float32 [batch]: one-hot labels, and how much each photo counts."""
    return tf.one_hot(labels, len(class_weights)), tf.gather(tf.constant(class_weights, tf.float32), labels)


def kept_photos(options: FineTuneOptions) -> Callable[[Batch], Batch]:
    """A batch -> `image` and `label` of the photos that are trained on."""

    @tf.autograph.experimental.do_not_convert
    def kept(batch: Batch) -> Batch:
        chosen = is_usable(batch)
        if options.early_stopping_patience:
            chosen = tf.logical_and(chosen, tf.logical_not(is_held_out(batch)))
        return {name: tf.boolean_mask(batch[name], chosen) for name in (IMAGE, LABEL)}

    return kept


BATCH_SIZE = 32


@dataclass(frozen=True)
class FrozenFeatures:
    """What a model gives for photos, and for changed copies of them.

    Attributes:
        values: output name -> [rows, ...]; the first rows are of the photos as they are.
        photos: int64 [rows], of which photo each row is.
    """

    values: Mapping[str, np.ndarray]
    photos: np.ndarray

    def of_photos(self, chosen: np.ndarray) -> FrozenFeatures:
        """The rows of some photos, in memory, which are counted anew.

        Args:
            chosen: int64 [m], ascending.
        """
        kept = np.isin(self.photos, chosen)
        values = {name: rows[kept] for name, rows in self.values.items()}
        return FrozenFeatures(values, np.searchsorted(chosen, self.photos[kept]))

    @property
    def judged(self) -> np.ndarray:
        """int64 [m]: rows to compare by: of the photos as they are, without those that have copies, if most have none.

        What is learned from a copy of a photo makes the photo easier.
        """
        copies = np.bincount(self.photos)
        alone = np.flatnonzero(copies == 1)
        return alone if 2 * len(alone) >= len(copies) else np.arange(len(copies))


def frozen_features(model: keras.Model, training: ImageTraining, name: str) -> FrozenFeatures:
    """What the model gives for each usable photo and its changed copies, mapped from files.

    Where an earlier, killed training has left the files complete, they are read.

    Args:
        model: pixels -> tensors by name. Those with a height and width are kept as float16, vectors as float32.
        training: the photos, and how they are changed.
        name: of the folder in that of the training.
    """
    shapes = {output: tuple(tensor.shape[1:]) for output, tensor in model.output.items()}
    folder = training.folder / name
    if not folder.exists():
        unfinished = training.folder / f"{name}.unfinished"
        unfinished.mkdir(exist_ok=True)
        _compute(model, training, shapes, unfinished)
        unfinished.rename(folder)
    values = {output: np.load(_file(folder, output), mmap_mode="r") for output in shapes}
    return FrozenFeatures(values, _photos_of_rows(training))


def _photos_of_rows(training: ImageTraining) -> np.ndarray:
    """int64 [rows]: the photos as they are, and their changed copies, or the grey ones of some of them."""
    changes, photos = training.options.augmentation, np.arange(len(training.split.labels))
    if changes.changes:
        return np.tile(photos, 1 + changes.copies)
    chance = np.random.default_rng(training.options.seed)
    return np.concatenate([photos, np.sort(chance.permutation(photos)[: round(changes.grey * len(photos))])])


def _compute(model: keras.Model, training: ImageTraining, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    changes, seed, scaling = training.options.augmentation, training.options.seed, training.scaling
    photos = len(training.split.labels)
    of_rows = _photos_of_rows(training)
    copies, grey = (1 + changes.copies, of_rows[:0]) if changes.changes else (1, of_rows[photos:])
    files = {
        output: np.lib.format.open_memmap(
            _file(folder, output),
            "w+",
            np.float32 if len(shape) == 1 else np.float16,
            (len(of_rows), *shape),
        )
        for output, shape in shapes.items()
    }

    @tf.function(autograph=False, reduce_retracing=True)
    def features(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = model(pixels, training=False)
        return outputs

    start = 0
    for batch in training.photos.read(BATCH_SIZE):
        pixels = tf.boolean_mask(batch[IMAGE], is_usable(batch))
        stop = start + int(pixels.shape[0])
        for copy in range(copies):
            random = tf.constant([seed * 1000 + copy, start], tf.int64)
            made = features(augmented(pixels, changes, scaling, random) if copy else pixels)
            _fill(files, copy * photos + start, made)
        first, last = np.searchsorted(grey, (start, stop))
        if first < last:
            _fill(files, photos + first, features(greyed(tf.gather(pixels, grey[first:last] - start))))
        start = stop
    for file in files.values():
        file.flush()


def _fill(files: Mapping[str, np.ndarray], row: int, made: Mapping[str, tf.Tensor]) -> None:
    for output, values in made.items():
        files[output][row : row + len(values)] = values.numpy()


def _file(folder: Path, output: str) -> Path:
    return folder / f"{output}.npy"


def feature_training_batches(
    features: FrozenFeatures, rows: np.ndarray, training: ImageTraining
) -> Callable[[int], tf.data.Dataset]:
    """The first epoch -> batches of features by name, one-hot labels and weights, without end.

    Each epoch has each photo once, as it is or one of its copies; order and copies go by the epoch's number.

    Args:
        features: on disk; a batch at a time is in memory.
        rows: int [m], which of the photos to train on.
        training: their labels, and how to train.
    """
    options, labels = training.options, training.split.labels
    by_photo, copies = np.argsort(features.photos, kind="stable"), np.bincount(features.photos)
    first_of_photo = np.cumsum(copies) - copies

    def batches(first: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for epoch in itertools.count(first):
            chance = np.random.default_rng((options.seed, epoch))
            order = chance.permutation(rows)
            taken = by_photo[first_of_photo[order] + chance.integers(copies[order])]
            for start in range(0, len(rows), options.batch_size):
                part = slice(start, start + options.batch_size)
                yield _gathered(features, taken[part]), labels[order[part]]

    return lambda first: _dataset(lambda: batches(first), features, training.class_weights)


def held_out_features(features: FrozenFeatures, rows: np.ndarray, training: ImageTraining) -> tf.data.Dataset:
    """Batches of the photos as they are, for early stopping."""

    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for start in range(0, len(rows), training.options.batch_size):
            chosen = rows[start : start + training.options.batch_size]
            yield _gathered(features, chosen), training.split.labels[chosen]

    return _dataset(batches, features, training.class_weights)


def _gathered(features: FrozenFeatures, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows].astype(np.float32) for name, values in features.values.items()}


def _dataset(
    batches: Callable[[], Iterator[tuple[dict[str, np.ndarray], np.ndarray]]],
    features: FrozenFeatures,
    class_weights: np.ndarray,
) -> tf.data.Dataset:
    specs = {name: tf.TensorSpec([None, *values.shape[1:]], tf.float32) for name, values in features.values.items()}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=(specs, tf.TensorSpec([None], tf.int64)))
    weighed = tf.autograph.experimental.do_not_convert(lambda values, labels: (values, *targets(labels, class_weights)))
    return dataset.map(weighed).prefetch(1)
