"""What a lower precision gains on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

Function = Callable[[tf.Tensor], tf.Tensor]

# Batch size -> how often it is measured.
_TURNS = {1: 9, 8: 3}


def precision_gain(function: Function, in_float32: Function, height: int, width: int) -> dict[str, float]:
    """Batch size -> the time that `function` takes, as a share of the time of `in_float32`; medians.

    Args:
        function: of pixels, float32 [batch, height, width, 3].
        in_float32: the same with float32 arithmetic.
        height: of the pixels.
        width: likewise.
    """
    gain = {}
    for batch, turns in _TURNS.items():
        pixels = tf.random.stateless_uniform([batch, height, width, 3], [0, 0], -1, 1)
        # They take turns, so that whatever else the machine does falls on both.
        seconds = np.array([[_seconds(call, pixels) for call in (function, in_float32)] for _ in range(turns + 1)])
        lower, full = np.median(seconds[1:], axis=0)  # in the first turn TensorFlow optimises the graphs
        gain[str(batch)] = round(float(lower / full), 3)
    return gain


def _seconds(call: Function, pixels: tf.Tensor) -> float:
    start = time.perf_counter()
    call(pixels).numpy()
    return time.perf_counter() - start
