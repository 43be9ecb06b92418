"""Static vectors: one for each piece of a WordPiece vocabulary, of which a text's are averaged."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.errors import TrainingError
from trainers.row_store import RowStore
from trainers.splits import TransformedSplit
from trainers.text.encoders import PIECES, PretrainedEncoder, pieces_tokenizer, pooled, read_safetensors

# The array of a folder that holds such vectors, as model2vec writes it.
GIVEN = "embeddings"
# Of the weight a / (a + p) of a piece of probability p (Arora, Liang and Ma, "A simple but tough-to-beat baseline for
# sentence embeddings", ICLR 2017). Vocabularies list pieces by their frequency, so p is taken from Zipf's law.
RARITY = 1e-4
_PIECES_AT_ONCE = 1024


class StaticVectors(tf.Module):
    """A vector for each piece, and the tokenizer, whose tables an export takes along.

    Args:
        path: of a folder in Hugging Face's layout: with an encoder of the BERT family, or with the vectors themselves
            as the one array `embeddings` of model.safetensors.
        width: how many numbers a vector is reduced to.

    Raises:
        TrainingError: the folder is neither, or the vectors and the tokenizer do not fit.
    """

    def __init__(self, path: str, width: int) -> None:
        super().__init__(name="static_vectors")
        self._width = width
        self._encoder: PretrainedEncoder | None = None
        self._found: tuple[TransformedSplit | RowStore, int, np.ndarray] | None = None
        arrays = read_safetensors(f"{path}/model.safetensors")
        if GIVEN in arrays:
            if list(arrays) != [GIVEN] or arrays[GIVEN].ndim != 2:
                raise TrainingError(
                    f"{path}/model.safetensors holds {', '.join(arrays)}; expected {GIVEN} alone, a row for each piece"
                )
            self._given = np.asarray(arrays[GIVEN], np.float32)
            self.tokenizer = pieces_tokenizer(path, len(self._given))
        else:
            self._encoder = PretrainedEncoder(path)
            self.tokenizer = self._encoder.tokenizer

    def pieces(self, texts: tf.Tensor, maximum_length: int) -> tf.RaggedTensor:
        """int32 [batch, n]: the numbers of the pieces of texts, string [batch], + 1; not those around a text."""
        return self.tokenizer(texts, maximum_length + 2)[:, 1:-1] + 1

    def of(self, train: TransformedSplit | RowStore, most_pieces: int) -> np.ndarray:
        """float32 [pieces, width]: those of the folder; of an encoder, what it makes of pieces in these texts.

        That is the mean of its vectors wherever it stands (Bommasani, Davis and Cardie, "Interpreting pretrained
        contextualized representations via reductions to static equivalents", ACL 2020), and of its vector as a text of
        its own, which a piece that stands nowhere is left with.

        Args:
            train: with the feature PIECES.
            most_pieces: of the texts the encoder reads about so many pieces, of evenly spread texts; 0 for none.
        """
        if self._encoder is None:
            vectors = self._given
            return vectors if vectors.shape[1] <= self._width else principal_components(vectors, self._width)
        # A search asks for the same texts in each of its trials.
        if self._found is None or self._found[0] is not train or self._found[1] != most_pieces:
            self._found = train, most_pieces, self._of_encoder(self._encoder, train, most_pieces)
        return self._found[2]

    def _of_encoder(
        self, encoder: PretrainedEncoder, train: TransformedSplit | RowStore, most_pieces: int
    ) -> np.ndarray:
        network = encoder.network()
        around = np.array(encoder.tokenizer.around, np.int32) + 1
        vectors = vectors_of_pieces(network, around)
        if most_pieces:
            sums, counts = sums_in_context(network, around, _some_texts(train, most_pieces), len(vectors))
            vectors = (vectors + sums) / (1 + counts[:, None])
        vectors = principal_components(vectors, self._width)
        return vectors * rarity(len(vectors))[:, None]


# What stands further behind in a text is read in no context: attention takes time by the square of the length.
_READ_OF_A_TEXT = 126


def _some_texts(train: TransformedSplit | RowStore, most_pieces: int) -> tf.RaggedTensor:
    """The pieces of evenly spread texts, the first of each, about so many in all."""
    count = train.rows if isinstance(train, RowStore) else len(train.labels)
    probe = _texts_of(train, np.unique(np.linspace(0, count - 1, _PROBED).astype(np.int64)))
    length = max(1.0, float(probe.row_lengths().numpy().mean()))
    return _texts_of(train, np.unique(np.linspace(0, count - 1, max(1, int(most_pieces / length))).astype(np.int64)))


_PROBED = 1000


def _texts_of(train: TransformedSplit | RowStore, rows: np.ndarray) -> tf.RaggedTensor:
    if isinstance(train, RowStore):
        texts = train.chosen(rows).features[PIECES]
    else:
        texts = tf.gather(train.features[PIECES], rows)
    return texts[:, :_READ_OF_A_TEXT]


# Pieces that the encoder is given at once.
_CONTEXT_AT_ONCE = 4096


def sums_in_context(
    network: keras.Model, around: np.ndarray, texts: tf.RaggedTensor, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [size, width] and [size]: the sum of the vectors of each piece in texts, and how often it stands there.

    Args:
        network: of the encoder.
        around: int32 [2], what it is given before and behind a text.
        texts: int32 [n, m], see StaticVectors.pieces.
        size: how many pieces there are.
    """
    signature = [tf.TensorSpec([None, None], tf.int32)]
    states_of = tf.function(lambda pieces: network({PIECES: pieces}), input_signature=signature, autograph=False)
    sums = np.zeros([size, network.output.shape[2]], np.float32)
    counts = np.zeros(size, np.float32)
    order = np.argsort(texts.row_lengths().numpy(), kind="stable")
    lengths = texts.row_lengths().numpy()[order]
    first = 0
    while first < len(order):
        last = first + max(1, int(_CONTEXT_AT_ONCE // (lengths[first] + len(around))))
        chunk = tf.gather(texts, order[first:last])
        first = last
        ends = tf.tile(around[None, :], [chunk.nrows(), 1])
        states = states_of(tf.concat([ends[:, :1], chunk, ends[:, 1:]], axis=1).to_tensor())
        inside = tf.sequence_mask(chunk.row_lengths(), tf.shape(states)[1] - 2)
        pieces = chunk.flat_values.numpy() - 1
        np.add.at(sums, pieces, tf.boolean_mask(states[:, 1:-1], inside).numpy())
        np.add.at(counts, pieces, 1)
    return sums, counts


def vectors_of_pieces(network: keras.Model, around: np.ndarray) -> np.ndarray:
    """float32 [pieces, width]: what the encoder makes of each piece as a text of its own, between those around it."""
    given = network.input[PIECES]
    model = keras.Model(network.input, pooled(network.output, given, "mean"))
    alone = np.arange(1, network.get_layer("piece_vectors").input_dim + 1, dtype=np.int32)
    before, behind = (np.full_like(alone, piece) for piece in around)
    texts = np.stack([before, alone, behind], axis=1)
    return np.asarray(model.predict({PIECES: texts}, batch_size=_PIECES_AT_ONCE, verbose=0))


def principal_components(vectors: np.ndarray, width: int) -> np.ndarray:
    """float32 [n, width or fewer]: the vectors around their mean, in the directions in which they differ most."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return (centred @ directions[:, ::-1][:, :width]).astype(np.float32)


def rarity(count: int) -> np.ndarray:
    """float32 [count]: the weights of pieces that are listed by their frequency."""
    shares = 1 / (np.arange(count) + 2.0)
    return (RARITY / (RARITY + shares / shares.sum())).astype(np.float32)


def averaged(pieces: Any, vectors: np.ndarray, is_trained: bool) -> Any:
    """float32 [batch, width]: the mean vector of pieces, see StaticVectors.pieces, of length 1; 0 for none."""
    layer = keras.layers.Embedding(*vectors.shape, name="piece_vectors", trainable=is_trained)
    layer.build()
    layer.set_weights([vectors])
    present = keras.ops.cast(keras.ops.greater(pieces, 0), "float32")
    sums = keras.ops.einsum("bnd,bn->bd", layer(keras.ops.maximum(pieces - 1, 0)), present)
    return sums / keras.ops.maximum(keras.ops.sqrt(keras.ops.sum(sums * sums, axis=1, keepdims=True)), 1e-6)
