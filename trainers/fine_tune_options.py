"""How a model of photos is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainers.backbones import BACKBONES, DEFAULT_BACKBONE
from trainers.precision import Precision
from transform.image_options import PixelFormat


class FineTuneOptions(BaseModel):
    """A backbone of keras.applications and a linear head, trained.

    Attributes:
        mode: what tells these options from WrapOptions.
        backbone: the name of a model in keras.applications; the size and the scaling of the pixels follow it.
        weights: `imagenet`, which Keras downloads; the path of a .weights.h5 or .keras file; a TF-Hub handle or the
            directory of a SavedModel; or `none` to train all layers from scratch.
        precision: of the served model.
        batch_size: photos per step.
        epochs: passes over the training split.
        learning_rate: Adam's step size; it decays to zero along a cosine.
        batch_norm_momentum: of the running means; the default suits long trainings, 0.9 short ones.
        seed: of the initial weights, the shuffling and the held-out photos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["fine_tune"]
    backbone: str = DEFAULT_BACKBONE
    weights: str = "imagenet"
    precision: Precision = "float32"
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    batch_norm_momentum: float = Field(0.99, ge=0, lt=1)
    seed: int = 0

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"expected one of {', '.join(sorted(BACKBONES))}")
        return name

    def pixel_format(self) -> PixelFormat:
        """What the backbone takes."""
        return BACKBONES[self.backbone]

    def label_order(self) -> tuple[str, ...]:
        """The labels, where the model decides about them; here the data do."""
        return ()
