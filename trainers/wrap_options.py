"""Which existing classifier of photos is served."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainers.pixel_format import PixelFormat
from trainers.precision import Precision


class WrapOptions(BaseModel):
    """An existing classifier, which is not trained.

    Attributes:
        mode: what tells these options from FineTuneOptions.
        precision: of the served model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["wrap"]
    precision: Precision = "float32"

    def pixel_format(self) -> PixelFormat:
        """What the classifier takes."""
        return PixelFormat(299, 299, "minus_one_to_one")

    def label_order(self) -> tuple[str, ...]:
        """The labels of the classifier, in the order of its probabilities."""
        return ()
