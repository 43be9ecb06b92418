"""Put the predictions of served models into examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.evaluator.eval_config import BASELINE, CANDIDATE, LABEL_KEY, PREDICTION_KEY
from serving.export import LABEL, SERVE_EXAMPLES, TRANSFORM_FEATURES
from serving.labels import read_labels
from serving.session_model import SessionModel


class PredictExamples(beam.DoFn):
    """Batches of serialized tf.Examples -> those with a usable label, one by one, their predictions added.

    Runs the signatures of the SavedModels in sessions, as TensorFlow Serving does.

    Args:
        paths: SavedModel directories, by model name; the label numbers are those of CANDIDATE.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        super().__init__()
        self._paths = dict(paths)
        self._left_out = beam.metrics.Metrics.counter("evaluator", "examples_without_label")

    def setup(self) -> None:
        self._models = {name: SessionModel(path) for name, path in self._paths.items()}
        self._labels = read_labels(self._paths[CANDIDATE])
        self._baseline_labels = read_labels(self._paths[BASELINE]) if BASELINE in self._paths else self._labels

    def process(self, batch: Sequence[bytes]) -> Iterator[bytes]:
        examples = np.asarray(batch, dtype=object)
        labels = self._models[CANDIDATE].run(TRANSFORM_FEATURES, {"examples": examples}, [LABEL])[LABEL]
        usable = np.flatnonzero(labels >= 0)
        self._left_out.inc(len(batch) - len(usable))
        probabilities = {
            name: model.run(SERVE_EXAMPLES, {"examples": examples})["probabilities"]
            for name, model in self._models.items()
        }
        if BASELINE in probabilities:
            probabilities[BASELINE] = aligned(probabilities[BASELINE], self._baseline_labels, self._labels)
        for row in usable.tolist():
            example = tf.train.Example.FromString(batch[row])
            example.features.feature[LABEL_KEY].int64_list.value.append(int(labels[row]))
            for name, values in probabilities.items():
                example.features.feature[PREDICTION_KEY.format(model=name)].float_list.value.extend(values[row])
            yield example.SerializeToString()

    def teardown(self) -> None:
        for model in self._models.values():
            model.close()


def aligned(probabilities: np.ndarray, labels: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """Columns of `probabilities`, which stand in the order `labels`, in the order `order`; 0 for a label not there."""
    columns = {label: column for column, label in enumerate(labels)}
    result = np.zeros([len(probabilities), len(order)], np.float32)
    for target, label in enumerate(order):
        if label in columns:
            result[:, target] = probabilities[:, columns[label]]
    return result
