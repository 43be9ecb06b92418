"""The version policy "latest 1" of TensorFlow Serving (file_system_storage_path_source.cc)."""

from __future__ import annotations

import re

import tensorflow as tf

_INT64_MAXIMUM = 2**63 - 1
_NUMBER = re.compile(r"\d+", re.ASCII)


class BasePathMissingError(Exception):
    """The base path is not there now, which says nothing about its versions."""


def latest_version(base_path: str) -> dict[int, str]:
    """The largest number among the names in a base path, with its path; empty where no name is a number.

    Raises:
        BasePathMissingError: there is no such directory, or it cannot be listed.
    """
    try:
        if not tf.io.gfile.isdir(base_path):
            raise BasePathMissingError(f"there is no directory {base_path}")
        names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(base_path))
    except tf.errors.OpError as error:
        raise BasePathMissingError(f"{base_path} cannot be listed: {error.message}") from error
    versions = {int(name): tf.io.gfile.join(base_path, name) for name in names if _NUMBER.fullmatch(name)}
    numbers = [number for number in versions if number <= _INT64_MAXIMUM]
    return {max(numbers): versions[max(numbers)]} if numbers else {}
