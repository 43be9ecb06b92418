"""The photos of a span."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from components.image_example_gen.photo_extensions import PHOTO_EXTENSIONS
from pipeline.find_spans import Span


def span_photos(span: Span) -> Iterator[tuple[str, str]]:
    """Path and class of each photo, in the order of the span's files; none is read.

    Args:
        span: its files are photos in class folders, among which other files are passed over, or lists of photos as
            components.image_example_gen.list_photos takes them.

    Raises:
        BrokenInput: a list of photos cannot be used.
    """
    for path in span.files:
        if path.lower().endswith(".csv"):
            from components.image_example_gen.list_photos import list_photos  # imports TensorFlow

            yield from ((photo.file, photo.label) for photo in list_photos(path))
        elif path.lower().endswith(PHOTO_EXTENSIONS):
            yield path, posixpath.basename(posixpath.dirname(path))
