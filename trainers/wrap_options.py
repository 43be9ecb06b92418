"""Which existing classifier of photos is served."""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from trainers.backbones import BACKBONES, DEFAULT_BACKBONE
from trainers.beside_config import beside_config
from trainers.label_file import IMAGENET, read_label_file
from trainers.precision import Precision
from transform.image_options import PixelFormat

# TensorFlow's name of the signature that is called where none is named.
SERVING_DEFAULT = "serving_default"
KERAS_FILE = ".keras"
WEIGHTS_FILE = ".weights.h5"


class WrapOptions(BaseModel):
    """An existing classifier, which is not trained.

    Attributes:
        mode: what tells these options from FineTuneOptions.
        classifier: the name of a model in keras.applications; a .keras file; the directory of a SavedModel or of a
            downloaded TF-Hub model; or a TF-Hub handle. Paths are relative to the config file.
        weights: of a model in keras.applications: `imagenet`, which Keras downloads, or a .weights.h5 file of the model
            with its head.
        labels: a text file with one label a line, in the order of the outputs; or `imagenet`.
        outputs: what the classifier answers with. Keras's models give probabilities, TF-Hub's logits.
        background_first: the first output is no class and is left out, as TF-Hub's ImageNet models have it.
        signature: which signature of a SavedModel is called.
        output: which of the signature's outputs is taken; needed where there are several.
        precision: of the served model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["wrap"]
    classifier: str = DEFAULT_BACKBONE
    weights: str = IMAGENET
    labels: str = IMAGENET
    outputs: Literal["probabilities", "logits"] = "probabilities"
    background_first: bool = False
    signature: str = SERVING_DEFAULT
    output: str | None = None
    precision: Precision = "float32"

    @field_validator("classifier")
    @classmethod
    def _find(cls, classifier: str, info: ValidationInfo) -> str:
        if classifier in BACKBONES:
            return classifier
        if "/" not in classifier and not classifier.endswith(KERAS_FILE):
            close = difflib.get_close_matches(classifier, BACKBONES, n=1) or [DEFAULT_BACKBONE]
            raise ValueError(
                f"expected a model of keras.applications such as {close[0]}, a {KERAS_FILE} file, the directory of a "
                "SavedModel (with a slash, ./name), or a TF-Hub handle"
            )
        return beside_config(classifier, info)

    @field_validator("weights", "labels")
    @classmethod
    def _beside_config(cls, path: str, info: ValidationInfo) -> str:
        return path if path == IMAGENET else beside_config(path, info)

    @model_validator(mode="after")
    def _check(self) -> WrapOptions:
        if self.classifier not in BACKBONES and self.weights != IMAGENET:
            raise ValueError("weights belong to a model of keras.applications; other classifiers bring theirs along")
        if self.weights != IMAGENET and not self.weights.endswith(WEIGHTS_FILE):
            raise ValueError(f"weights: expected {IMAGENET} or the path of a {WEIGHTS_FILE} file")
        if self.is_keras_model and (self.signature, self.output) != (SERVING_DEFAULT, None):
            raise ValueError("signature and output are for a SavedModel; a Keras model has one output, and no names")
        return self

    @property
    def is_keras_model(self) -> bool:
        """Whether Keras makes the classifier, rather than TensorFlow's SavedModel loader."""
        return self.classifier in BACKBONES or self.classifier.endswith(KERAS_FILE)

    def pixel_format(self) -> PixelFormat:
        """What the classifier takes: known of a model in keras.applications; of others, what most take."""
        return BACKBONES.get(self.classifier, BACKBONES[DEFAULT_BACKBONE])

    def label_order(self) -> tuple[str, ...]:
        """The labels of the classifier, in the order of its probabilities; raises ValueError, see read_label_file."""
        return read_label_file(self.labels, self.background_first)
