"""The candidate: its signatures, the raw requests to send it, and the answers it should give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from components.errors import ModelUnavailable, RequestRefused
from serving import reference_predictions
from serving.answers import Decision, UnknownRule, read_decision
from serving.missing_values import missing_value
from serving.reference_predictions import ReferencePredictions, choose_examples
from serving.signatures.common import SERVING_DEFAULT, read_labels


def read_signatures(path: str) -> Mapping[str, meta_graph_pb2.SignatureDef]:
    """The signatures of the graph tagged {serve}.

    Raises:
        ModelUnavailable: there is no such graph.
    """
    file = f"{path}/saved_model.pb"
    try:
        with tf.io.gfile.GFile(file, "rb") as content:
            saved_model = saved_model_pb2.SavedModel.FromString(content.read())
    except (tf.errors.OpError, DecodeError) as error:
        raise ModelUnavailable(f"the model has no readable {file}: {error}") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {"serve"}:
            return dict(meta_graph.signature_def)
    raise ModelUnavailable(f"{file} holds no graph tagged 'serve'; export the model with tf.saved_model.save")


SERIALIZED_EXAMPLES = "examples"
# An image's bytes are a feature of one of these names, and an input of either.
IMAGE_BYTES = ("image_bytes", "image")


def without_label(
    example: tf.train.Example, inputs: Iterable[str], feature_of_input: Mapping[str, str] | None = None
) -> tf.train.Example:
    """The features that a client sends: those that are inputs of serving_default.

    Args:
        example: a raw example.
        inputs: the names of the inputs.
        feature_of_input: the feature behind an input of another name; it is kept under both names.
    """
    kept = set(inputs)
    if kept & set(IMAGE_BYTES):
        kept |= set(IMAGE_BYTES)
    renamed = feature_of_input or {}
    given = example.features.feature
    features = {name: given[name] for name in kept - set(renamed) if name in given}
    for name, feature in renamed.items():
        if feature in given:
            features |= {name: given[feature], feature: given[feature]}
    return tf.train.Example(features=tf.train.Features(feature=features))


def request_inputs(
    signature: meta_graph_pb2.SignatureDef, examples: Sequence[tf.train.Example]
) -> dict[str, np.ndarray]:
    """Input name -> values, [batch]: serialized examples, or the feature of the input's name.

    A missing feature is sent in the form that `serving.missing_values` defines; where examples have several values,
    [batch, n], it fills the rows up.

    Raises:
        RequestRefused: a feature is of another type than its input.
    """
    if set(signature.inputs) == {SERIALIZED_EXAMPLES}:
        # tf.Example's features are a map, which protobuf otherwise writes in any order.
        records = [example.SerializeToString(deterministic=True) for example in examples]
        return {SERIALIZED_EXAMPLES: np.array(records, dtype=object)}
    return {name: _column(name, tf.as_dtype(info.dtype), examples) for name, info in signature.inputs.items()}


def _column(name: str, dtype: tf.DType, examples: Sequence[tf.train.Example]) -> np.ndarray:
    rows = [_values(example, name, dtype) for example in examples]
    missing = missing_value(dtype.name)
    filling = missing.encode() if isinstance(missing, str) else missing
    longest = max(1, *map(len, rows))
    filled = np.array([[*row, *[filling] * (longest - len(row))] for row in rows], dtype=dtype.as_numpy_dtype)
    return filled[:, 0] if longest == 1 else filled


def _values(example: tf.train.Example, name: str, dtype: tf.DType) -> Sequence[bytes | int | float]:
    names = IMAGE_BYTES if name in IMAGE_BYTES else (name,)
    feature = next((example.features.feature[key] for key in names if key in example.features.feature), None)
    kind = (feature.WhichOneof("kind") if feature is not None else None) or ""
    values: Sequence[bytes | int | float] = getattr(feature, kind).value if kind else ()
    if not values:
        return ()
    fits = {"bytes_list": dtype == tf.string, "int64_list": dtype.is_integer, "float_list": dtype.is_floating}
    if not fits[kind]:
        raise RequestRefused(f"feature {name!r} of an example is a {kind}, its input takes {dtype.name}")
    return values


BATCH_SIZE = 32
# Every example goes out in batches; alone, as most requests come, the first of them.
SINGLE_REQUESTS = 100


@dataclass(frozen=True)
class Candidate:
    """What there is to compare; examples and expected predictions are aligned.

    Attributes:
        looked_at: among how many examples of the split they were chosen: all, or of very many a part.
        left_out: how many chosen examples have no reference prediction.
        decision: which label `serving_default` answers, where it is not the most probable one.
        unknown: when serving_default answers a label that is not in the vocabulary; None for never.
    """

    signatures: Mapping[str, meta_graph_pb2.SignatureDef]
    vocabulary: Sequence[str]
    examples: Sequence[tf.train.Example]
    expected: ReferencePredictions
    looked_at: int
    left_out: int
    decision: Decision | None = None
    unknown: UnknownRule | None = None

    @staticmethod
    def read(
        saved_model: str,
        reference: str,
        example_files: Sequence[str],
        maximum_examples: int,
        feature_of_input: Mapping[str, str] | None = None,
        unknown: UnknownRule | None = None,
    ) -> Candidate:
        """Read a model's signatures, labels and reference predictions, and choose the examples to send.

        `feature_of_input` names the feature behind each input of another name, `unknown` when serving_default answers a
        label of its own.

        Raises:
            ModelUnavailable: one of them is missing, or does not fit the others.
        """
        signatures = read_signatures(saved_model)
        labels = _read_labels(saved_model)
        chosen, looked_at = choose_examples(example_files, maximum_examples)
        predictions = _read_reference(reference, labels, {example for example, _ in chosen})
        row_of = {example: row for row, example in enumerate(predictions.ids)}
        usable = [(example, record) for example, record in chosen if example in row_of]
        if not usable:
            raise ModelUnavailable(
                f"none of the {looked_at} examples in {example_files} has a reference prediction in {reference}; "
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
            expected=predictions.rows(rows),
            looked_at=looked_at,
            left_out=len(chosen) - len(usable),
            decision=read_decision(saved_model),
            unknown=unknown,
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
        return self.expected.rows(range(len(self.examples))[batch])


def _read_labels(saved_model: str) -> list[str]:
    try:
        return read_labels(saved_model)
    except tf.errors.NotFoundError as error:
        raise ModelUnavailable(f"the model has no label vocabulary among its assets: {error.message}") from error


def _read_reference(path: str, vocabulary: Sequence[str], examples: Collection[str]) -> ReferencePredictions:
    try:
        predictions = reference_predictions.read(path, examples)
    except tf.errors.NotFoundError as error:
        raise ModelUnavailable(f"the Trainer left no reference predictions at {path}") from error
    classes = predictions.probabilities.shape[1]
    if classes != len(vocabulary):
        raise ModelUnavailable(
            f"the model's vocabulary has {len(vocabulary)} labels, its reference predictions {classes} classes"
        )
    return predictions
