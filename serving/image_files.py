"""Photos as clients send them, as files."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from serving.map_each import map_each

# None of it can begin base64 text of such a file: that begins with "/9j/" or "_9j_", "iVBOR", "R0lGO" or "Qk".
FILE_BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}


def image_files(images: tf.Tensor) -> tf.Tensor:
    """string [batch]: each photo's file; "" for what is neither the file of a photo nor base64 text.

    Args:
        images: string [batch], each an encoded file (what a REST `{"b64": ...}` delivers) or base64 text of one, in the
            URL-safe or the standard alphabet, padded or not.
    """
    files, known = _files(images, tf.io.decode_base64)

    def also_of_the_other_alphabet() -> tf.Tensor:
        others, _ = _files(images, lambda text: tf.io.decode_base64(_url_safe(text)))
        return tf.where(known, files, others)

    # decode_base64 takes no longer than _url_safe does, and gives up at the first character that it does not know.
    return tf.cond(tf.reduce_all(known), lambda: files, also_of_the_other_alphabet)


def begins_with(texts: tf.Tensor, beginning: bytes) -> tf.Tensor:
    """bool of the same shape: which of the strings begin so."""
    return tf.equal(tf.strings.substr(texts, 0, len(beginning)), beginning)


def _files(images: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """string [batch], the files, and bool [batch], which are known to be one or could be decoded."""

    def file(image: tf.Tensor) -> tuple[tf.Tensor]:
        is_file = tf.reduce_any([begins_with(image, beginning) for beginning in FILE_BEGINNINGS.values()])
        return (tf.cond(is_file, lambda: image, lambda: decode(image)),)

    (files,), known = map_each(file, images, (tf.TensorSpec([], tf.string),))
    return files, known


def _url_safe(text: tf.Tensor) -> tf.Tensor:
    """The text in the alphabet that decode_base64 knows."""
    # Three times as fast as tf.strings.regex_replace, which goes from match to match. A serialized tensor ends with its
    # content: that is how bytes become a string again.
    characters = tf.io.decode_raw(text, tf.uint8)
    for standard, url_safe in ((b"+", b"-"), (b"/", b"_")):
        characters = tf.where(tf.equal(characters, standard[0]), tf.constant(url_safe[0], tf.uint8), characters)
    length = tf.size(characters)
    return tf.strings.substr(tf.io.serialize_tensor(characters), -length, length)
