"""The steps that compare a span of requests with training data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_data_validation  # noqa: F401 (without it TFX leaves DistributionValidator out)
from tfx import v1 as tfx
from tfx.components import DistributionValidator
from tfx.types import standard_artifacts

from components.run_report.run_artifact import RunArtifact
from pipeline.distribution_comparators import distribution_comparators
from pipeline.runners.local import BEAM_PIPELINE_ARGS

REQUESTS = "requests"
TRAINING = "train"


def skew_pipeline(
    folder: Path, splits: Sequence[str], training: RunArtifact | None, bounds: Mapping[str, float]
) -> tfx.dsl.Pipeline:
    """The pipeline of a comparison.

    Args:
        folder: holds the examples in `span/Split-*`, and gets everything that the steps make.
        splits: of the examples: REQUESTS, and TRAINING where there are no statistics of the training data.
        training: these statistics.
        bounds: column -> the largest divergence.
    """
    examples = tfx.dsl.Importer(
        source_uri=str(folder / "span"),
        artifact_type=standard_artifacts.Examples,
        properties={"split_names": json.dumps(list(splits))},
    ).with_id("Requests")
    statistics_gen = tfx.components.StatisticsGen(examples=examples.outputs["result"])
    statistics = statistics_gen.outputs["statistics"]
    imported = []
    baseline = statistics
    if training is not None:
        importer = tfx.dsl.Importer(
            source_uri=training.uri,
            artifact_type=standard_artifacts.ExampleStatistics,
            properties={"split_names": training.text("split_names")},
        ).with_id("TrainingStatistics")
        imported, baseline = [importer], importer.outputs["result"]
    validator = DistributionValidator(
        statistics=statistics,
        baseline_statistics=baseline,
        config=distribution_comparators(bounds),
        include_split_pairs=[(REQUESTS, TRAINING)],
    )
    return tfx.dsl.Pipeline(
        pipeline_name="skew",
        pipeline_root=str(folder / "artifacts"),
        components=[examples, statistics_gen, *imported, validator],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.sqlite")
        ),
        beam_pipeline_args=BEAM_PIPELINE_ARGS,
    )
