"""What the frozen part of a backbone makes of photos: computed once, kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from serving.signatures.image import IMAGE
from trainers.augmented import augmented
from trainers.photo_training import PhotoTraining
from trainers.photos import is_usable

BATCH_SIZE = 32


def frozen_features(model: keras.Model, training: PhotoTraining, name: str) -> dict[str, np.ndarray]:
    """Output name -> what the model gives for each usable photo, [copies, n, ...], mapped from a file.

    Copy 0 is of the photos as they are, the others of changed ones. Where an earlier, killed training has left the
    files complete, they are read.

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
    return {output: np.load(_file(folder, output), mmap_mode="r") for output in shapes}


def _compute(model: keras.Model, training: PhotoTraining, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    changes, seed, scaling = training.options.augmentation, training.options.seed, training.scaling
    copies = 1 + changes.copies * changes.changes
    files = {
        output: np.lib.format.open_memmap(
            _file(folder, output),
            "w+",
            np.float32 if len(shape) == 1 else np.float16,
            (copies, len(training.split.labels), *shape),
        )
        for output, shape in shapes.items()
    }

    @tf.function(autograph=False, reduce_retracing=True)
    def features(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = model(pixels, training=False)
        return outputs

    start = 0
    for batch in training.photos.batches(BATCH_SIZE):
        pixels = tf.boolean_mask(batch[IMAGE], is_usable(batch))
        stop = start + int(pixels.shape[0])
        for copy in range(copies):
            random = tf.constant([seed * 1000 + copy, start], tf.int64)
            made = features(augmented(pixels, changes, scaling, random) if copy else pixels)
            for output, values in made.items():
                files[output][copy, start:stop] = values.numpy()
        start = stop
    for file in files.values():
        file.flush()


def _file(folder: Path, output: str) -> Path:
    return folder / f"{output}.npy"
