"""Models of tables: a linear model and a network over numbers, embedded categories and terms of texts; classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from serving.signatures.common import Features
from trainers.artifacts import frozen_model, predict_split
from trainers.splits import Column, TransformedSplit, dense_batch
from trainers.tabular.options import TabularTrainerOptions
from transform.options import TabularOptions
from transform.tabular import CATEGORIES, CATEGORY_VOCABULARY, HASHES, LIST, NUMBERS, TERMS, WEIGHTS, hash_numbers

# The linear weights of tf-idf grow to about 10; Adam moves every number by its step size, so these are kept smaller.
TERM_SCALE = 20.0
# Twenty thousand terms learn a few thousand rows by heart. How much of a text is left out in training, and how much the
# weights of terms are penalised, was chosen on film reviews: those of the linear part by a fifth of what l2 says of
# weights that are not scaled, those of the network by ten times as much.
_LINEAR_DROPOUT, _NETWORK_DROPOUT = 0.3, 0.5
LINEAR_PENALTY, NETWORK_PENALTY = 0.2 * TERM_SCALE**2, 10.0


def model_inputs(features: Features) -> dict[str, Column]:
    """The features of transform/tabular.py without what fills lists and terms up."""
    inputs: dict[str, Column] = dict(features)
    for name in (*numbered_features(features, LIST), *numbered_features(features, TERMS)):
        lengths = tf.math.count_nonzero(features[name], axis=1)
        inputs[name] = tf.RaggedTensor.from_tensor(tf.cast(features[name], tf.int32), lengths=lengths)
        if f"{name}{WEIGHTS}" in features:
            inputs[f"{name}{WEIGHTS}"] = tf.RaggedTensor.from_tensor(features[f"{name}{WEIGHTS}"], lengths=lengths)
    return inputs


def numbered_features(features: Mapping[str, Column], feature: str) -> list[str]:
    """The names `<feature>0`, `<feature>1` and so on, as far as there are such features."""
    return [f"{feature}{number}" for number in range(len(features)) if f"{feature}{number}" in features]


@dataclass(frozen=True)
class _Part:
    """What a model makes of some features.

    Attributes:
        inputs: by the features' names.
        linear: float32 [batch, classes] each, parts of the logits.
        network: float32 [batch, n] each, what the network sees; none where there is no network.
    """

    inputs: dict[str, keras.KerasTensor]
    linear: list[keras.KerasTensor]
    network: list[keras.KerasTensor]


def build_model(
    features: Mapping[str, Column],
    vocabulary_size: int,
    classes: int,
    options: TabularTrainerOptions,
    sizes: Mapping[str, int] = {},
) -> keras.Model:
    """A Keras model from the features of transform/tabular.py to probabilities, float32 [batch, classes].

    Args:
        features: what model_inputs gives; it matters which there are, and how wide.
        vocabulary_size: how many categories are known.
        classes: how many labels there are.
        options: widths, dropout and penalty.
        sizes: feature -> how many numbers there are, of HASHES and TERMS: see feature_sizes.
    """
    lists, terms = numbered_features(features, LIST), numbered_features(features, TERMS)
    parts = []
    if NUMBERS in features:
        parts.append(_numbers(features[NUMBERS].shape[1], classes, options))
    if CATEGORIES in features or lists:
        width = features[CATEGORIES].shape[1] if CATEGORIES in features else 0
        parts.append(_categories(width, lists, vocabulary_size, classes, options))
    if HASHES in features:
        parts.append(_hashes(features[HASHES].shape[1], sizes[HASHES], classes, options))
    parts += [_terms(name, sizes[name], classes, options) for name in terms]

    logits = _sum([logit for part in parts for logit in part.linear])
    if options.hidden_units:
        seen = [tensor for part in parts for tensor in part.network]
        hidden = seen[0] if len(seen) == 1 else keras.layers.concatenate(seen)
        for width in options.hidden_units:
            hidden = keras.layers.Dense(width, activation="relu", kernel_regularizer=_penalty(options))(hidden)
            hidden = keras.layers.Dropout(options.dropout)(hidden)
        logits = keras.layers.add([logits, keras.layers.Dense(classes)(hidden)])
    elif NUMBERS not in features and (lists or terms or HASHES in features):
        # A row may have no term and no category, and what it gets is then the biases.
        logits = keras.layers.Dense(classes, kernel_initializer="identity")(logits)
    inputs = {name: tensor for part in parts for name, tensor in part.inputs.items()}
    return keras.Model(inputs, keras.layers.Softmax()(logits))


def _penalty(options: TabularTrainerOptions, factor: float = 1.0) -> keras.Regularizer:
    return keras.regularizers.L2(options.l2 * factor)


def _sum(tensors: list[keras.KerasTensor]) -> keras.KerasTensor:
    return tensors[0] if len(tensors) == 1 else keras.layers.add(tensors)


def _weighted_sum(vectors: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """[batch, width]: the sum over n of vectors [batch, n, width], each times its weight in [batch, n]."""
    return keras.ops.einsum("bnd,bn->bd", vectors, weights)


def _linear_weights(name: str, rows: int, classes: int, penalty: keras.Regularizer) -> keras.layers.Embedding:
    return keras.layers.Embedding(
        rows, classes, embeddings_initializer="zeros", embeddings_regularizer=penalty, name=f"{name}_linear"
    )


def _numbers(width: int, classes: int, options: TabularTrainerOptions) -> _Part:
    numbers = keras.Input([width], name=NUMBERS, dtype="float32")
    linear = keras.layers.Dense(classes, kernel_regularizer=_penalty(options))(numbers)
    return _Part({NUMBERS: numbers}, [linear], [numbers])


def _categories(
    width: int, lists: list[str], vocabulary_size: int, classes: int, options: TabularTrainerOptions
) -> _Part:
    """Categories, `width` in each row, and lists of them: one embedding for all, of a list's its sum or its mean."""
    # Row 0 is the unknown category. It starts at zero and stays there unless training meets it: no information.
    rows = vocabulary_size + 1
    part = _Part({}, [], [])
    weights = _linear_weights(CATEGORY_VOCABULARY, rows, classes, _penalty(options))
    embedding = keras.layers.Embedding(rows, options.embedding_width, name=f"{CATEGORY_VOCABULARY}_embedding")
    if width:
        part.inputs[CATEGORIES] = keras.Input([width], name=CATEGORIES, dtype="int64")
        categories = part.inputs[CATEGORIES] + 1
        part.linear.append(keras.ops.sum(weights(categories), axis=1))
        if options.hidden_units:
            part.network.append(keras.layers.Flatten()(embedding(categories)))
    for name in lists:
        part.inputs[name] = keras.Input([None], name=name, dtype="int32")
        present = keras.ops.cast(part.inputs[name] > 0, "float32")
        part.linear.append(_weighted_sum(weights(part.inputs[name]), present))
        if options.hidden_units:
            shares = present / keras.ops.maximum(keras.ops.sum(present, axis=1, keepdims=True), 1.0)
            part.network.append(_weighted_sum(embedding(part.inputs[name]), shares))
    return part


