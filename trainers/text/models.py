"""Models of texts: n-grams, a convolutional encoder, a network over an embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.signatures.common import Features
from trainers.row_store import RowStore
from trainers.splits import Column, TransformedSplit
from trainers.text.embeddings import TextEmbedding
from trainers.text.options import EncoderOptions, HubOptions, NgramOptions
from transform.text import FIRST_KNOWN_TOKEN, TEXT, TOKENS, WEIGHTS_OF


@dataclass(frozen=True)
class TextClassifier:
    """What `fit_text` trains, and is exported then.

    Attributes:
        model: from its inputs, a dict, to probabilities, float32 [batch, classes].
        members: the probabilities whose mean is the answer; each is trained for itself.
        inputs: a batch of the features of transform/text.py -> what `model` takes, without what fills rows up.
        resources: the tables that `inputs` uses, for the export to take along.
    """

    model: keras.Model
    members: Sequence[keras.KerasTensor]
    inputs: Callable[[Features], Mapping[str, Column]]
    resources: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        taken: Mapping[str, keras.KerasTensor],
        members: Sequence[keras.KerasTensor],
        inputs: Callable[[Features], Mapping[str, Column]],
        resources: Mapping[str, Any] | None = None,
    ) -> TextClassifier:
        """The classifier that answers with the mean of its members; `taken` are the model's inputs by name."""
        mean = members[0] if len(members) == 1 else keras.layers.average(members)
        return cls(keras.Model(taken, mean), members, inputs, resources or {})


# The linear weights of tf-idf grow to about 10; Adam moves every number by its step size, so these are kept smaller.
LINEAR_SCALE = 20.0
# Of the counts that the ratios are made of.
SMOOTHING = 1.0


def ngram_classifier(
    train: TransformedSplit | RowStore, vocabulary_sizes: Mapping[str, int], classes: int, options: NgramOptions
) -> TextClassifier:
    """Two models, whose mean answer is the answer; to be trained.

    One is linear over all terms, each weight times the term's log-count ratio (Wang and Manning, "Baselines and
    Bigrams", ACL 2012). The other is linear over the first kind of terms, plus a network over their mean embedding. A
    text without a known term gets what the biases say: always the same answer, which leans to the frequent classes.

    Args:
        train: what `ragged_terms` makes of the features of transform/text.py; the ratios are computed from it.
        vocabulary_sizes: how many terms are known of each kind, words first where there are words.
        classes: how many labels there are.
        options: widths, dropout and penalty.
    """
    inputs = {}
    for kind in vocabulary_sizes:
        inputs[kind] = keras.Input([None], name=kind, dtype="int32")
        inputs[WEIGHTS_OF[kind]] = keras.Input([None], name=WEIGHTS_OF[kind], dtype="float32")
    ratios = {kind: _ratio_layer(train, kind, size, classes) for kind, size in vocabulary_sizes.items()}
    first = next(iter(vocabulary_sizes))
    members = [
        keras.layers.Softmax()(_scaled_linear(inputs, vocabulary_sizes, ratios, classes, options)),
        keras.layers.Softmax()(_linear_and_network(inputs, first, vocabulary_sizes[first], classes, options)),
    ]
    return TextClassifier.of(inputs, members, ragged_terms)


def ragged_terms(features: Features) -> dict[str, Column]:
    """The terms and weights of transform/text.py without what they are filled up with."""
    ragged = {}
    for kind in (kind for kind in WEIGHTS_OF if kind in features):
        lengths = tf.math.count_nonzero(features[kind], axis=1)
        ragged[kind] = tf.RaggedTensor.from_tensor(tf.cast(features[kind], tf.int32), lengths=lengths)
        ragged[WEIGHTS_OF[kind]] = tf.RaggedTensor.from_tensor(features[WEIGHTS_OF[kind]], lengths=lengths)
    return ragged


