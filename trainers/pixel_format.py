"""The pixels that a model of photos takes."""

from __future__ import annotations

from dataclasses import dataclass

from transform.image_options import Scaling


@dataclass(frozen=True)
class PixelFormat:
    """What ImageOptions says of pixels where a config does not: height and width in pixels, the range of a colour."""

    height: int
    width: int
    scaling: Scaling
