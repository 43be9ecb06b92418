"""Reads tables and texts into examples."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.wrappers_pb2 import StringValue
from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.table_example_gen.executor import BigQueryExecutor, Executor
from components.table_example_gen.options import Ingestion


class TableExampleGen(FileBasedExampleGen):
    """Rows of CSV, TSV, JSON lines, Parquet or TFRecord files as examples, a feature for each column.

    Whole numbers become int64, other numbers float, all else bytes; a column has one type, found in all of it. The
    splits are train and eval, and test where a share is held out for it; `ingestion.json` in the artifact says how many
    rows each has, and the types. The cache's look at the files is as TFX's file-based ExampleGens have it.

    Args:
        input_base: the folder of the files.
        patterns: split of the input -> the pattern of its files below that folder.
        ingestion: what is done with their rows.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, input_base: str, patterns: Mapping[str, str], ingestion: Ingestion) -> None:
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(StringValue(value=ingestion.model_dump_json()))
        splits = [example_gen_pb2.Input.Split(name=name, pattern=pattern) for name, pattern in patterns.items()]
        super().__init__(
            input_base=input_base,
            input_config=example_gen_pb2.Input(splits=splits),
            custom_config=custom_config,
        )


class BigQueryExampleGenSpec(ComponentSpec):
    """All parameters are text."""

    PARAMETERS = {
        "source": ExecutionParameter(type=str),
        "input_fingerprint": ExecutionParameter(type=str),
        "ingestion": ExecutionParameter(type=str),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class BigQueryExampleGen(base_beam_component.BaseBeamComponent):
    """Rows of BigQuery as examples, the same ones that TableExampleGen makes of them in a Parquet file.

    Args:
        source: the path of a bigquery.BigQuerySource, or of bigquery.CurrentRows.
        input_fingerprint: that of bigquery.CurrentRows, or what no other run has. TFX's cache compares parameters, and
            does not look at BigQuery.
        ingestion: what is done with the rows; they have no splits of the input.
    """

    SPEC_CLASS = BigQueryExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(BigQueryExecutor)

    def __init__(self, source: str, input_fingerprint: str, ingestion: Ingestion) -> None:
        super().__init__(
            BigQueryExampleGenSpec(
                source=source,
                input_fingerprint=input_fingerprint,
                ingestion=ingestion.model_dump_json(),
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
