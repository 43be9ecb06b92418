"""StatisticsGen: TFX's, which computes the statistics of small data without a Beam pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics.stats_impl import generate_statistics_in_memory
from tfx import components as tfx_components
from tfx import types
from tfx.components.statistics_gen import executor
from tfx.components.util import examples_utils
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from serving.reference_predictions import read_record_batches

# Bytes: of all splits together, as they lie compressed on the disk; and of the examples of a split.
_SMALL, _SMALL_SPLIT = 8 << 20, 64 << 20
# What TFDV's sketches, which it uses in memory, count exactly: so many values of a column, and none that is longer.
_VALUES, _LONGEST_VALUE = 1000, 1024


class Executor(executor.Executor):
    """Writes what TFX's executor does, of small data without a pipeline, which takes a second, and on a cluster thirty.

    The figures are the same, but for the last digit of a mean where there are more rows than Beam has in a batch.
    Texts, samples, shards and a schema among the inputs are TFX's own business.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compute the statistics of each split; see TFX's executor for arguments and errors."""
        options = _options(exec_properties)
        files = _small_splits(input_dict, exec_properties)
        examples: dict[str, pa.RecordBatch] = {}
        for split, of_split in files.items():
            batch = _decoded(of_split)
            if batch is None or not _is_counted_exactly(batch, options):
                break
            examples[split] = batch
        if not files or examples.keys() != files.keys():
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(output_dict["statistics"])
        statistics.split_names = artifact_utils.encode_split_names(list(files))
        statistics.span = artifact_utils.get_single_instance(input_dict["examples"]).span
        for split, batch in examples.items():
            found = generate_statistics_in_memory(batch, options)
            uri = artifact_utils.get_split_uri(output_dict["statistics"], split)
            io_utils.write_bytes_file(f"{uri}/{executor.DEFAULT_FILE_NAME}", found.SerializeToString())


def _decoded(files: Sequence[str]) -> pa.RecordBatch | None:
    """All examples; None where they are many more bytes than their files."""
    records: list[bytes] = []
    size = 0
    for batch in read_record_batches(files):
        size += sum(map(len, batch))
        if size > _SMALL_SPLIT:
            return None
        records.extend(batch)
    return ExamplesToRecordBatchDecoder().DecodeBatch(records)


def _is_counted_exactly(batch: pa.RecordBatch, options: tfdv.StatsOptions) -> bool:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        counted = options.feature_allowlist is None or name in options.feature_allowlist
        if not counted or pa.types.is_null(column.type) or not _is_bytes(column.type.value_type):
            continue
        values = column.flatten()
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > _LONGEST_VALUE or pc.count_distinct(values).as_py() > _VALUES:
            return False
    return True


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _options(exec_properties: Mapping[str, Any]) -> tfdv.StatsOptions:
    given = exec_properties.get("stats_options_json")
    return tfdv.StatsOptions.from_json(given) if given else tfdv.StatsOptions()


def _small_splits(
    input_dict: Mapping[str, Sequence[types.Artifact]], exec_properties: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Split -> its files; {} where they are large, or more is wanted than statistics of all their examples."""
    options = _options(exec_properties)
    examples = artifact_utils.get_single_instance(list(input_dict["examples"]))
    if (
        input_dict.get("schema")
        or exec_properties.get("sharded_stats_output")
        or json_utils.loads(exec_properties.get("sample_rate_by_split") or "null")
        or examples.has_custom_property(examples_utils.CUSTOM_SPLIT_PATTERN_PROPERTY_NAME)
        or options.sample_rate
        or options.label_feature
        or options.experimental_filter_read_paths
    ):
        return {}
    excluded = json_utils.loads(exec_properties.get("exclude_splits") or "null") or []
    files = {
        split: sorted(fileio.glob(f"{artifact_utils.get_split_uri([examples], split)}/*"))
        for split in artifact_utils.decode_split_names(examples.split_names)
        if split not in excluded
    }
    if not all(files.values()):
        return {}
    small = _bytes_of([file for of_split in files.values() for file in of_split]) <= _SMALL
    return files if small else {}


def _bytes_of(files: Sequence[str]) -> int:
    return sum(tf.io.gfile.stat(file).length for file in files)


class StatisticsGen(tfx_components.StatisticsGen):
    """TFX's component, with the executor of this module."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
