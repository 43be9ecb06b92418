"""Warm start: training begun with the weights of the served model."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import orjson
import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from trainers.splits import TransformGraph


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Give a layer, or a model that is one, the weights of another of the same build."""
    target.set_weights(source.get_weights())
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # It computes with copies of its weights.
            layer.finalize_state()


# In an export: the frozen graph beside them has no variables.
_MODEL_FILE = "assets.extra/warm_start.keras"
_MEANING_FILE = "assets.extra/warm_start.json"


class MeaningOfWeights(BaseModel):
    """What tells whether a weight of one model means the same in another.

    Attributes:
        columns: raw feature -> its type.
        preprocessing: the options, as JSON has them.
        labels: in the order of the probabilities.
        vocabularies: by name. An Embedding of the model whose name begins with that of a vocabulary and an underscore
            has the vocabulary's tokens as its last rows, in their order; rows before them stand for what is no token.
        embedding: the handle of the model that exists and whose answers are the inputs; empty for none.
        backbone: of photos: its name, a fingerprint of the weights it has without training, and the blocks that the
            head sees.
    """

    model_config = ConfigDict(frozen=True)

    columns: Mapping[str, str]
    preprocessing: Mapping[str, Any]
    labels: Sequence[str]
    vocabularies: Mapping[str, Sequence[str]] = {}
    embedding: str = ""
    backbone: Mapping[str, Any] = {}

    @classmethod
    def of(
        cls,
        transform: TransformGraph,
        preprocessing: BaseModel,
        labels: Sequence[str],
        vocabularies: Mapping[str, Sequence[str]],
        embedding: str = "",
    ) -> MeaningOfWeights:
        """Of the weights of a model that takes what `transform` makes by the options `preprocessing`."""
        spec = sorted(transform.raw_feature_spec.items())
        return cls(
            columns={name: str(feature.dtype.name) for name, feature in spec},
            preprocessing=preprocessing.model_dump(mode="json"),
            labels=labels,
            vocabularies=vocabularies,
            embedding=embedding,
        )


def write_warm_start(export_path: str, model: keras.Model, meaning: MeaningOfWeights) -> None:
    """Write into an export what `start_warm` takes from it, once it is served."""
    tf.io.gfile.makedirs(f"{export_path}/assets.extra")
    with tempfile.TemporaryDirectory() as folder:
        local = str(Path(folder) / "model.keras")
        model.save(local)
        tf.io.gfile.copy(local, f"{export_path}/{_MODEL_FILE}", overwrite=True)
    with tf.io.gfile.GFile(f"{export_path}/{_MEANING_FILE}", "wb") as file:
        file.write(orjson.dumps(meaning.model_dump(mode="json")))


def start_warm(model: keras.Model, meaning: MeaningOfWeights, served: str) -> str:
    """Give an untrained model the weights of the served one; rows of a vocabulary go by the token they stand for.

    Rows of tokens that the served model does not know stay as they are; so do those of an Embedding that is not
    trained, which were computed from the data. So does everything where the weights of the two models do not mean the
    same.

    Args:
        model: of the same build.
        meaning: of its weights.
        served: a copy of the served model's directory; an empty path where nothing is served.

    Returns:
        for people: from where the training starts, and why so.
    """
    before = meaning_of_served(served)
    if before is None:
        return "cold: the served model, if there is one, was not trained with warm_start"
    compared = ("columns", "preprocessing", "labels", "embedding", "backbone")
    different = [name for name in compared if getattr(before, name) != getattr(meaning, name)]
    if different:
        return f"cold: other {' and '.join(different)} than the served model's"
    trained = _load(f"{served}/{_MODEL_FILE}")
    if not _same_layers(trained, model, before, meaning):
        return "cold: other layers than the served model's"
    for source, target in zip(_weighted(trained), _weighted(model), strict=True):
        vocabulary = _vocabulary(target, meaning)
        if vocabulary is None:
            copy_weights(source, target)
        elif target.trainable:
            target.set_weights(
                [_rows(source, target, before.vocabularies[vocabulary], meaning.vocabularies[vocabulary])]
            )
    return f"warm: from the served model{_known_of_each(before, meaning)}"


def meaning_of_served(served: str) -> MeaningOfWeights | None:
    """The meaning of the weights that `start_warm` takes from the served model; None where there are none."""
    if not tf.io.gfile.exists(f"{served}/{_MODEL_FILE}"):
        return None
    with tf.io.gfile.GFile(f"{served}/{_MEANING_FILE}", "rb") as file:
        return MeaningOfWeights.model_validate_json(file.read())


def start_fingerprint(served: str) -> str:
    """SHA-256 of what `start_warm` takes from the served model; empty where there is nothing."""
    if meaning_of_served(served) is None:
        return ""
    with tf.io.gfile.GFile(f"{served}/{_MODEL_FILE}", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _load(path: str) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        local = str(Path(folder) / "model.keras")
        tf.io.gfile.copy(path, local)
        return keras.models.load_model(local, compile=False)


def _weighted(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _vocabulary(layer: keras.Layer, meaning: MeaningOfWeights) -> str | None:
    """The name of the vocabulary whose tokens have rows in the layer, if any."""
    name = layer.name.partition("_")[0]
    return name if isinstance(layer, keras.layers.Embedding) and name in meaning.vocabularies else None


def _same_layers(trained: keras.Model, model: keras.Model, before: MeaningOfWeights, after: MeaningOfWeights) -> bool:
    sources, targets = _weighted(trained), _weighted(model)
    if len(sources) != len(targets) or before.vocabularies.keys() != after.vocabularies.keys():
        return False
    return all(_same_build(*pair, before, after) for pair in zip(sources, targets, strict=True))


def _same_build(source: keras.Layer, target: keras.Layer, before: MeaningOfWeights, after: MeaningOfWeights) -> bool:
    """Whether the weights have the same shapes; where the rows are tokens, all but the number of tokens."""
    if type(source) is not type(target):
        return False
    vocabulary = _vocabulary(target, after)
    if vocabulary is None:
        return [weight.shape for weight in source.weights] == [weight.shape for weight in target.weights]
    if source.name != target.name or source.output_dim != target.output_dim:
        return False
    no_tokens = [
        layer.input_dim - len(meaning.vocabularies[vocabulary])
        for layer, meaning in ((source, before), (target, after))
    ]
    return no_tokens[0] == no_tokens[1]


def _rows(
    source: keras.Layer, target: keras.Layer, before: Sequence[str], after: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    (learned,), (rows,) = source.get_weights(), target.get_weights()
    first = len(rows) - len(after)
    rows[:first] = learned[:first]
    place = {token: row for row, token in enumerate(before, start=first)}
    known = [(row, place[token]) for row, token in enumerate(after, start=first) if token in place]
    if known:
        to, came_from = zip(*known, strict=True)
        rows[[*to]] = learned[[*came_from]]
    return rows


def _known_of_each(before: MeaningOfWeights, after: MeaningOfWeights) -> str:
    known = [
        f"{len(set(tokens) & set(before.vocabularies[name]))} of {len(tokens)} {name}"
        for name, tokens in after.vocabularies.items()
    ]
    return f", with {' and '.join(known)}" if known else ""
