"""Models of texts: n-grams, a convolutional encoder, a network over an embedding or a pretrained encoder."""

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
from trainers.text.encoders import CHUNK, PIECES, PretrainedEncoder, pooled
from trainers.text.options import (
    EncoderOptions,
    HubOptions,
    NgramOptions,
    StaticOptions,
    TextModelOptions,
    TransformerOptions,
)
from trainers.text.static import StaticVectors, averaged
from trainers.text.wrap import WrappedText
from transform.text import FIRST_KNOWN_TOKEN, TEXT, TOKENS, WEIGHTS_OF


@dataclass(frozen=True)
class TextClassifier:
    """What `fit_text` trains, and is exported then.

    Attributes:
        model: from its inputs, a dict, to probabilities, float32 [batch, classes].
        members: the probabilities whose mean is the answer; each is trained for itself.
        inputs: a batch of the features of transform/text.py -> what `model` takes, without what fills rows up.
        resources: the tables that `inputs` uses, for the export to take along.
        fixed: the part of `model` that is not trained, from its inputs to vectors, which are made once.
        head: from these vectors, by the name VECTORS, and the other inputs to probabilities: the part that is trained.
        head_members: see members, of the head.
        chunk: how many texts `model` is asked with at once, of like length; None where their length does not matter.
    """

    model: keras.Model
    members: Sequence[keras.KerasTensor]
    inputs: Callable[[Features], Mapping[str, Column]]
    resources: Mapping[str, Any] = field(default_factory=dict)
    fixed: keras.Model | None = None
    head: keras.Model | None = None
    head_members: Sequence[keras.KerasTensor] = ()
    chunk: int | None = None

    @classmethod
    def of(
        cls,
        taken: Mapping[str, keras.KerasTensor],
        members: Sequence[keras.KerasTensor],
        inputs: Callable[[Features], Mapping[str, Column]],
        resources: Mapping[str, Any] | None = None,
    ) -> TextClassifier:
        """The classifier that answers with the mean of its members; `taken` are the model's inputs by name."""
        return cls(keras.Model(taken, _mean(members)), members, inputs, resources or {})