def _hashes(width: int, size: int, classes: int, options: TabularTrainerOptions) -> _Part:
    hashes = keras.Input([width], name=HASHES, dtype="int64")
    part = _Part({HASHES: hashes}, [], [])
    part.linear.append(keras.ops.sum(_linear_weights(HASHES, size, classes, _penalty(options))(hashes), axis=1))
    if options.hidden_units:
        embedding = keras.layers.Embedding(size, options.embedding_width, name=f"{HASHES}_embedding")
        part.network.append(keras.layers.Flatten()(embedding(hashes)))
    return part


def _terms(name: str, size: int, classes: int, options: TabularTrainerOptions) -> _Part:
    """Terms of a text: linear, each times its tf-idf, and in the network the mean of their embeddings by tf-idf."""
    terms = keras.Input([None], name=name, dtype="int32")
    weights = keras.Input([None], name=f"{name}{WEIGHTS}", dtype="float32")
    part = _Part({name: terms, f"{name}{WEIGHTS}": weights}, [], [])
    linear = _linear_weights(name, size + 1, classes, _penalty(options, LINEAR_PENALTY))
    some = keras.layers.Dropout(_LINEAR_DROPOUT)(weights)
    part.linear.append(TERM_SCALE * _weighted_sum(linear(terms), some))
    if options.hidden_units:
        embedding = keras.layers.Embedding(
            size + 1,
            options.embedding_width,
            embeddings_regularizer=_penalty(options, NETWORK_PENALTY),
            name=f"{name}_embedding",
        )
        part.network.append(_weighted_sum(embedding(terms), keras.layers.Dropout(_NETWORK_DROPOUT)(weights)))
    return part


def known_categories(transform_output: tft.TFTransformOutput, features: Mapping[str, Column]) -> list[str]:
    """The categories of all columns, in the order of their numbers."""
    if CATEGORIES not in features and not numbered_features(features, LIST):
        return []
    # The tokens hold what is in the data, of whatever encoding.
    return [
        token.decode(errors="backslashreplace") for token in transform_output.vocabulary_by_name(CATEGORY_VOCABULARY)
    ]


def known_terms(transform_output: tft.TFTransformOutput, features: Mapping[str, Column]) -> dict[str, list[str]]:
    """Feature -> the terms of its text, in the order of their numbers."""
    return {
        name: [line.decode().partition(" ")[2] for line in transform_output.vocabulary_by_name(name)]
        for name in numbered_features(features, TERMS)
    }


def feature_sizes(terms: Mapping[str, list[str]], preprocessing: TabularOptions) -> dict[str, int]:
    """What build_model takes as `sizes`; the terms are those of known_terms."""
    hashed = [hash_numbers(column) for column in preprocessing.columns.values() if column.kind == "hash"]
    return {name: len(known) for name, known in terms.items()} | ({HASHES: sum(hashed)} if hashed else {})


@dataclass(frozen=True)
class Classifier:
    """A trained model.

    Attributes:
        predict: a split -> float32 [n, classes], by the library that trained the model.
        answer: transformed features -> the same, float32 [batch, classes], in core operations.
        model: where it is a Keras model.
        curves: name -> a value an epoch, where epochs were trained.
        report: for the provenance, what was tried.
        save: where there are members: writes each, by its name, into a folder.
        out_of_fold: rows of the table, int64 [m], and what models which did not see them say of them, float
            [m, classes]; None where nothing was held out.
    """

    predict: Callable[[TransformedSplit], np.ndarray]
    answer: Callable[[Features], tf.Tensor]
    model: keras.Model | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[[Path], None] | None = None
    out_of_fold: tuple[np.ndarray, np.ndarray] | None = None


def keras_classifier(model: keras.Model, curves: Mapping[str, Sequence[float]] = {}) -> Classifier:
    """Of a Keras model that build_model made."""
    frozen = frozen_model(model)
    labels = [""] * model.output.shape[1]
    return Classifier(
        predict=lambda split: predict_split(model, split, labels).probabilities,
        answer=lambda features: frozen(dense_batch(model_inputs(features))),
        model=model,
        curves=curves,
        save=lambda path: model.save(path.with_suffix(".keras")),
    )
