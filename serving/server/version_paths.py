"""What TensorFlow Serving sees in a model base path (file_system_storage_path_source.cc)."""

from __future__ import annotations

import tensorflow as tf

from serving.model_store.version_number import parse_version_number


class BasePathMissingError(Exception):
    """The base path is not there now, which says nothing about its versions."""


def version_paths(base_path: str) -> dict[int, str]:
    """The paths below a base path whose names are numbers, by number.

    Raises:
        BasePathMissingError: there is no such directory, or it cannot be listed.
    """
    try:
        if not tf.io.gfile.isdir(base_path):
            raise BasePathMissingError(f"there is no directory {base_path}")
        names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(base_path))
    except tf.errors.OpError as error:
        raise BasePathMissingError(f"{base_path} cannot be listed: {error.message}") from error
    numbers = {name: parse_version_number(name) for name in names}
    return {number: tf.io.gfile.join(base_path, name) for name, number in numbers.items() if number is not None}
