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
    value: float
    by_chance: float
    of: str


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
            divergences.append(_Divergence(measured[column].divergence, by_chance, "values"))
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
    return _Divergence(distance**2, by_chance, "missing values")


def _judge(
    column: str, bound: float, divergences: list[_Divergence], comparable: bool, requests: _Side, training: _Side
) -> ColumnSkew:
    largest = max(divergences, key=lambda divergence: divergence.value)
    holds = f"Requests: {requests.words(column)}. Training: {training.words(column)}."
    if not comparable:
        return ColumnSkew(column, SkewVerdict.SKEWED, 1.0, f"skewed: of another type, it cannot be compared. {holds}")
    beyond = [
        divergence for divergence in divergences if divergence.value > bound and divergence.value > divergence.by_chance
    ]
    if beyond:
        worst = max(beyond, key=lambda divergence: divergence.value)
        finding = f"skewed: divergence {worst.value:.4f} of its {worst.of}, expected at most {bound:g}. {holds}"
        return ColumnSkew(column, SkewVerdict.SKEWED, worst.value, finding)
    chance = max(divergence.by_chance for divergence in divergences)
    if chance > bound:
        finding = (
            f"too few rows to tell: divergence {largest.value:.4f}, expected at most {bound:g}, and chance alone "
            f"explains {min(chance, 1):.4f}. {holds}"
        )
        return ColumnSkew(column, SkewVerdict.UNDECIDED, largest.value, finding)
    return ColumnSkew(
        column, SkewVerdict.FINE, largest.value, f"fine: divergence {largest.value:.4f}, at most {bound:g}"
    )
