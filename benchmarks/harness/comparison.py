"""Comparison of two runs of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.harness.measurement import Kind, Measurement
from benchmarks.harness.results import Results


@dataclass(frozen=True)
class Noise:
    """How far a ratio may get worse by chance alone.

    Attributes:
        share: of the ratio.
        least: what is never taken for a change, whatever its share.
    """

    share: float
    least: float


# Seconds on shared machines come and go by a fifth though both sides of a ratio feel it, those of a short step by half;
# memory and quality hardly move.
NOISE: Mapping[Kind, Noise] = {
    "time": Noise(share=0.25, least=0.05),
    "step": Noise(share=0.5, least=0.1),
    "memory": Noise(share=0.1, least=0.0),
    "throughput": Noise(share=0.25, least=0.0),
    "quality": Noise(share=0.02, least=0.0),
}


@dataclass(frozen=True)
class Change:
    """How a ratio moved.

    Attributes:
        benchmark: its name.
        name: of the figure.
        before: the ratio of the earlier run.
        now: the ratio of the later one.
        worse_by: the share by which it is worse; negative where it is better.
        allowed: the share that counts as noise.
    """

    benchmark: str
    name: str
    before: float
    now: float
    worse_by: float
    allowed: float

    @property
    def is_regression(self) -> bool:
        return self.worse_by > self.allowed


def compare(earlier: Results, later: Results) -> list[Change]:
    """The changes of all ratios to the same thing that both runs have."""
    known = earlier.measurements()
    return [
        _change(benchmark, known[benchmark, name], found)
        for (benchmark, name), found in later.measurements().items()
        if (benchmark, name) in known and _comparable(known[benchmark, name], found)
    ]


def _comparable(before: Measurement, now: Measurement) -> bool:
    return bool(before.ratio) and now.ratio is not None and before.beside == now.beside


def _change(benchmark: str, before: Measurement, now: Measurement) -> Change:
    assert before.ratio and now.ratio is not None
    noise = NOISE[now.kind]
    worse = before.ratio - now.ratio if now.larger_is_better else now.ratio - before.ratio
    allowed = max(noise.share, noise.least / before.ratio)
    return Change(benchmark, now.name, before.ratio, now.ratio, worse / before.ratio, allowed)
