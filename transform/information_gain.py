"""How much the presence of a term tells about the class."""

from __future__ import annotations

import numpy as np


def information_gain(text_counts: np.ndarray, class_totals: np.ndarray) -> np.ndarray:
    """The mutual information of class and presence, float64 [terms], in nats.

    Args:
        text_counts: int64 [terms, classes], how many texts of each class have the term.
        class_totals: int64 [classes], how many texts of each class there are.
    """
    present = text_counts.sum(axis=1)
    texts = class_totals.sum()
    entropies = np.stack([_entropy(text_counts), _entropy(class_totals - text_counts)])
    shares = np.stack([present, texts - present]) / texts
    return np.asarray(_entropy(class_totals[None])[0] - (shares * entropies).sum(axis=0))


def _entropy(counts: np.ndarray) -> np.ndarray:
    """float64 [rows]: of the distribution that each row of counts stands for; 0 for a row of zeros."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
