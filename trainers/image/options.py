"""Options of the trainer of images."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from trainers.image.keras_applications import BACKBONES, DEFAULT_BACKBONE
from trainers.image.label_files import IMAGENET, read_label_file
from trainers.options import Precision, beside_config
from transform.options import PixelFormat


class AugmentationOptions(BaseModel):
    """Random changes of photos, in training only; each photo is changed anew each time.

    Attributes:
        flip: whether left and right are exchanged in half of the photos.
        crop: the largest share of height and width that is cut off, at random sides; what is left is resized.
        colour: by how much, up or down, brightness, contrast and saturation change at most, as a share.
        copies: where features of a frozen backbone are computed once: of how many changed copies of each photo, beside
            the photo itself. Training from scratch changes photos in each epoch, and needs none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = False
    crop: float = Field(0, ge=0, lt=1)
    colour: float = Field(0, ge=0, lt=1)
    copies: int = Field(1, ge=1, le=100)

    @property
    def changes(self) -> bool:
        """Whether a photo is changed at all."""
        return self.flip or self.crop > 0 or self.colour > 0


NO_WEIGHTS = "none"
_KERAS_FILES = (".h5", ".keras")


class FineTuneOptions(BaseModel):
    """A backbone of keras.applications and a linear head over its pooled features, trained.

    Pretrained, the backbone is frozen while the head is solved on features that are computed once; then its last
    blocks may be trained further, from activations that are computed once. From scratch, all layers are trained.

    Attributes:
        mode: what tells these options from WrapOptions.
        backbone: the name of a model in keras.applications; the size and the scaling of the pixels follow it.
        weights: `imagenet`, which Keras downloads; the path of a .weights.h5 file of the backbone, of a .keras file, or
            of the directory of a SavedModel, relative to the config file; a TF-Hub handle; or `none`, to train from
            scratch.
        blocks: the names of the blocks whose pooled features the head sees; the backbone is cut off behind the last of
            them. `auto` takes the block whose features tell the classes best, and its neighbours as long as they help;
            from scratch, the last block.
        trained_blocks: how many of the last of these blocks are trained further; those before them stay frozen.
        epochs: passes over the training split in which blocks are trained.
        batch_size: photos per step.
        learning_rate: Adam's step size; it decays to zero along a cosine.
        early_stopping_patience: stop after so many epochs without a better loss on a tenth of the training photos,
            which is held out for it, and keep the best weights; without it, all epochs run on all photos.
        label_smoothing: the share of each target that is spread over all classes, while blocks are trained.
        class_weights: `none`, or `balanced`: each class counts the same, however many photos it has.
        augmentation: random changes of photos, in training only.
        warm_start: begin with the weights of the served model, where they mean the same. Blocks that `auto` chose
            for it stay then, and its head is trained further with them.
        batch_norm_momentum: of the running means of a training from scratch; lower values suit short ones.
        precision: of the served model.
        seed: of the initial weights, the order of the photos and their changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["fine_tune"]
    backbone: str = DEFAULT_BACKBONE
    weights: str = IMAGENET
    blocks: Literal["auto"] | tuple[str, ...] = "auto"
    trained_blocks: int = Field(0, ge=0)
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    early_stopping_patience: int | None = Field(None, ge=1)
    label_smoothing: float = Field(0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: AugmentationOptions = AugmentationOptions()
    warm_start: bool = False
    batch_norm_momentum: float = Field(0.99, ge=0, lt=1)
    precision: Precision = "float32"
    seed: int = 0

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"expected one of {', '.join(sorted(BACKBONES))}")
        return name

    @field_validator("weights")
    @classmethod
    def _weights_beside_config(cls, weights: str, info: ValidationInfo) -> str:
        return weights if weights in (IMAGENET, NO_WEIGHTS) else beside_config(weights, info)

    @field_validator("blocks")
    @classmethod
    def _some_blocks(cls, blocks: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not blocks:
            raise ValueError("expected auto or the names of blocks, received none")
        return blocks

    @model_validator(mode="after")
    def _check(self) -> FineTuneOptions:
        fields = type(self).model_fields
        # Not model_fields_set: options that come out of JSON name every field.
        changed = {name for name in fields if getattr(self, name) != fields[name].default}
        trained = {"epochs", "batch_size", "learning_rate", "early_stopping_patience", "label_smoothing"}
        idle = sorted(trained & changed)
        if idle and not self.trained_blocks and not self.from_scratch:
            raise ValueError(f"{idle[0]} is for blocks that are trained, and trained_blocks is 0; give trained_blocks")
        if self.from_scratch and self.trained_blocks:
            raise ValueError("trained_blocks is for pretrained weights; with weights: none, all layers are trained")
        if "batch_norm_momentum" in changed and not self.from_scratch:
            raise ValueError("batch_norm_momentum is for weights: none; running means of pretrained weights stay")
        if self.warm_start and self.weights not in (IMAGENET, NO_WEIGHTS) and not self.weights.endswith(_KERAS_FILES):
            raise ValueError("warm_start is for backbones of Keras; what a SavedModel learns cannot be taken over")
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether there are no weights to start from."""
        return self.weights == NO_WEIGHTS

    def pixel_format(self) -> PixelFormat:
        """What the backbone takes."""
        return BACKBONES[self.backbone]

    def label_order(self) -> tuple[str, ...]:
        """The labels, where the model decides about them; here the data do."""
        return ()


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


ImageTrainerOptions = Annotated[FineTuneOptions | WrapOptions, Field(discriminator="mode")]


def read_trainer_options(content: str) -> FineTuneOptions | WrapOptions:
    """The options out of their JSON."""
    options: FineTuneOptions | WrapOptions = TypeAdapter(ImageTrainerOptions).validate_json(content)
    return options
