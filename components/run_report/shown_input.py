"""A raw example as a person can look at it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

THUMBNAIL_PIXELS = 160
SHOWN_CHARACTERS = 600
_IMAGE_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


@dataclass(frozen=True)
class ShownInput:
    """The input of an example.

    Attributes:
        fields: name and text of each feature but the label.
        picture: a data URI of a small copy, where the input is a photo; "" where it is none.
    """

    fields: tuple[tuple[str, str], ...]
    picture: str = ""


def shown_input(record: bytes, hidden: Sequence[str]) -> ShownInput:
    """What a serialized tf.Example holds.

    Args:
        record: the example.
        hidden: features that are not shown: the label.
    """
    fields, picture = [], ""
    for name, feature in sorted(tf.train.Example.FromString(record).features.feature.items()):
        if name in hidden:
            continue
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if values and isinstance(values[0], bytes) and values[0].startswith(_IMAGE_BEGINNINGS):
            picture = _thumbnail(values[0])
        else:
            fields.append((name, ", ".join(_text(value) for value in values) or "(missing)"))
    return ShownInput(tuple(fields), picture)


def _text(value: bytes | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def _thumbnail(photo: bytes) -> str:
    try:
        with Image.open(io.BytesIO(photo)) as opened:
            opened.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            small = opened.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
