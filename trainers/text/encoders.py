"""Pretrained encoders of the BERT family, from a folder in Hugging Face's layout: read, built in Keras, asked."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from trainers.errors import TrainingError
from trainers.options import Precision
from trainers.splits import dense_batch
from transform.errors import PreprocessingError
from transform.wordpiece import WordPieceTokenizer, read_wordpiece

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PIECES = "pieces"
# How many texts are put through an encoder together, at most.
CHUNK = 32

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_LONGEST_HEADER = 100_000_000


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name: eight bytes of length, a JSON header, then the arrays as they are.

    Args:
        path: local, or in an object store.

    Raises:
        TrainingError: the file is missing, cut off, or no safetensors file.

    Source: https://github.com/huggingface/safetensors#format
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
        (length,) = struct.unpack("<Q", content[:8])
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header would be {length:,} bytes long")
        header = json.loads(content[8 : 8 + length])
        data = memoryview(content)[8 + length :]
        return {name: _array(data, **entry) for name, entry in header.items() if name != "__metadata__"}
    except tf.errors.OpError as error:
        raise TrainingError(
            f"{path} cannot be read; expected the weights as a safetensors file: convert pytorch_model.bin to it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise TrainingError(
            f"{path} is no whole safetensors file ({error}); take it anew from where it came"
        ) from error


def _array(data: memoryview, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> np.ndarray:
    begin, end = data_offsets
    kind = np.dtype(_DTYPES[dtype])
    if not 0 <= begin <= end <= len(data) or end - begin != int(np.prod(shape)) * kind.itemsize:
        raise ValueError(f"an array {dtype} {list(shape)} is said to be in bytes {begin:,} to {end:,} of {len(data):,}")
    return np.frombuffer(data[begin:end], kind).reshape(shape)


# By the name in config.json.
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: keras.ops.gelu(x, approximate=False),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), lambda x: keras.ops.gelu(x, approximate=True)),
    "relu": keras.ops.relu,
    **dict.fromkeys(("silu", "swish"), keras.ops.silu),
}


@dataclass(frozen=True)
class Architecture:
    """The shape of an encoder.

    Attributes:
        layers: how many there are.
        width: of a token's vector.
        heads: of attention.
        hidden_width: of the layer inside of each.
        positions: how many pieces a text may have.
        activation: of the layer inside, by its name in config.json.
        epsilon: of layer normalization.
        dropout: the share of numbers that training does without.
    """

    layers: int
    width: int
    heads: int
    hidden_width: int
    positions: int
    activation: str = "gelu"
    epsilon: float = 1e-12
    dropout: float = 0.1


_PIECE_VECTORS = "embeddings.word_embeddings.weight"
# What the weights of an encoder layer are called: ours -> theirs.
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "inner": "ffn.lin1",
    "outer": "ffn.lin2",
    "norm": "output_layer_norm",
}


@dataclass(frozen=True)
class EncoderFolder:
    """A pretrained encoder: its configuration, its weights and its tokenizer.

    Args:
        path: of the folder; local, or in an object store.
    """

    path: str

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json.

        Raises:
            TrainingError: there is none, or it is of no encoder of the BERT family.
        """
        path = f"{self.path}/{CONFIG_FILE}"
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                config: dict[str, Any] = json.loads(file.read())
        except (tf.errors.OpError, ValueError) as error:
            raise TrainingError(
                f"{path} cannot be read as JSON; expected a folder in Hugging Face's layout, with {CONFIG_FILE}, "
                f"{WEIGHTS_FILE} and vocab.txt or tokenizer.json: name it in trainer.encoder"
            ) from error
        kind, positions = config.get("model_type"), config.get("position_embedding_type", "absolute")
        if kind not in ("bert", "distilbert") or positions != "absolute":
            raise TrainingError(
                f"{path} is of a model {kind!r} with {positions} positions; expected bert or distilbert with absolute "
                "ones: choose an encoder of the BERT family"
            )
        return config

    @cached_property
    def architecture(self) -> Architecture:
        """What config.json says of the network.

        Raises:
            TrainingError: it lacks a number, or names an activation that is not known.
        """
        config = self.config
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
        if config["model_type"] == "distilbert":
            names = ("n_layers", "dim", "n_heads", "hidden_dim")
        activation = config.get("hidden_act", config.get("activation", "gelu"))
        missing = [name for name in (*names, "max_position_embeddings") if not isinstance(config.get(name), int)]
        if missing or activation not in _ACTIVATIONS:
            raise TrainingError(
                f"{self.path}/{CONFIG_FILE} has {f'no {missing[0]}' if missing else f'activation {activation}'}; "
                f"expected all of an encoder, with one of {', '.join(_ACTIVATIONS)}: choose another encoder, or take "
                "the folder's files anew from where they came"
            )
        layers, width, heads, hidden_width = (config[name] for name in names)
        return Architecture(
            layers=layers,
            width=width,
            heads=heads,
            hidden_width=hidden_width,
            positions=config["max_position_embeddings"],
            activation=activation,
            epsilon=config.get("layer_norm_eps", 1e-12),
            dropout=config.get("hidden_dropout_prob", config.get("dropout", 0.1)),
        )

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The weights by their names in the file, without the name of the model before them."""
        prefix = f"{self.config['model_type']}."
        arrays = read_safetensors(f"{self.path}/{WEIGHTS_FILE}")
        renamed = {name.removeprefix(prefix): array for name, array in arrays.items()}
        return {
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): array
            for name, array in renamed.items()
        }

    def weight(self, name: str, shape: Sequence[int] | None = None) -> np.ndarray:
        """float32: a weight by its name.

        Raises:
            TrainingError: there is none, or it has another shape.
        """
        array = self.arrays.get(name)
        if array is None or (shape is not None and list(array.shape) != list(shape)):
            found = "has no" if array is None else f"has {list(array.shape)} as"
            raise TrainingError(
                f"{self.path}/{WEIGHTS_FILE} {found} weight {name}, expected {list(shape or [])} by {CONFIG_FILE}: "
                "take the folder's files from one model"
            )
        return np.asarray(array, np.float32)


def pieces_tokenizer(path: str, known: int) -> WordPieceTokenizer:
    """The tokenizer of a folder.

    Args:
        path: of the folder.
        known: how many pieces the model beside it knows.

    Raises:
        TrainingError: it is none of BERT's, or has more pieces than that.
    """
    try:
        rules = read_wordpiece(path)
        tokenizer = WordPieceTokenizer(rules)
    except PreprocessingError as error:
        raise TrainingError(str(error)) from error
    if rules.size > known:
        raise TrainingError(
            f"{path}: the tokenizer has {rules.size:,} pieces and the model knows {known:,}; expected files of one "
            "model: take the folder anew from where it came"
        )
    return tokenizer


def hidden_states(pieces: keras.KerasTensor, architecture: Architecture, size: int, precision: Precision) -> Any:
    """The last layer's vectors, float32 [batch, n, width], of pieces, int32 [batch, n]; to be given weights.

    Layers of Keras alone: a saved model of them needs no code of ours. Matrices are multiplied in `precision`; sums
    over layers and normalization stay float32.

    Args:
        pieces: numbers of pieces + 1; 0 fills rows up.
        architecture: of the network.
        size: how many pieces are known.
        precision: of the products.
    """
    shape, dtype = architecture, "mixed_bfloat16" if precision == "bfloat16" else "float32"
    present = keras.ops.cast(keras.ops.greater(pieces, 0), "int32")
    rows = keras.ops.maximum(pieces - 1, 0)
    places = keras.ops.minimum(keras.ops.cumsum(keras.ops.ones_like(pieces), axis=1) - 1, shape.positions - 1)

    def norm(name: str) -> keras.layers.Layer:
        return keras.layers.LayerNormalization(epsilon=shape.epsilon, name=name, dtype="float32")

    def added(first: Any, second: Any) -> Any:
        return keras.layers.Add(dtype="float32")([first, keras.layers.Dropout(shape.dropout, dtype=dtype)(second)])

    states = keras.layers.Add()(
        [
            keras.layers.Embedding(size, shape.width, name="piece_vectors")(rows),
            keras.layers.Embedding(shape.positions, shape.width, name="position_vectors")(places),
        ]
    )
    states = keras.layers.Dropout(shape.dropout)(norm("norm")(states))
    for number in range(shape.layers):
        attention = keras.layers.MultiHeadAttention(
            shape.heads,
            shape.width // shape.heads,
            dropout=shape.dropout,
            name=f"layer_{number}_attention",
            dtype=dtype,
        )(states, states, attention_mask=present[:, None, :])
        states = norm(f"layer_{number}_attention_norm")(added(states, attention))
        inner = keras.layers.Dense(shape.hidden_width, name=f"layer_{number}_inner", dtype=dtype)(states)
        inner = _ACTIVATIONS[shape.activation](inner)
        outer = keras.layers.Dense(shape.width, name=f"layer_{number}_outer", dtype=dtype)(inner)
        states = norm(f"layer_{number}_norm")(added(states, outer))
    return states


def pooled(states: Any, pieces: keras.KerasTensor, pooling: Literal["mean", "cls"]) -> Any:
    """float32 [batch, width]: the mean over the pieces of each text, or the vector of the piece before it."""
    if pooling == "cls":
        return states[:, 0]
    present = keras.ops.cast(keras.ops.greater(pieces, 0), "float32")
    sums = keras.ops.einsum("bnd,bn->bd", states, present)
    return sums / keras.ops.maximum(keras.ops.sum(present, axis=1, keepdims=True), 1.0)


class PretrainedEncoder(tf.Module):
    """An encoder of texts: its tokenizer, whose tables an export takes along, and the network that it fills.

    Args:
        path: of the folder.

    Raises:
        TrainingError: the folder is not one of an encoder that is known.
    """

    def __init__(self, path: str) -> None:
        super().__init__(name="pretrained_encoder")
        self.folder = EncoderFolder(path)
        self.architecture = self.folder.architecture
        self.tokenizer = pieces_tokenizer(path, len(self.folder.weight(_PIECE_VECTORS)))

    def pieces(self, texts: tf.Tensor, maximum_length: int) -> tf.RaggedTensor:
        """int32 [batch, n]: the numbers of the pieces of texts, string [batch], + 1; 0 is left for what fills rows up.

        Raises:
            TrainingError: the encoder takes no texts of so many pieces.
        """
        if maximum_length > self.architecture.positions:
            raise TrainingError(
                f"trainer.maximum_length is {maximum_length:,}, and {self.folder.path} takes texts of at most "
                f"{self.architecture.positions:,} pieces; lower it"
            )
        return self.tokenizer(texts, maximum_length) + 1

    def network(self, precision: Precision = "float32") -> keras.Model:
        """Pieces, see `pieces`, filled up with 0 -> float32 [batch, n, width]; with the weights of the folder."""
        pieces = keras.Input([None], name=PIECES, dtype="int32")
        size = len(self.folder.weight(_PIECE_VECTORS))
        model = keras.Model({PIECES: pieces}, hidden_states(pieces, self.architecture, size, precision), name="encoder")
        for name, weights in self.layer_weights():
            model.get_layer(name).set_weights(weights)
        return model

    def layer_weights(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        """The name of each layer of the network, and what it is set to.

        Raises:
            TrainingError: a weight is missing, or has another shape than config.json says.
        """
        shape, weight = self.architecture, self.folder.weight
        size = len(weight(_PIECE_VECTORS))
        positions = weight("embeddings.position_embeddings.weight", [shape.positions, shape.width])
        distilled = self.folder.config["model_type"] == "distilbert"
        if not distilled:
            # A text alone is all of the first type.
            positions = positions + weight("embeddings.token_type_embeddings.weight")[0]
        yield "piece_vectors", [weight(_PIECE_VECTORS, [size, shape.width])]
        yield "position_vectors", [positions]
        yield "norm", self._pair("embeddings.LayerNorm", [shape.width])
        names = _DISTILBERT_LAYER if distilled else _BERT_LAYER
        square, split = [shape.width, shape.width], [shape.width, shape.heads, -1]
        for number in range(shape.layers):
            of_layer = f"{'transformer' if distilled else 'encoder'}.layer.{number}"
            theirs = {ours: f"{of_layer}.{name}" for ours, name in names.items()}
            attention = []
            for part in ("query", "key", "value"):
                kernel, bias = self._pair(theirs[part], square)
                attention += [kernel.reshape(split), bias.reshape(split[1:])]
            kernel, bias = self._pair(theirs["output"], square)
            yield f"layer_{number}_attention", [*attention, kernel.reshape([*split[1:], shape.width]), bias]
            yield f"layer_{number}_attention_norm", self._pair(theirs["attention_norm"], [shape.width])
            yield f"layer_{number}_inner", self._pair(theirs["inner"], [shape.hidden_width, shape.width])
            yield f"layer_{number}_outer", self._pair(theirs["outer"], [shape.width, shape.hidden_width])
            yield f"layer_{number}_norm", self._pair(theirs["norm"], [shape.width])

    def _pair(self, name: str, shape: Sequence[int]) -> list[np.ndarray]:
        """Kernel [in, out] and bias of a layer, or scale and offset of a norm; `shape` is that in the file."""
        return [self.folder.weight(f"{name}.weight", shape).T, self.folder.weight(f"{name}.bias", shape[:1])]


def in_chunks(
    function: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    columns: Mapping[str, Any],
    width: int,
    size: int = CHUNK,
) -> tf.Tensor:
    """float32 [batch, width]: what the function makes of texts, `size` of like length at a time.

    Attention takes memory by the square of the longest text of a batch: so a large request takes no more of it than a
    small one, and no text waits for a longer one beside it.

    Args:
        function: columns of n texts, 0 to the end of each -> float32 [n, width].
        columns: the pieces by the name PIECES, int32 [batch, m], and what else the function takes of the texts; ragged.
        width: of what the function gives.
        size: how many texts it takes at once.
    """
    order = tf.argsort(columns[PIECES].row_lengths())
    count = tf.size(order)
    chunks = (count + size - 1) // size

    def next_chunk(step: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = order[step * size : (step + 1) * size]
        return step + 1, found.write(step, function(dense_batch(columns, rows)))

    found = tf.TensorArray(tf.float32, size=chunks, infer_shape=False, element_shape=[None, width])
    _, found = tf.while_loop(lambda step, _: step < chunks, next_chunk, (tf.constant(0), found), parallel_iterations=1)
    return tf.gather(tf.ensure_shape(found.concat(), [None, width]), tf.math.invert_permutation(order))
