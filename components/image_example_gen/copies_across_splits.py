"""Photos that stand in the folders of several splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
import tensorflow as tf

from components.image_example_gen.photo import Photo

# Where a photo that is in several splits stays: what is measured on must not have been learned from.
_PREFERENCE = ("test", "eval", "train", None)


class CopiesAcrossSplits(beam.PTransform):
    """Photos -> (path, reason) of those to leave out, so that no photo is in two splits.

    Only checksums are grouped; a photo is in memory as long as it takes to read it.
    """

    def expand(self, photos: beam.PCollection) -> beam.PCollection:
        return (
            photos
            | "Checksum" >> beam.FlatMap(_with_checksum)
            | "SameChecksum" >> beam.GroupByKey()
            | "LeftOut" >> beam.FlatMapTuple(_left_out)
        )


def _with_checksum(photo: Photo) -> Iterator[tuple[str, tuple[int, str]]]:
    try:
        with tf.io.gfile.GFile(photo.file, "rb") as file:
            yield hashlib.sha256(file.read()).hexdigest(), (_PREFERENCE.index(photo.split), photo.path)
    except tf.errors.OpError:
        pass  # whoever writes the photos finds it out again, and says why


def _left_out(_: str, copies: Iterable[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    (best, kept), *others = sorted(copies)
    for rank, path in others:
        if rank != best:
            yield path, f"the same photo as {kept}, which is in another split"
