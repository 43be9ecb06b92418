"""The steps that compare new spans with the one before them."""

from __future__ import annotations

import tensorflow_data_validation  # noqa: F401 (without it TFX leaves DistributionValidator out)
from tfx import v1 as tfx
from tfx.components import DistributionValidator
from tfx.dsl.components.base.base_component import BaseComponent

from components.drift_gate.component import DriftGate
from components.drift_gate.splits import PREVIOUS
from pipeline.distribution_comparators import distribution_comparators
from pipeline.span_files import SpanFiles


class SpanExampleGen(tfx.components.CsvExampleGen):
    """A split for each span: of the run's own examples nobody knows from which span they came."""


class SpanStatisticsGen(tfx.components.StatisticsGen):
    """Of the spans that are compared."""


def drift_check(spans: SpanFiles) -> list[BaseComponent]:
    """The steps, the last of which stops the run where a column drifted; none where there is nothing to compare."""
    if not spans.previous:
        return []
    example_gen = SpanExampleGen(
        input_base=str(spans.folder),
        input_config=tfx.proto.Input(
            splits=[tfx.proto.Input.Split(name=name, pattern=f"{name}.csv") for name in (PREVIOUS, *spans.compared)]
        ),
    )
    statistics_gen = SpanStatisticsGen(examples=example_gen.outputs["examples"])
    statistics = statistics_gen.outputs["statistics"]
    validator = DistributionValidator(
        statistics=statistics,
        baseline_statistics=statistics,
        config=distribution_comparators(spans.bounds),
        include_split_pairs=[(name, PREVIOUS) for name in spans.compared],
    )
    gate = DriftGate(anomalies=validator.outputs["anomalies"], statistics=statistics, previous_span=spans.previous)
    return [example_gen, statistics_gen, validator, gate]
