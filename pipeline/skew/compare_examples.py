"""Run the comparison of requests with training data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.run_report.read_statistics import read_statistics
from components.run_report.run_artifact import RunArtifact
from pipeline.runners.hasten_beam import hasten_beam
from pipeline.runners.local import LocalRunner
from pipeline.skew.judge_skew import ColumnSkew, judge_skew
from pipeline.skew.skew_pipeline import REQUESTS, TRAINING, skew_pipeline


def compare_examples(
    folder: Path, splits: Sequence[str], statistics: RunArtifact | None, bounds: Mapping[str, float]
) -> list[ColumnSkew]:
    """Each column that has a bound, the worst first; see skew_pipeline for what is given."""
    hasten_beam()
    pipeline = skew_pipeline(folder, splits, statistics, bounds)
    LocalRunner("skew", lambda node: None, lambda node, seconds: None).run(pipeline)
    (computed,) = folder.glob("artifacts/StatisticsGen/statistics/*")
    (found,) = folder.glob(f"artifacts/DistributionValidator/anomalies/*/SplitPair-{REQUESTS}_{TRAINING}/*.pb")
    of_split = read_statistics(RunArtifact(str(computed), {"split_names": json.dumps(list(splits))}))
    training = read_statistics(statistics)[TRAINING] if statistics is not None else of_split[TRAINING]
    return judge_skew(of_split[REQUESTS], training, anomalies_pb2.Anomalies.FromString(found.read_bytes()), bounds)
