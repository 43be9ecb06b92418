"""The numbers that a served model computes with."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]

# How far a probability of a served model of photos may be from the trained model's, where a config does not say it.
# float32: the sums of a network's many layers are rounded in another order in batches of other sizes, and batch
# normalization is folded into the convolutions. bfloat16: each number is kept to eight bits, layer after layer, which
# moves the probabilities of two labels that are close by some hundredths.
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2}
