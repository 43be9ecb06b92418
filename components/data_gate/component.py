"""Stops a run on data that contradicts its schema or cannot be learned from."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.data_gate.executor import Executor
from components.data_gate.leaks import LeakSearch


class DataGateSpec(ComponentSpec):
    """`verdict` is of a standard type that Kubeflow v2 knows: what was found in examples."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "schema_is_curated": ExecutionParameter(type=int),
        "minimum_examples": ExecutionParameter(type=int),
        "schema_path": ExecutionParameter(type=str),
        "leak_search": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {"verdict": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class DataGate(base_component.BaseComponent):
    """Ends the run with a sentence per finding; what does not end it is a warning in the `verdict` artifact.

    Args:
        examples: of which the rows are read where `leak_search` says so.
        anomalies: ExampleValidator's.
        statistics: StatisticsGen's.
        schema: SchemaGen's, or the curated one.
        label: the label column; "" where nothing is learned from labels.
        schema_is_curated: a person wrote or reviewed the schema, so every anomaly ends the run; an inferred schema has
            seen the train split only, and what it did not see there is a warning.
        minimum_examples: how many examples each split needs.
        schema_path: the curated schema's own file, which messages tell to correct.
        leak_search: where leaks are looked for; None for nowhere, and no example is read.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        anomalies: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        label: str,
        schema_is_curated: bool,
        minimum_examples: int = 1,
        schema_path: str = "",
        leak_search: LeakSearch | None = None,
    ) -> None:
        super().__init__(
            DataGateSpec(
                examples=examples,
                anomalies=anomalies,
                statistics=statistics,
                schema=schema,
                label=label,
                schema_is_curated=int(schema_is_curated),
                minimum_examples=minimum_examples,
                schema_path=schema_path,
                leak_search=leak_search.as_json() if leak_search else "",
                verdict=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
