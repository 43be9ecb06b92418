"""How a model of photos is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trainers.augmentation_options import AugmentationOptions
from trainers.backbones import BACKBONES, DEFAULT_BACKBONE
from trainers.beside_config import beside_config
from trainers.precision import Precision
from transform.image_options import PixelFormat

IMAGENET, NO_WEIGHTS = "imagenet", "none"
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
