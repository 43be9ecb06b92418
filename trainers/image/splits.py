"""Splits of images: read, put through Transform's graph, decoded a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from serving.reference_predictions import ReferencePredictions, example_id, predictions_of
from serving.signatures.common import LABEL
from serving.signatures.image import ERROR, IMAGE
from trainers.image.models import ImageClassifier
from trainers.splits import TransformGraph

# The serialized example, among the features of a batch.
RECORD = "record"

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Images:
    """Photos that stay encoded until their batch is made, so that memory does not grow with their number.

    Attributes:
        records: serialized tf.Examples, one at a time.
        transform: string [batch] of them to the features `image`, `label` and `error`.
    """

    records: tf.data.Dataset
    transform: Callable[[tf.Tensor], Batch]

    def batches(self, batch_size: int, records: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Batches of `record`, `image`, `label` and `error`; of all records, or of those given instead."""
        chosen = self.records if records is None else records
        # The decoder works on the photos of a batch in parallel: one batch ahead is enough to keep the training busy.
        return chosen.batch(batch_size).map(self._features).prefetch(1)

    def read(self, batch_size: int, records: tf.data.Dataset | None = None) -> Iterator[Batch]:
        """The same batches, once, without a dataset's graph: it takes a second until one that decodes is ready."""
        chosen = self.records if records is None else records
        with ThreadPoolExecutor(1) as decoder:
            ahead: Future[Batch] | None = None
            for serialized in chosen.batch(batch_size):
                batch, ahead = ahead, decoder.submit(self._features, serialized)
                if batch is not None:
                    yield batch.result()
            if ahead is not None:
                yield ahead.result()

    @tf.autograph.experimental.do_not_convert
    def _features(self, serialized: tf.Tensor) -> Batch:
        return {RECORD: serialized, **self.transform(serialized)}


def image_transform(graph: TransformGraph) -> Callable[[tf.Tensor], Batch]:
    """String [batch] of serialized tf.Examples to `image`, `label` and `error`; splits share it, see Images.read."""
    raw_feature_spec = graph.raw_feature_spec

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def transform(serialized: tf.Tensor) -> Batch:
        features = graph(tf.io.parse_example(serialized, raw_feature_spec))
        return {name: features[name] for name in (IMAGE, LABEL, ERROR)}

    return transform


def read_images(file_patterns: Sequence[str], transform: Callable[[tf.Tensor], Batch]) -> Images:
    """The photos of gzipped TFRecord files of raw tf.Examples, in the order of the files' names.

    Args:
        file_patterns: as Trainer's FnArgs gives them.
        transform: as image_transform makes it.
    """
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    return Images(tf.data.TFRecordDataset(files, compression_type="GZIP"), transform)


def is_usable(batch: Batch) -> tf.Tensor:
    """bool [batch]: which photos have pixels and a known label."""
    return tf.logical_and(tf.equal(batch[ERROR], ""), batch[LABEL] >= 0)


def is_held_out(batch: Batch) -> tf.Tensor:
    """bool [batch]: a tenth of the photos, always the same, for a training to watch itself on."""
    return tf.equal(tf.strings.to_hash_bucket_fast(batch[RECORD], 10), 0)


BATCH_SIZE = 32


@dataclass(frozen=True)
class ImageSplit:
    """A split without its pixels, which do not stay in memory.

    Attributes:
        labels: int64 [n], the number of the label of each photo that can be learned from.
        held_out: bool [n], which of them a training may watch itself on.
        left_out: how many examples have no photo that can be used, or no known label.
        fingerprint: SHA-256 over all examples of the split, whatever their order in the files.
        ids: of the photos that can be learned from, see serving.reference_predictions.
    """

    labels: np.ndarray
    held_out: np.ndarray
    left_out: int
    fingerprint: str
    ids: tuple[str, ...]

    @property
    def truth(self) -> dict[str, int]:
        """Id -> the number of its label."""
        return dict(zip(self.ids, self.labels.tolist(), strict=True))


def read_image_split(photos: Images) -> ImageSplit:
    """Go through a split once, decoding each photo to learn whether it can be used."""
    ids: list[str] = []
    labels, held_out, usable = [np.zeros([0], np.int64)], [np.zeros([0], bool)], [np.zeros([0], bool)]
    for batch in photos.read(BATCH_SIZE):
        ids.extend(example_id(record) for record in batch[RECORD].numpy())
        labels.append(batch[LABEL].numpy())
        held_out.append(is_held_out(batch).numpy())
        usable.append(is_usable(batch).numpy())
    used = np.concatenate(usable)
    return ImageSplit(
        labels=np.concatenate(labels)[used],
        held_out=np.concatenate(held_out)[used],
        left_out=int((~used).sum()),
        fingerprint=hashlib.sha256("".join(sorted(ids)).encode()).hexdigest(),
        ids=tuple(id_ for id_, use in zip(ids, used.tolist(), strict=True) if use),
    )


def image_predictions(classifier: ImageClassifier, photos: Images, labels: Sequence[str]) -> ReferencePredictions:
    """The classifier's own probabilities and best labels for each photo that can be used, its label known or not.

    Args:
        classifier: as it came out of training, not what is exported.
        photos: the split.
        labels: the label vocabulary.
    """
    ids: list[str] = []
    rows, truth = [np.zeros([0, len(labels)], np.float32)], [np.zeros([0], np.int64)]
    for batch in photos.read(BATCH_SIZE):
        good = np.flatnonzero(batch[ERROR].numpy() == b"")
        ids.extend(example_id(batch[RECORD].numpy()[row]) for row in good)
        rows.append(classifier.predict(batch[IMAGE]).numpy()[good])
        truth.append(batch[LABEL].numpy()[good])
    return predictions_of(ids, labels, np.concatenate(rows), np.concatenate(truth))
