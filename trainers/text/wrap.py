"""Wrapping of a classifier of texts that exists: an encoder of the BERT family with its head, from a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from trainers.errors import TrainingError
from trainers.text.encoders import CONFIG_FILE, PIECES, EncoderFolder, PretrainedEncoder
from trainers.text.options import WrapTextOptions
from transform.options import TextOptions


@dataclass(frozen=True)
class _Head:
    """What stands over the first vector of an encoder.

    Attributes:
        architecture: the name of the whole in config.json.
        layer: what its hidden layer is called in the weights; `classifier` comes after it.
        activation: of that layer.
    """

    architecture: str
    layer: str
    activation: str


# By `model_type` in config.json.
_HEADS = {
    "bert": _Head("BertForSequenceClassification", "pooler.dense", "tanh"),
    "distilbert": _Head("DistilBertForSequenceClassification", "pre_classifier", "relu"),
}
_CLASSIFIER = "classifier"


class WrappedText(PretrainedEncoder):
    """A classifier of texts as it was trained elsewhere: tokenizer, encoder, head and labels.

    Args:
        options: where it is, and its labels, if others than its own.

    Raises:
        TrainingError: it cannot be read or carried over; the message says what, and what to do.
    """

    def __init__(self, options: WrapTextOptions) -> None:
        self._head = _head_of(EncoderFolder(options.folder))
        super().__init__(options.folder)
        # Whatever lacks or does not fit is found here, before anything runs.
        for _ in self.layer_weights():
            pass
        weights = self.folder.weight
        kernel = self.folder.arrays.get(f"{_CLASSIFIER}.weight")
        if kernel is None or kernel.ndim != 2:
            raise TrainingError(
                f"{options.folder}/model.safetensors has no weight {_CLASSIFIER}.weight; expected a classifier, an "
                "encoder with a head: take a folder that was fine-tuned, or train one with trainer.model: transformer"
            )
        width = self.architecture.width
        self._kernels = [
            (weights(f"{name}.weight", [rows, width]).T, weights(f"{name}.bias", [rows]))
            for name, rows in ((self._head.layer, width), (_CLASSIFIER, len(kernel)))
        ]
        self.labels = options.labels or _labels_of(self.folder.config, len(kernel), options.folder)
        if len(self.labels) != len(kernel):
            raise TrainingError(
                f"{options.folder} answers with {len(kernel)} classes, and trainer.labels lists {len(self.labels)} "
                f"labels; expected one for each class, in their order: mend the list, or leave it out"
            )
        if len(set(self.labels)) != len(self.labels):
            raise TrainingError(
                f"{options.folder}: the labels {', '.join(self.labels)} name a class twice; expected different ones: "
                "give them as trainer.labels"
            )
        self.maximum_length = options.maximum_length or self.architecture.positions

    def classifier(self) -> keras.Model:
        """Pieces, see PretrainedEncoder.pieces, filled up with 0 -> probabilities, float32 [batch, classes]."""
        network = self.network()
        hidden = keras.layers.Dense(self.architecture.width, activation=self._head.activation, name="head")
        logits = keras.layers.Dense(len(self.labels), name="classes")
        answer = keras.layers.Softmax()(logits(hidden(network.output[:, 0])))
        for layer, weights in zip((hidden, logits), self._kernels, strict=True):
            layer.set_weights([np.asarray(part) for part in weights])
        return keras.Model({PIECES: network.input[PIECES]}, answer)


def _head_of(folder: EncoderFolder) -> _Head:
    config = folder.config
    head = _HEADS[config["model_type"]]
    named = config.get("architectures") or [head.architecture]
    if named != [head.architecture]:
        raise TrainingError(
            f"{folder.path}/{CONFIG_FILE} is of {', '.join(map(str, named))}; expected "
            f"{' or '.join(one.architecture for one in _HEADS.values())}: take a folder with a classification head, or "
            "train one with trainer.model: transformer"
        )
    problem = config.get("problem_type") or "single_label_classification"
    if problem != "single_label_classification":
        raise TrainingError(
            f"{folder.path}/{CONFIG_FILE} says problem_type: {problem}; expected one label for each text: choose a "
            "classifier with single_label_classification"
        )
    return head


def _labels_of(config: Mapping[str, Any], classes: int, path: str) -> tuple[str, ...]:
    given = config.get("id2label")
    numbers = [str(number) for number in range(classes)]
    if classes < 2 or not isinstance(given, dict) or sorted(given) != sorted(numbers):
        raise TrainingError(
            f"{path}/{CONFIG_FILE} names {len(given) if isinstance(given, dict) else 'no'} labels in id2label, and the "
            f"classifier has {classes} outputs; expected 2 and more, one label for each: give them as trainer.labels, "
            "in the order of the outputs"
        )
    return tuple(str(given[number]) for number in numbers)


def raw_preprocessing(options: WrapTextOptions, preprocessing: TextOptions) -> TextOptions:
    """The preprocessing for a classifier that exists: the text as it is, its labels in their order.

    Raises:
        ValueError: the classifier cannot be read or carried over, or preprocessing says what it decides about.
    """
    try:
        wrapped = WrappedText(options)
        if wrapped.maximum_length > wrapped.architecture.positions:
            raise TrainingError(
                f"trainer.maximum_length is {wrapped.maximum_length:,}, and {options.folder} takes texts of at most "
                f"{wrapped.architecture.positions:,} pieces; lower it"
            )
    except TrainingError as error:
        raise ValueError(str(error)) from error
    label = preprocessing.label
    order = tuple(label.names.get(name, name) for name in wrapped.labels)
    if label.order and label.order != order:
        raise ValueError(
            f"preprocessing.label.order is {', '.join(label.order)}, the labels of the model are {', '.join(order)} in "
            "this order; leave preprocessing.label.order out"
        )
    return preprocessing.model_copy(update={"label": label.model_copy(update={"order": order})})
