"""The numbers that a served model computes with."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]
