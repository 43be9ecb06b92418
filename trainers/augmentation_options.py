"""Which random changes photos go through in training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