def log_count_ratios(terms: tf.RaggedTensor, labels: np.ndarray, size: int, classes: int) -> np.ndarray:
    """float32 [size + 1, classes]: |ln(share of the class's terms that are this one / share of the others')|.

    Args:
        terms: int [n, m], the different terms of each text, 1 to `size`.
        labels: int [n], the classes of the texts.
        size: of the vocabulary.
        classes: how many labels there are.
    """
    counts = np.zeros([size + 1, classes])
    _count(terms, labels, counts)
    return _ratios(counts)


def _count(terms: tf.RaggedTensor, labels: np.ndarray, counts: np.ndarray) -> None:
    np.add.at(counts, (terms.flat_values.numpy(), labels[terms.value_rowids().numpy()]), 1)


def _ratios(counts: np.ndarray) -> np.ndarray:
    inside, outside = counts + SMOOTHING, counts.sum(axis=1, keepdims=True) - counts + SMOOTHING
    ratios = np.abs(np.log((inside / inside.sum(axis=0)) / (outside / outside.sum(axis=0))))
    ratios[0] = 0  # no term
    return ratios.astype(np.float32)


def weighted_sum(vectors: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """[batch, width]: the sum over n of vectors [batch, n, width], each times its weight in [batch, n]."""
    return keras.ops.einsum("bnd,bn->bd", vectors, weights)


def _ratio_layer(train: TransformedSplit | RowStore, kind: str, size: int, classes: int) -> keras.layers.Layer:
    # Set after the layer is built: as an initializer, the numbers would be in the model's config, as text.
    layer = keras.layers.Embedding(
        size + 1, classes, embeddings_initializer="zeros", trainable=False, name=f"{kind}_ratios"
    )
    layer.build()
    counts = np.zeros([size + 1, classes])
    for part in train.parts() if isinstance(train, RowStore) else [train]:
        _count(part.features[kind], part.labels, counts)
    layer.set_weights([_ratios(counts)])
    return layer


def _linear(name: str, size: int, classes: int, options: NgramOptions) -> keras.layers.Layer:
    penalty = keras.regularizers.L2(options.l2)
    return keras.layers.Embedding(
        size + 1, classes, embeddings_initializer="zeros", embeddings_regularizer=penalty, name=name
    )


def _scaled_linear(
    inputs: Mapping[str, keras.KerasTensor],
    vocabulary_sizes: Mapping[str, int],
    ratios: Mapping[str, keras.layers.Layer],
    classes: int,
    options: NgramOptions,
) -> keras.KerasTensor:
    sums: Sequence[keras.KerasTensor] = [
        weighted_sum(
            _linear(f"{kind}_scaled", size, classes, options)(inputs[kind]) * ratios[kind](inputs[kind]),
            keras.layers.Dropout(options.term_dropout)(inputs[WEIGHTS_OF[kind]]),
        )
        for kind, size in vocabulary_sizes.items()
    ]
    logits = sum(sums[1:], sums[0]) * LINEAR_SCALE / len(sums) ** 0.5
    return keras.layers.Dense(classes, kernel_initializer="identity")(logits)


def _linear_and_network(
    inputs: Mapping[str, keras.KerasTensor], kind: str, size: int, classes: int, options: NgramOptions
) -> keras.KerasTensor:
    terms, weights = inputs[kind], inputs[WEIGHTS_OF[kind]]
    of_terms = _linear(f"{kind}_linear", size, classes, options)(terms)
    linear = weighted_sum(of_terms, keras.layers.Dropout(options.term_dropout)(weights))
    embedded = keras.layers.Embedding(size + 1, options.embedding_width, name=f"{kind}_embedding")(terms)
    hidden = weighted_sum(embedded, keras.layers.Dropout(options.dropout)(weights))
    hidden = keras.layers.Dropout(options.dropout)(hidden)
    hidden = keras.layers.Dense(options.hidden_units, activation="relu")(hidden)
    hidden = keras.layers.Dropout(options.dropout)(hidden)
    return keras.layers.add([linear * LINEAR_SCALE, keras.layers.Dense(classes)(hidden)])


def encoder_classifier(vocabulary_size: int, classes: int, options: EncoderOptions) -> TextClassifier:
    """Filters over embedded tokens, of which each gives its best match (Kim, EMNLP 2014); to be trained.

    A text without tokens matches nothing, and gets what the biases say; one of unknown tokens only, what training made
    of those it did not know.

    Args:
        vocabulary_size: how many tokens are known.
        classes: how many labels there are.
        options: widths and dropout.
    """
    tokens = keras.Input([None], name=TOKENS, dtype="int32")
    # What fills a row up is no token: it is 0 before the filters, and nothing after them.
    present = keras.ops.cast(tokens > 0, "float32")[:, :, None]
    rows = vocabulary_size + FIRST_KNOWN_TOKEN
    embedded = keras.layers.Embedding(rows, options.embedding_width, name=f"{TOKENS}_embedding")(tokens)
    embedded = keras.layers.Dropout(options.dropout)(embedded * present)
    matches = [
        keras.ops.max(
            keras.layers.Conv1D(options.filters, width, padding="same", activation="relu")(embedded) * present, axis=1
        )
        for width in options.filter_widths
    ]
    best = matches[0] if len(matches) == 1 else keras.layers.concatenate(matches)
    logits = keras.layers.Dense(classes)(keras.layers.Dropout(options.dropout)(best))
    return TextClassifier.of({TOKENS: tokens}, [keras.layers.Softmax()(logits)], ragged_tokens)


def ragged_tokens(features: Features) -> dict[str, Column]:
    """The tokens of transform/text.py without what they are filled up with; one at least, for the maximum."""
    lengths = tf.math.count_nonzero(features[TOKENS], axis=1)
    return {TOKENS: tf.RaggedTensor.from_tensor(tf.cast(features[TOKENS], tf.int32), lengths=tf.maximum(lengths, 1))}


EMBEDDING = "embedding"


def embedded_texts(embedding: TextEmbedding) -> Callable[[Features], dict[str, Column]]:
    """What makes embeddings, float32 [batch, width], of the features of transform/text.py."""
    return lambda features: {EMBEDDING: embedding(features[TEXT])}


def hub_classifier(embedding: TextEmbedding, classes: int, options: HubOptions) -> TextClassifier:
    """A network over embeddings, which stay as they are; to be trained.

    A text without a known word gets the answer for whatever the embedding makes of it; for NaN or infinity, for 0.

    Args:
        embedding: the embedding.
        classes: how many labels there are.
        options: width and dropout.
    """
    vectors = keras.Input([embedding.width], name=EMBEDDING, dtype="float32")
    hidden = keras.layers.Dropout(options.dropout)(vectors)
    if options.hidden_units:
        hidden = keras.layers.Dense(options.hidden_units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(options.dropout)(hidden)
    probabilities = keras.layers.Softmax()(keras.layers.Dense(classes)(hidden))
    resources = {"embedding": embedding}
    return TextClassifier.of({EMBEDDING: vectors}, [probabilities], embedded_texts(embedding), resources)


@dataclass(frozen=True)
class TextModel:
    """A kind of model of texts.

    Attributes:
        inputs: the embedding, where the model stands on one -> what makes its inputs of Transform's features.
        build: the train split, the size of each vocabulary, the number of classes, the options and the embedding -> the
            untrained model.
    """

    inputs: Callable[[TextEmbedding | None], Callable[[Features], dict[str, Column]]]
    build: Callable[[TransformedSplit | RowStore, Mapping[str, int], int, Any, TextEmbedding | None], TextClassifier]


def _embedded(embedding: TextEmbedding | None) -> TextEmbedding:
    assert embedding is not None, "model: hub stands on an embedding"
    return embedding


# By the name in `trainer.model`.
TEXT_MODELS = {
    "ngrams": TextModel(
        inputs=lambda _: ragged_terms,
        build=lambda train, sizes, classes, options, _: ngram_classifier(train, sizes, classes, options),
    ),
    "encoder": TextModel(
        inputs=lambda _: ragged_tokens,
        build=lambda _, sizes, classes, options, __: encoder_classifier(sizes[TOKENS], classes, options),
    ),
    "hub": TextModel(
        inputs=lambda embedding: embedded_texts(_embedded(embedding)),
        build=lambda _, __, classes, options, embedding: hub_classifier(_embedded(embedding), classes, options),
    ),
}
