"""Writes the rows of tables as examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf.wrappers_pb2 import StringValue
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.utils import proto_utils

from components.table_file import TableFile, TableFormat


class Executor(BaseExampleGenExecutor):
    """Splits and writes as TFX's own ExampleGens do."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 (TFX's name)
        """What turns the files of a pattern into examples."""
        return _read_examples


@beam.ptransform_fn
@beam.typehints.with_input_types(beam.Pipeline)
@beam.typehints.with_output_types(tf.train.Example)
def _read_examples(pipeline: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str) -> beam.PCollection:
    pattern = f"{exec_properties['input_base'].rstrip('/')}/{split_pattern}"
    table_format = _table_format(exec_properties["custom_config"])
    return (
        pipeline
        | "Files" >> beam.Create(sorted(fileio.glob(pattern)))
        | "Rows" >> beam.FlatMap(read_examples_of, table_format).with_output_types(tf.train.Example)
    )


def _table_format(custom_config: str) -> TableFormat | None:
    config, value = example_gen_pb2.CustomConfig(), StringValue()
    proto_utils.json_to_proto(custom_config, config)
    config.custom_config.Unpack(value)
    return value.value or None  # the component takes no other


def read_examples_of(path: str, table_format: TableFormat | None) -> Iterator[tf.train.Example]:
    """The rows of a table as examples: every column a string feature, without a value where the field is empty."""
    for row in TableFile(path, table_format).rows():
        example = tf.train.Example()
        for name, text in row.fields.items():
            values = example.features.feature[name].bytes_list.value
            if text:
                values.append(text.encode())
        yield example
