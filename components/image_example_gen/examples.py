"""Image files read and written as tf.Examples, with a report of those left out."""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import tensorflow as tf

from components.image_example_gen.file_formats import (
    HEAD_SIZE,
    file_format,
    is_photo,
    unread_reason,
)
from components.image_example_gen.image_files import ImageFile
from transform.image_decoding import UNKNOWN_FORMAT, checked_image


@dataclass(frozen=True)
class LeftOut:
    """A photo that is in no split.

    Attributes:
        path: as the examples call photos.
        reason: why it was left out.
        unreadable: the photo itself is at fault; otherwise it is a copy of one that is in another split.
        label: the class that it was to be an example of.
        format: of a photo that is unreadable because its format is not read; "" of others.
    """

    path: str
    reason: str
    unreadable: bool
    label: str = ""
    format: str = ""


@dataclass(frozen=True)
class IngestionReport:
    """What was written, and what was not.

    Attributes:
        examples: how many examples of each label, by split.
        left_out: the photos that are in no split.
        passed_over: what was found that is no photo -> how often, see image_files.FoundFiles.
    """

    examples: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    passed_over: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a file that people read."""
        return asdict(self)


def merged(reports: Iterable[IngestionReport]) -> IngestionReport:
    """One report of several; the order of the photos left out is that of their paths."""
    examples: dict[str, dict[str, int]] = {}
    left_out: list[LeftOut] = []
    for report in reports:
        left_out.extend(report.left_out)
        for split, labels in report.examples.items():
            counts = examples.setdefault(split, {})
            for label, count in labels.items():
                counts[label] = counts.get(label, 0) + count
    return IngestionReport(
        {split: dict(sorted(examples[split].items())) for split in sorted(examples)},
        tuple(sorted(left_out, key=lambda photo: photo.path)),
    )


# Fine enough for any share that a person gives.
_BUCKETS = 10_000


def split_by_content(checksum: str, eval_share: float) -> str:
    """ "train" or "eval", by the photo's content alone.

    So copies of a photo are never in both, and photos that are added move none.

    Args:
        checksum: the SHA-256 of the photo's file, in hexadecimal.
        eval_share: which share of photos is held out, between 0 and 1.
    """
    return "eval" if int(checksum, 16) % _BUCKETS < round(eval_share * _BUCKETS) else "train"


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


def _with_checksum(photo: ImageFile) -> Iterator[tuple[str, tuple[int, str]]]:
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


# Photos are compressed already; more effort takes three times as long and gains nothing.
_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)


class WriteShard(beam.DoFn):
    """(number, photos) -> IngestionReport, and a TFRecord file in each split.

    One photo is in memory at a time. A file appears under its name when it is complete, so a shard that Beam works on
    twice does no harm.

    Args:
        folders: the folder of each split.
        unfinished: a folder for files that are not complete, in the same file system.
        shards: how many shards there are.
        eval_share: which share is held out of the photos that no folder puts into a split.
        max_pixels: the largest photo that is taken, by the size its header declares.
    """

    def __init__(
        self, folders: Mapping[str, str], unfinished: str, shards: int, eval_share: float, max_pixels: int
    ) -> None:
        super().__init__()
        self._folders = dict(folders)
        self._unfinished = unfinished
        self._shards = shards
        self._eval_share = eval_share
        self._max_pixels = max_pixels

    def setup(self) -> None:
        self._check = _header_check(self._max_pixels)

    def process(self, shard: tuple[int, Sequence[ImageFile]], copies: Mapping[str, str]) -> Iterator[IngestionReport]:
        """Write one shard; `copies` says why, by path, photos are left out for another split's sake."""
        number, photos = shard
        name = f"data_tfrecord-{number:05d}-of-{self._shards:05d}.gz"
        unfinished = {split: f"{self._unfinished}/{split}-{name}-{uuid.uuid4().hex}" for split in self._folders}
        writers = {split: tf.io.TFRecordWriter(path, _OPTIONS) for split, path in unfinished.items()}
        counts = {split: Counter[str]() for split in self._folders}
        left_out = []
        for photo in photos:
            if photo.path in copies:
                left_out.append(LeftOut(photo.path, copies[photo.path], unreadable=False, label=photo.label))
                continue
            image, problem, unread = self._read(photo)
            if problem:
                left_out.append(LeftOut(photo.path, problem, True, photo.label, unread))
                continue
            checksum = hashlib.sha256(image).hexdigest()
            split = photo.split or split_by_content(checksum, self._eval_share)
            writers[split].write(_example(photo, image, checksum))
            counts[split][photo.label] += 1
        for split, writer in writers.items():
            writer.close()
            tf.io.gfile.rename(unfinished[split], f"{self._folders[split]}/{name}", overwrite=True)
        yield IngestionReport({split: dict(labels) for split, labels in counts.items()}, tuple(left_out))

    def _read(self, photo: ImageFile) -> tuple[bytes, str, str]:
        """The file, why it cannot be used, and its format if that is why; the check that is made before decoding."""
        if photo.unread:
            return b"", unread_reason(photo.unread), photo.unread
        try:
            with tf.io.gfile.GFile(photo.file, "rb") as file:
                image: bytes = file.read()
        except tf.errors.NotFoundError:
            return b"", "there is no such file", ""
        except tf.errors.OpError as error:
            return b"", f"the file cannot be read: {error.message}", ""
        try:
            problem = self._check(tf.constant(image)).numpy().decode()
        except tf.errors.OpError:
            return b"", "image is damaged", ""
        found = file_format(image[:HEAD_SIZE]) if problem == UNKNOWN_FORMAT else ""
        return (image, unread_reason(found), found) if found and is_photo(found) else (image, problem, "")


@functools.cache  # traced once in a process, not for each bundle of shards
def _header_check(max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    check: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda image: checked_image(image, max_pixels)[1],
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )
    return check


def _example(photo: ImageFile, image: bytes, checksum: str) -> bytes:
    values = {"image": image, "label": photo.label.encode(), "path": photo.path.encode(), "checksum": checksum.encode()}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
