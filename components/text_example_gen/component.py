"""Reads texts and their labels into examples."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import StringValue
from tfx import v1 as tfx
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from components.table_file import TableFormat
from components.text_example_gen.executor import Executor


class TextExampleGen(FileBasedExampleGen):
    """Rows of CSV, TSV or JSON lines files as examples: every column a string feature, byte for byte as it was written.

    CsvExampleGen reads line by line, and so cannot take a text with a line break in it. Everything else is as TFX's
    file-based ExampleGens have it, spans and the cache's look at the files included.

    Args:
        input_base: the folder of the files.
        input_config: the splits and the patterns of their files' names.
        output_config: how the examples are split.
        table_format: of the files; None where the endings of their names say it, see components.table_file.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        input_base: str,
        input_config: tfx.proto.Input,
        output_config: tfx.proto.Output,
        table_format: TableFormat | None = None,
    ) -> None:
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(StringValue(value=table_format or ""))
        super().__init__(
            input_base=input_base,
            input_config=input_config,
            output_config=output_config,
            custom_config=custom_config,
        )
