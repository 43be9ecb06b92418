"""How photos are preprocessed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from transform.label_options import LabelOptions

Scaling = Literal["minus_one_to_one", "zero_to_one", "raw"]


@dataclass(frozen=True)
class PixelFormat:
    """The pixels that a model takes: height and width, and the range of a colour value."""

    height: int
    width: int
    scaling: Scaling


class ImageOptions(BaseModel):
    """Preprocessing of photos: decoded, resized, scaled to what the model expects.

    Attributes:
        label: the label column.
        height: of what the model sees, in pixels.
        width: of what the model sees, in pixels; the aspect ratio of a photo is not kept.
        scaling: the range of a colour value: [-1, 1], [0, 1], or [0, 255] for `raw`.
        max_pixels: the largest photo that is decoded, by the size that its header declares: a small file can declare
            an enormous one. Decoding takes three bytes per pixel, up to nine for a progressive JPEG.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: LabelOptions = LabelOptions(column="label")
    height: int = Field(299, ge=1)
    width: int = Field(299, ge=1)
    scaling: Scaling = "minus_one_to_one"
    max_pixels: int = Field(50_000_000, ge=1)

    def completed(self, expected: PixelFormat, labels: tuple[str, ...]) -> ImageOptions:
        """These options, with what a model expects where nothing was given.

        Args:
            expected: the pixels that the model was made for.
            labels: its labels in the order of its probabilities; () where the data decide about them.
        """
        pixels = {name: value for name, value in asdict(expected).items() if name not in self.model_fields_set}
        label = self.label.model_copy(update={} if self.label.order else {"order": labels})
        return self.model_copy(update={**pixels, "label": label})

    def renamed_inputs(self) -> dict[str, str]:
        """Signature input -> the feature it takes, where their names differ."""
        return {"image_bytes": "image"}
