"""What is in the files that a config names: TFX's cache knows them only by their paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import tensorflow as tf

_BLOCK = 1 << 20


def content_fingerprint(paths: Iterable[str]) -> str:
    """SHA-256 over the content of files and of all files in directories; what does not exist counts by its name.

    Args:
        paths: absolute, on any file system that TensorFlow reads.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = [path]
        if tf.io.gfile.isdir(path):
            files = sorted(f"{folder}/{name}" for folder, _, names in tf.io.gfile.walk(path) for name in names)
        for file in files:
            digest.update(f"{file}\0".encode())
            if tf.io.gfile.exists(file):
                _add_content(digest, file)
    return digest.hexdigest()


def _add_content(digest: hashlib._Hash, path: str) -> None:
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
