"""Static vectors: one for each piece of a WordPiece vocabulary, of which a text's are averaged."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.errors import TrainingError
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
        arrays = read_safetensors(f"{path}/model.safetensors")
        if GIVEN in arrays:
            if list(arrays) != [GIVEN] or arrays[GIVEN].ndim != 2:
                raise TrainingError(
                    f"{path}/model.safetensors holds {', '.join(arrays)}; expected {GIVEN} alone, a row for each piece"
                )
            vectors = np.asarray(arrays[GIVEN], np.float32)
            self.tokenizer = pieces_tokenizer(path, len(vectors))
            self.vectors = vectors if vectors.shape[1] <= width else principal_components(vectors, width)
        else:
            encoder = PretrainedEncoder(path)
            self.tokenizer = encoder.tokenizer
            vectors = principal_components(vectors_of_pieces(encoder), width)
            self.vectors = vectors * rarity(len(vectors))[:, None]

    def pieces(self, texts: tf.Tensor, maximum_length: int) -> tf.RaggedTensor:
        """int32 [batch, n]: the numbers of the pieces of texts, string [batch], + 1; not those around a text."""
        return self.tokenizer(texts, maximum_length + 2)[:, 1:-1] + 1


def vectors_of_pieces(encoder: PretrainedEncoder) -> np.ndarray:
    """float32 [pieces, width]: what the encoder makes of each piece as a text of its own."""
    network = encoder.network()
    given = network.input[PIECES]
    model = keras.Model(network.input, pooled(network.output, given, "mean"))
    size = network.get_layer("piece_vectors").input_dim
    alone = np.broadcast_to(np.array(encoder.tokenizer.around, np.int32)[None, :, None], [size, 2, 1])
    texts = np.concatenate([alone[:, 0], np.arange(size, dtype=np.int32)[:, None], alone[:, 1]], axis=1) + 1
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


def averaged(pieces: Any, vectors: StaticVectors, is_trained: bool) -> Any:
    """float32 [batch, width]: the mean vector of pieces, see StaticVectors.pieces, of length 1; 0 for none."""
    layer = keras.layers.Embedding(*vectors.vectors.shape, name="piece_vectors", trainable=is_trained)
    layer.build()
    layer.set_weights([vectors.vectors])
    present = keras.ops.cast(keras.ops.greater(pieces, 0), "float32")
    sums = keras.ops.einsum("bnd,bn->bd", layer(keras.ops.maximum(pieces - 1, 0)), present)
    return sums / keras.ops.maximum(keras.ops.sqrt(keras.ops.sum(sums * sums, axis=1, keepdims=True)), 1e-6)
