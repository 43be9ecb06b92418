"""The model to be checked, with the requests to send it and the answers it should give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from components.serving_check.eval_examples import choose_examples
from components.serving_check.failures import ModelUnavailable
from components.serving_check.read_signatures import read_signatures
from components.serving_check.request_inputs import request_inputs, without_label
from serving import reference_predictions
from serving.export import SERVING_DEFAULT
from serving.labels import read_labels
from serving.reference_predictions import ReferencePredictions

BATCH_SIZE = 32
# Every example goes out in batches; alone, as most requests come, the first of them.
SINGLE_REQUESTS = 100


@dataclass(frozen=True)
class Candidate:
    """What there is to compare; examples and expected predictions are aligned.

    Attributes:
        examples_in_split: how many examples the split holds.
        left_out: how many chosen examples have no reference prediction.
    """

    signatures: Mapping[str, meta_graph_pb2.SignatureDef]
    vocabulary: Sequence[str]
    examples: Sequence[tf.train.Example]
    expected: ReferencePredictions
    examples_in_split: int
    left_out: int

    @staticmethod
    def read(
        saved_model: str,
        reference: str,
        example_files: Sequence[str],
        maximum_examples: int,
        feature_of_input: Mapping[str, str] | None = None,
    ) -> Candidate:
        """Read a model's signatures, labels and reference predictions, and choose the examples to send.

        `feature_of_input` names the feature behind each input of another name.

        Raises:
            ModelUnavailable: one of them is missing, or does not fit the others.
        """
        signatures = read_signatures(saved_model)
        labels = _read_labels(saved_model)
        predictions = _read_reference(reference, labels)
        chosen, total = choose_examples(example_files, maximum_examples)
        row_of = {example: row for row, example in enumerate(predictions.ids)}
        usable = [(example, record) for example, record in chosen if example in row_of]
        if not usable:
            raise ModelUnavailable(
                f"none of the {total} examples in {example_files} has a reference prediction in {reference}; "
                "train and check on the same examples"
            )
        inputs = signatures[SERVING_DEFAULT].inputs if SERVING_DEFAULT in signatures else ()
        rows = [row_of[example] for example, _ in usable]
        return Candidate(
            signatures=signatures,
            vocabulary=labels,
            examples=[
                without_label(tf.train.Example.FromString(record), inputs, feature_of_input) for _, record in usable
            ],
            expected=_rows(predictions, rows),
            examples_in_split=total,
            left_out=len(chosen) - len(usable),
        )

    def batches(self) -> Iterator[slice]:
        """Every example in batches, then the first ones each alone."""
        for start in range(0, len(self.examples), BATCH_SIZE):
            yield slice(start, min(start + BATCH_SIZE, len(self.examples)))
        for row in range(min(SINGLE_REQUESTS, len(self.examples))):
            yield slice(row, row + 1)

    def inputs(self, signature: str, batch: slice) -> dict[str, np.ndarray]:
        """The request with these examples; raises RequestRefused where they do not fit the signature."""
        return request_inputs(self.signatures[signature], self.examples[batch])

    def expectation(self, batch: slice) -> ReferencePredictions:
        """The reference predictions of these examples."""
        return _rows(self.expected, range(len(self.examples))[batch])


def _rows(predictions: ReferencePredictions, rows: Sequence[int]) -> ReferencePredictions:
    return ReferencePredictions(
        ids=[predictions.ids[row] for row in rows],
        labels=[predictions.labels[row] for row in rows],
        probabilities=predictions.probabilities[list(rows)],
    )


def _read_labels(saved_model: str) -> list[str]:
    try:
        return read_labels(saved_model)
    except tf.errors.NotFoundError as error:
        raise ModelUnavailable(f"the model has no label vocabulary among its assets: {error.message}") from error


def _read_reference(path: str, vocabulary: Sequence[str]) -> ReferencePredictions:
    try:
        predictions = reference_predictions.read(path)
    except tf.errors.NotFoundError as error:
        raise ModelUnavailable(f"the Trainer left no reference predictions at {path}") from error
    classes = predictions.probabilities.shape[1]
    if classes != len(vocabulary):
        raise ModelUnavailable(
            f"the model's vocabulary has {len(vocabulary)} labels, its reference predictions {classes} classes"
        )
    return predictions
