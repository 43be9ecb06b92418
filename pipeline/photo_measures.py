"""What can be measured of a photo without looking at it: hardly one comes twice."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

PHOTO_MEASURES = ("bytes", "format", "width", "height")


def photo_measures(file: bytes) -> dict[str, int | bytes]:
    """PHOTO_MEASURES of an encoded photo, of which only the head is read; nothing of what is no photo."""
    try:
        with Image.open(io.BytesIO(file)) as photo:
            values = (len(file), str(photo.format).encode(), photo.width, photo.height)
            return dict(zip(PHOTO_MEASURES, values, strict=True))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return {}