def _mean(members: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    return members[0] if len(members) == 1 else keras.layers.average(members)


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
    ratios = {kind: _ratio_layer(kind, size, classes) for kind, size in vocabulary_sizes.items()}
    first = next(iter(vocabulary_sizes))
    members = [
        keras.layers.Softmax()(_scaled_linear(inputs, vocabulary_sizes, ratios, classes, options)),
        keras.layers.Softmax()(_linear_and_network(inputs, first, vocabulary_sizes[first], classes, options)),
    ]
    classifier = TextClassifier.of(inputs, members, ragged_terms)
    set_ratios(classifier.model, train)
    return classifier


def set_ratios(model: keras.Model, train: TransformedSplit | RowStore) -> None:
    """Give a model the log-count ratios of these texts; one without n-grams stays as it is."""
    for layer in model.layers:
        kind = layer.name.removesuffix(_RATIOS)
        if kind == layer.name:
            continue
        counts = np.zeros([layer.input_dim, layer.output_dim])
        for part in train.parts() if isinstance(train, RowStore) else [train]:
            _count(part.features[kind], part.labels, counts)
        layer.set_weights([_ratios(counts)])


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


# Behind the kind of terms, in the names of layers.
_RATIOS = "_ratios"


def _ratio_layer(kind: str, size: int, classes: int) -> keras.layers.Layer:
    # Set after the layer is built: as an initializer, the numbers would be in the model's config, as text.
    layer = keras.layers.Embedding(
        size + 1, classes, embeddings_initializer="zeros", trainable=False, name=f"{kind}{_RATIOS}"
    )
    layer.build()
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


VECTORS = "vectors"


def transformer_classifier(
    encoder: PretrainedEncoder,
    train: TransformedSplit | RowStore,
    vocabulary_sizes: Mapping[str, int],
    classes: int,
    options: TransformerOptions,
) -> TextClassifier:
    """A pretrained encoder and a network over its pooled vectors; to be trained, as far as the options say.

    Where they say so, the model of n-grams is beside it.

    A text without pieces gets the answer for the pieces before and behind it.

    Args:
        encoder: with the weights to begin with.
        train: the features of the n-grams, see ngram_classifier.
        vocabulary_sizes: the same.
        classes: how many labels there are.
        options: what is trained, pooling, and the network.
    """
    network = encoder.network(options.precision)
    pieces = network.input[PIECES]
    vectors = pooled(network.output, pieces, options.pooling)
    _train_last_layers(network, encoder.architecture.layers, options.trained_layers)
    is_fixed = options.trained_layers == 0
    # Dropout stands before the first layer that is trained: of what is normalised, where that stays as it is.
    layers: list[keras.layers.Layer] = [keras.layers.Normalization(name="vector_norm")] if is_fixed else []
    layers.append(keras.layers.Dropout(options.dropout))
    if options.hidden_units:
        layers += [keras.layers.Dense(options.hidden_units, activation="relu"), keras.layers.Dropout(options.dropout)]
    layers += [keras.layers.Dense(classes, dtype="float32"), keras.layers.Softmax(dtype="float32")]

    def probabilities(vectors: Any) -> Any:
        for layer in layers:
            vectors = layer(vectors)
        return vectors

    beside, taken = _ngrams_beside(train, vocabulary_sizes, classes) if options.ngrams else ([], {})
    members = [*beside, probabilities(vectors)]
    fixed = head = None
    head_members: list[keras.KerasTensor] = []
    if is_fixed:
        fixed = keras.Model({PIECES: pieces}, vectors)
        given = keras.Input([encoder.architecture.width], name=VECTORS)
        head_members = [*beside, probabilities(given)]
        head = keras.Model({VECTORS: given, **taken}, _mean(head_members))
    return TextClassifier(
        model=keras.Model({PIECES: pieces, **taken}, _mean(members)),
        members=members,
        inputs=pieces_and_terms(encoder, options),
        resources={"tokenizer": encoder.tokenizer},
        fixed=fixed,
        head=head,
        head_members=head_members,
        chunk=CHUNK,
    )


def _ngrams_beside(
    train: TransformedSplit | RowStore, vocabulary_sizes: Mapping[str, int], classes: int
) -> tuple[list[keras.KerasTensor], dict[str, keras.KerasTensor]]:
    """The members of the model of n-grams with its defaults, and its inputs by name."""
    ngrams = ngram_classifier(train, vocabulary_sizes, classes, NgramOptions())
    return list(ngrams.members), dict(ngrams.model.input)


def wrapped_classifier(wrapped: WrappedText) -> TextClassifier:
    """A classifier that exists, which is not trained."""
    model = wrapped.classifier()
    inputs = pieces_of_texts(wrapped, wrapped.maximum_length)
    return TextClassifier(model, [model.output], inputs, {"tokenizer": wrapped.tokenizer}, chunk=CHUNK)


def _train_last_layers(network: keras.Model, layers: int, trained: int | str) -> None:
    if trained == "all":
        return
    last = {f"layer_{number}_" for number in range(max(layers - int(trained), 0), layers)}
    for layer in network.layers:
        layer.trainable = any(layer.name.startswith(name) for name in last)


def pieces_of_texts(encoder: PretrainedEncoder, maximum_length: int) -> Callable[[Features], dict[str, Column]]:
    """What makes pieces of the features of transform/text.py, see PretrainedEncoder.pieces."""
    return lambda features: {PIECES: encoder.pieces(features[TEXT], maximum_length)}


def static_classifier(
    vectors: StaticVectors,
    train: TransformedSplit | RowStore,
    vocabulary_sizes: Mapping[str, int],
    classes: int,
    options: StaticOptions,
) -> TextClassifier:
    """A network over the mean of static vectors, and the model of n-grams beside it where the options say so.

    Args:
        vectors: of the pieces.
        train: the pieces, and the features of the n-grams, see ngram_classifier.
        vocabulary_sizes: the same.
        classes: how many labels there are.
        options: where the vectors come from, whether they are trained, and the network.
    """
    pieces = keras.Input([None], name=PIECES, dtype="int32")
    hidden = averaged(pieces, vectors.of(train, options.context_pieces), options.trained_vectors)
    # Of length 1: numbers of about 1 / sqrt(width), which a network of usual initial weights learns from slowly.
    hidden = keras.layers.Dropout(options.dropout)(hidden * hidden.shape[1] ** 0.5)
    if options.hidden_units:
        hidden = keras.layers.Dense(options.hidden_units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(options.dropout)(hidden)
    beside, taken = _ngrams_beside(train, vocabulary_sizes, classes) if options.ngrams else ([], {})
    members = [*beside, keras.layers.Softmax()(keras.layers.Dense(classes)(hidden))]
    inputs = pieces_and_terms(vectors, options)
    return TextClassifier.of({PIECES: pieces, **taken}, members, inputs, {"tokenizer": vectors.tokenizer})


def pieces_and_terms(
    encoder: PretrainedEncoder | StaticVectors, options: TransformerOptions | StaticOptions
) -> Callable[[Features], dict[str, Column]]:
    """What makes pieces, and the terms where the options want them, of the features of transform/text.py."""

    def inputs(features: Features) -> dict[str, Column]:
        pieces = {PIECES: encoder.pieces(features[TEXT], options.maximum_length)}
        return pieces | ragged_terms(features) if options.ngrams else pieces

    return inputs


# What exists before any training, and a model stands on.
Pretrained = TextEmbedding | PretrainedEncoder | StaticVectors


@dataclass(frozen=True)
class TextModel:
    """A kind of model of texts.

    Attributes:
        inputs: the embedding or encoder, where the model stands on one, and the options -> what makes its inputs of
            Transform's features.
        build: the train split, the size of each vocabulary, the number of classes, the options and the embedding or
            encoder -> the untrained model.
        pretrained: the options -> the embedding or encoder; None for a model that stands on none.
    """

    inputs: Callable[[Any, Any], Callable[[Features], dict[str, Column]]]
    build: Callable[[TransformedSplit | RowStore, Mapping[str, int], int, Any, Any], TextClassifier]
    pretrained: Callable[[Any], Pretrained] | None = None


# By the name in `trainer.model`.
TEXT_MODELS = {
    "ngrams": TextModel(
        inputs=lambda _, __: ragged_terms,
        build=lambda train, sizes, classes, options, _: ngram_classifier(train, sizes, classes, options),
    ),
    "encoder": TextModel(
        inputs=lambda _, __: ragged_tokens,
        build=lambda _, sizes, classes, options, __: encoder_classifier(sizes[TOKENS], classes, options),
    ),
    "hub": TextModel(
        inputs=lambda embedding, _: embedded_texts(embedding),
        build=lambda _, __, classes, options, embedding: hub_classifier(embedding, classes, options),
        pretrained=lambda options: TextEmbedding(options.handle),
    ),
    "transformer": TextModel(
        inputs=pieces_and_terms,
        build=lambda train, sizes, classes, options, encoder: transformer_classifier(
            encoder, train, sizes, classes, options
        ),
        pretrained=lambda options: PretrainedEncoder(options.encoder),
    ),
    "static": TextModel(
        inputs=pieces_and_terms,
        build=lambda train, sizes, classes, options, vectors: static_classifier(
            vectors, train, sizes, classes, options
        ),
        pretrained=lambda options: StaticVectors(options.encoder, options.vector_width),
    ),
    "wrap": TextModel(
        inputs=lambda wrapped, _: pieces_of_texts(wrapped, wrapped.maximum_length),
        build=lambda _, __, ___, ____, wrapped: wrapped_classifier(wrapped),
        pretrained=WrappedText,
    ),
}


def pretrained_of(options: TextModelOptions) -> Pretrained | None:
    """The embedding or encoder that the model of these options stands on, if any.

    Raises:
        TrainingError: it cannot be loaded.
    """
    load = TEXT_MODELS[options.model].pretrained
    return load(options) if load else None
