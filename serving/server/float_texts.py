"""Floats as TensorFlow Serving writes them into JSON (WriteDecimal in util/json_tensor.cc)."""

from __future__ import annotations

import numpy as np

_SIGNIFICANT_DIGITS = {np.dtype(np.float32): 9, np.dtype(np.float64): 17}
_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def float_texts(values: np.ndarray) -> list[str]:
    """Six digits where they name the value exactly, else all; whole numbers get ".0", so that they read as floats.

    Args:
        values: float32 or float64 [n].
    """
    texts = [f"{value:g}" for value in values.tolist()]
    if not texts:
        return texts
    read_back = np.array(texts).astype(values.dtype)
    digits = _SIGNIFICANT_DIGITS[values.dtype]
    for position in np.flatnonzero(read_back != values):
        texts[position] = f"{float(values[position]):.{digits}g}"
    return [_NON_FINITE.get(text, text if "." in text or "e" in text else f"{text}.0") for text in texts]
