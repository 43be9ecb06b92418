"""What the comparison of requests with training data says, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.data_gate.column_statistics import column_name, present_count
from components.drift_gate.measured_drift import measured_drift
from components.run_report.column_shift import shift_by_chance
from components.run_report.column_summary import ColumnSummary, column_summaries
from components.run_report.divergence_by_chance import divergence_by_chance

_PRESENT_OR_NOT = 2


class SkewVerdict(Enum):
    """What a column turned out to be."""

    SKEWED = "skewed"
    UNDECIDED = "too few"
    FINE = "fine"


@dataclass(frozen=True)
class ColumnSkew:
    """A column of the requests, held against the training data.

    Attributes:
        column: its name.
        verdict: whether it differs.
        divergence: Jensen-Shannon, in bits: of its values or of whether there is one, whichever is larger.
        finding: in words.
    """

    column: str
    verdict: SkewVerdict
    divergence: float
    finding: str


@dataclass(frozen=True)
class _Divergence:
    """A measured divergence, what chance alone explains of it, and how a sentence about it begins."""

    value: float
    by_chance: float
    words: str


def judge_skew(
    requests: statistics_pb2.DatasetFeatureStatistics,
    training: statistics_pb2.DatasetFeatureStatistics,
    anomalies: anomalies_pb2.Anomalies,
    bounds: Mapping[str, float],
) -> list[ColumnSkew]:
    """Judge each column that has a bound: the skewed ones first, the largest divergence first.

    DistributionValidator compares the values that are there. Whether there is one is compared here, by the same measure
    and bound: a column that clients do not send any more has no values to compare.

    Args:
        requests: their statistics.
        training: those of the training data.
        anomalies: DistributionValidator's.
        bounds: column -> the largest divergence.
    """
    measured = measured_drift(anomalies)
    sides = (_Side(requests), _Side(training))
    judged = []
    for column, bound in bounds.items():
        divergences = [_of_presence(column, *sides)]
        if column in measured:
            by_chance = shift_by_chance(sides[0].columns[column], sides[1].columns[column])
            divergences.append(_Divergence(measured[column].divergence, by_chance, "other values"))
        comparable = column in measured or not all(side.present(column) for side in sides)
        judged.append(_judge(column, bound, divergences, comparable, *sides))
    return sorted(judged, key=lambda skew: (list(SkewVerdict).index(skew.verdict), -skew.divergence))


class _Side:
    """Statistics by column."""

    def __init__(self, statistics: statistics_pb2.DatasetFeatureStatistics) -> None:
        self.rows = int(statistics.num_examples)
        self.columns = {column_name(column): column for column in statistics.features}
        self._summaries: dict[str, ColumnSummary] = {
            summary.name: summary for summary in column_summaries({"": statistics})
        }

    def present(self, column: str) -> int:
        return present_count(self.columns[column]) if column in self.columns else 0

    def words(self, column: str) -> str:
        """What the column holds."""
        present = self.present(column)
        if not present:
            return "no value"
        missing = 1 - present / self.rows
        return self._summaries[column].values + (f", {missing:.1%} missing" if missing else "")


def _of_presence(column: str, requests: _Side, training: _Side) -> _Divergence:
    shares = [side.present(column) / side.rows for side in (requests, training)]
    distance = float(jensenshannon(*([share, 1 - share] for share in shares), base=2))
    by_chance = divergence_by_chance(_PRESENT_OR_NOT, training.rows, requests.rows)
    have = f"{shares[0]:.1%} of the requests have" if shares[0] else "no request has"
    return _Divergence(distance**2, by_chance, f"{have} a value, in the training data {shares[1]:.1%}")


def _judge(
    column: str, bound: float, divergences: list[_Divergence], comparable: bool, requests: _Side, training: _Side
) -> ColumnSkew:
    holds = f"Requests: {requests.words(column)}. Training: {training.words(column)}."
    if not comparable:
        return ColumnSkew(column, SkewVerdict.SKEWED, 1.0, f"skewed: values of another type. {holds}")
    worst = max(divergences, key=lambda divergence: divergence.value)
    said = f"divergence {worst.value:.4f}, expected at most {bound:g}"
    if any(divergence.value > max(bound, divergence.by_chance) for divergence in divergences):
        return ColumnSkew(column, SkewVerdict.SKEWED, worst.value, f"skewed: {worst.words}: {said}. {holds}")
    by_chance = max(divergence.by_chance for divergence in divergences)
    if by_chance > bound:
        finding = f"too few rows to tell: {said}, and chance alone explains {min(by_chance, 1):.4f}"
        return ColumnSkew(column, SkewVerdict.UNDECIDED, worst.value, finding)
    return ColumnSkew(column, SkewVerdict.FINE, worst.value, f"fine: {said}")
