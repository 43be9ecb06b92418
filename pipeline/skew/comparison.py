"""What of the inputs of a task can be compared with training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.column_statistics import column_name
from pipeline.config import RunConfig
from pipeline.photo_measures import PHOTO_MEASURES, photo_measures
from pipeline.skew.request_columns import Value
from serving.image_files import image_files
from transform.image_options import ImageOptions
from transform.text_options import TextOptions

IMAGE_FEATURE = "image"
TEXT_MEASURES = ("characters", "words")

Measures = dict[str, Value]


@dataclass(frozen=True)
class Comparison:
    """How rows become columns whose distributions say something.

    Attributes:
        feature_of_input: name of an input in a request -> the feature of the training data.
        columns: what is compared: those features, or what is measured of them.
        texts: the features that hold text in the training data; the others hold numbers.
        measure: for texts and photos, of which hardly one comes twice: what is measured of each of them, as columns.
            None where the features themselves are compared.
    """

    feature_of_input: Mapping[str, str]
    columns: Sequence[str]
    texts: frozenset[str]
    measure: Callable[[Sequence[bytes]], list[Measures]] | None = None


def comparison(config: RunConfig, training: statistics_pb2.DatasetFeatureStatistics) -> Comparison:
    """What is compared of the inputs of a model.

    Args:
        config: of its run.
        training: statistics of the training data.
    """
    options = config.preprocessing
    if isinstance(options, TextOptions):
        inputs = {"text": options.column, options.column: options.column}
        return Comparison(inputs, TEXT_MEASURES, frozenset({options.column}), _measure_texts)
    if isinstance(options, ImageOptions):
        inputs = {"image_bytes": IMAGE_FEATURE, IMAGE_FEATURE: IMAGE_FEATURE}
        return Comparison(inputs, PHOTO_MEASURES, frozenset({IMAGE_FEATURE}), _measure_photos)
    columns = {column_name(column): column for column in training.features}
    texts = (name for name, column in columns.items() if column.type == statistics_pb2.FeatureNameStatistics.STRING)
    inputs = {name: name for name in columns if name != options.label.column}
    kept = [name for name in inputs if name not in options.columns or options.columns[name].kind != "ignored"]
    return Comparison(inputs, kept, frozenset(texts))


def _measure_texts(texts: Sequence[bytes]) -> list[Measures]:
    decoded = [text.decode("utf-8", "replace") for text in texts]
    return [dict(zip(TEXT_MEASURES, (len(text), len(text.split())), strict=True)) for text in decoded]


def _measure_photos(photos: Sequence[bytes]) -> list[Measures]:
    """Nothing of what is no photo."""
    files: Sequence[bytes] = image_files(tf.constant(list(photos), tf.string)).numpy()
    return [{**photo_measures(file)} for file in files]
