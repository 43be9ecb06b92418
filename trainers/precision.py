"""The numbers that a served model computes with."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]

# How far a probability of a served model of photos may be from the trained model's, where a config does not say it.
# float32: the sums of a network's many layers are rounded in another order in batches of other sizes, and batch
# normalization is folded into the convolutions. bfloat16: eight bits of each number are kept; of a probability near
# 1/2 that moves some thousandths.
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
