"""Quality on several splits of the data, by Transform's graph without a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tfx_bsl.public import tfxio

from benchmarks.harness.measurement import Goal, Measurement
from pipeline.runners.local import BEAM_PIPELINE_ARGS

THEIRS = "scikit-learn"


def quality_by_split(
    unit: str, ours: Sequence[float], theirs: Sequence[float], allowed: float = 0.0
) -> list[Measurement]:
    """The means of both, and each split beside the other's.

    Args:
        unit: "AUC" or "accuracy".
        ours: of each split.
        theirs: of the same splits.
        allowed: how much lower our mean may be.
    """
    mean, their_mean = float(np.mean(ours)), float(np.mean(theirs))
    of = f"{unit}, mean of {len(ours)} splits"
    goal = Goal(round(1 - allowed / their_mean, 4))
    each = [
        Measurement(f"{unit}, split {seed}: ingraph", our, unit, "quality", our / their, THEIRS)
        for seed, (our, their) in enumerate(zip(ours, theirs, strict=True))
    ]
    return [
        Measurement(f"{of}: {THEIRS}", their_mean, unit, "quality"),
        Measurement(f"{of}: ingraph", mean, unit, "quality", mean / their_mean, THEIRS, goal),
        *(each if len(each) > 1 else []),
    ]


def transform_graph(
    preprocessing_fn: Callable[..., Any],
    custom_config: Mapping[str, Any],
    feature_spec: Mapping[str, Any],
    examples: str,
    folder: str,
) -> tft.TFTransformOutput:
    """Analyse a file of tf.Examples with a task's preprocessing_fn.

    Args:
        preprocessing_fn: of transform/<task>.py.
        custom_config: its second argument.
        feature_spec: the raw features.
        examples: a TFRecord file.
        folder: where the graph is written.
    """
    metadata = tft.DatasetMetadata.from_feature_spec(feature_spec)
    source = tfxio.TFExampleRecord(examples, schema=metadata.schema, telemetry_descriptors=["benchmark"])
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline, tft_beam.Context(temp_dir=f"{folder}/temporary"):
        data = (pipeline | source.BeamSource(), source.TensorAdapterConfig())
        function = data | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, custom_config))
        _ = function | tft_beam.WriteTransformFn(f"{folder}/graph")
        _ = metadata | tft_beam.WriteMetadata(f"{folder}/graph/{tft.TFTransformOutput.RAW_METADATA_DIR}", pipeline)
    return tft.TFTransformOutput(f"{folder}/graph")
