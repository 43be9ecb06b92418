"""Let TensorFlow compute on photos with oneDNN."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH = "TF_ENABLE_ONEDNN_OPTS"


@contextmanager
def onednn_for_photos(task: str) -> Iterator[None]:
    """Import TensorFlow within it, and a run on photos trains with oneDNN, unless the environment decides otherwise.

    By itself TensorFlow takes oneDNN only where the CPU has instructions for neural networks, such as AVX512-VNNI; with
    AVX2 alone a training step of InceptionV3 is a sixth shorter, too. Processes that are started later, such as the
    serving check's, are as the model server will be: with TensorFlow's own choice.

    Args:
        task: of the config; for tables and texts nothing changes.

    Source: the release notes of TensorFlow 2.9. It reads the switch once, on import.
    """
    if task != "image" or _SWITCH in os.environ:
        yield
        return
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        del os.environ[_SWITCH]
