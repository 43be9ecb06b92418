"""Put the predictions of served models into examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.errors import BrokenInput
from components.evaluator.eval_config import BASELINE, CANDIDATE, LABEL_KEY, PREDICTION_KEY, WEIGHT_KEY
from serving.session_model import SessionModel
from serving.signatures.common import LABEL, SERVE_EXAMPLES, TRANSFORM_FEATURES, read_labels
from serving.signatures.image import ERROR, IMAGE

IMAGES_AT_ONCE = 32


class PredictExamples(beam.DoFn):
    """Batches of serialized tf.Examples -> those with a usable label and photo, one by one, their predictions added.

    Runs the signatures of the SavedModels in sessions, as TensorFlow Serving does.

    Args:
        paths: SavedModel directories, by model name; the label numbers are those of CANDIDATE.
        weight: the column of the examples' weights; "" where all count the same.
    """

    def __init__(self, paths: Mapping[str, str], weight: str = "") -> None:
        super().__init__()
        self._weight = weight
        self._paths = dict(paths)
        self._left_out = beam.metrics.Metrics.counter("evaluator", "examples_left_out")

    def setup(self) -> None:
        self._models = {name: SessionModel(path) for name, path in self._paths.items()}
        self._labels = read_labels(self._paths[CANDIDATE])
        self._has_errors = ERROR in self._models[CANDIDATE].signatures[TRANSFORM_FEATURES].outputs
        self._baseline_labels = read_labels(self._paths[BASELINE]) if BASELINE in self._paths else self._labels

    def process(self, batch: Sequence[bytes]) -> Iterator[bytes]:
        # Photos are decoded in the model: a few at a time, or they would fill the memory.
        at_once = IMAGES_AT_ONCE if self._has_errors else len(batch)
        for start in range(0, len(batch), at_once):
            yield from self._predict(batch[start : start + at_once])

    def _predict(self, batch: Sequence[bytes]) -> Iterator[bytes]:
        examples = np.asarray(batch, dtype=object)
        labels, usable = self._labels_of(examples)
        self._left_out.inc(len(batch) - len(usable))
        probabilities = {
            name: model.run(SERVE_EXAMPLES, {"examples": examples})["probabilities"]
            for name, model in self._models.items()
        }
        if BASELINE in probabilities:
            probabilities[BASELINE] = aligned(probabilities[BASELINE], self._baseline_labels, self._labels)
        for row in usable.tolist():
            example = tf.train.Example.FromString(batch[row])
            # Nothing is measured by the bytes of a photo.
            example.features.feature.pop(IMAGE, None)
            example.features.feature[LABEL_KEY].int64_list.value.append(int(labels[row]))
            if self._weight:
                example.features.feature[WEIGHT_KEY].float_list.value.append(example_weight(example, self._weight))
            for name, values in probabilities.items():
                example.features.feature[PREDICTION_KEY.format(model=name)].float_list.value.extend(values[row])
            yield example.SerializeToString()

    def _labels_of(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each label, and the rows that can be measured by it."""
        wanted = [LABEL, ERROR] if self._has_errors else [LABEL]
        features = self._models[CANDIDATE].run(TRANSFORM_FEATURES, {"examples": examples}, wanted)
        usable = features[LABEL] >= 0
        if self._has_errors:
            usable &= features[ERROR] == b""
        return features[LABEL], np.flatnonzero(usable)

    def teardown(self) -> None:
        for model in self._models.values():
            model.close()


def example_weight(example: tf.train.Example, column: str) -> float:
    """How much an example counts.

    Raises:
        BrokenInput: its weight is missing, negative or no number.
    """
    feature = example.features.feature[column]
    kind = feature.WhichOneof("kind")
    values = [] if kind in (None, "bytes_list") else getattr(feature, kind).value
    if len(values) != 1 or not 0 <= values[0] < np.inf:
        raise BrokenInput(
            f"data.weight: the weight {column!r} of an example is {list(values) or 'missing'}, expected a number of at "
            "least 0 in each row; mend the values, or leave the rows out"
        )
    return float(values[0])


def aligned(probabilities: np.ndarray, labels: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """Columns of `probabilities`, which stand in the order `labels`, in the order `order`; 0 for a label not there."""
    columns = {label: column for column, label in enumerate(labels)}
    result = np.zeros([len(probabilities), len(order)], np.float32)
    for target, label in enumerate(order):
        if label in columns:
            result[:, target] = probabilities[:, columns[label]]
    return result
