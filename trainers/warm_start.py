"""Begin a training with the weights of the model that is served."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import orjson
import tensorflow as tf
from pydantic import BaseModel, ConfigDict

# In an export: the frozen graph beside them has no variables.
_MODEL_FILE = "assets.extra/warm_start.keras"
_MEANING_FILE = "assets.extra/warm_start.json"


class MeaningOfWeights(BaseModel):
    """What tells whether a weight of one model means the same in another.

    Attributes:
        columns: raw feature -> its type.
        preprocessing: the options, as JSON has them.
        labels: in the order of the probabilities.
        vocabulary: in the order of the rows of the embeddings, of which the first is for what is not in it.
    """

    model_config = ConfigDict(frozen=True)

    columns: Mapping[str, str]
    preprocessing: Mapping[str, Any]
    labels: Sequence[str]
    vocabulary: Sequence[str]


def leave_for_warm_start(export_path: str, model: keras.Model, meaning: MeaningOfWeights) -> None:
    """Write into an export what `start_warm` takes from it, once it is served."""
    tf.io.gfile.makedirs(f"{export_path}/assets.extra")
    with tempfile.TemporaryDirectory() as folder:
        local = str(Path(folder) / "model.keras")
        model.save(local)
        tf.io.gfile.copy(local, f"{export_path}/{_MODEL_FILE}", overwrite=True)
    with tf.io.gfile.GFile(f"{export_path}/{_MEANING_FILE}", "wb") as file:
        file.write(orjson.dumps(meaning.model_dump(mode="json")))


def start_warm(model: keras.Model, meaning: MeaningOfWeights, served: str) -> str:
    """Give an untrained model the weights of the served one; an embedding's rows go by what they stand for.

    Rows of what the served model does not know stay as they are. So does everything where the weights of the
    two models do not mean the same.

    Args:
        model: of the same build.
        meaning: of its weights.
        served: a copy of the served model's directory; an empty path where nothing is served.

    Returns:
        for people: from where the training starts, and why so.
    """
    if not tf.io.gfile.exists(f"{served}/{_MODEL_FILE}"):
        return "cold: the served model, if there is one, was not trained with warm_start"
    with tf.io.gfile.GFile(f"{served}/{_MEANING_FILE}", "rb") as file:
        before = MeaningOfWeights.model_validate_json(file.read())
    different = [
        name for name in ("columns", "preprocessing", "labels") if getattr(before, name) != getattr(meaning, name)
    ]
    if different:
        return f"cold: other {' and '.join(different)} than the served model's"
    trained = _load(f"{served}/{_MODEL_FILE}")
    pairs = [*zip(_weighted(trained), _weighted(model), strict=False)]
    if len(_weighted(trained)) != len(_weighted(model)) or not all(_same_build(*pair) for pair in pairs):
        return "cold: other layers than the served model's"
    for source, target in pairs:
        if isinstance(target, keras.layers.Embedding):
            target.set_weights([_rows(source, target, before.vocabulary, meaning.vocabulary)])
        else:
            target.set_weights(source.get_weights())
    known = len(set(before.vocabulary) & set(meaning.vocabulary))
    return f"warm: from the served model, with {known} of {len(meaning.vocabulary)} categories"


def _load(path: str) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        local = str(Path(folder) / "model.keras")
        tf.io.gfile.copy(path, local)
        return keras.models.load_model(local, compile=False)


def _weighted(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _same_build(source: keras.Layer, target: keras.Layer) -> bool:
    """Whether the weights have the same shapes; embeddings, the same width."""
    if type(source) is not type(target):
        return False
    first = 1 if isinstance(target, keras.layers.Embedding) else 0
    return [weight.shape[first:] for weight in source.weights] == [weight.shape[first:] for weight in target.weights]


def _rows(
    source: keras.Layer, target: keras.Layer, before: Sequence[str], after: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    (learned,), (rows,) = source.get_weights(), target.get_weights()
    place = {category: row for row, category in enumerate(before, start=1)}
    rows[0] = learned[0]
    for row, category in enumerate(after, start=1):
        if category in place:
            rows[row] = learned[place[category]]
    return rows
