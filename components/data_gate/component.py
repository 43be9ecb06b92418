"""DataGate: stops a run on data that contradicts its schema or cannot be learned from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.data_gate.judge import judge
from components.data_gate.leaks import LeakSearch, find_leaks
from components.data_gate.splits import SplitFindings, SplitRows, joined, mean_bytes
from components.data_gate.verdict import ANOMALIES_FILE, VERDICT_FILE
from components.errors import AnomaliesFound, BrokenInput

# What is read of the train split for leaks at most, and half as much of another one: rows, values in all columns, bytes
# of text.
MAXIMUM_ROWS = 200_000
MAXIMUM_VALUES = 4_000_000
MAXIMUM_BYTES = 1 << 28
_BATCH = 5_000
_SEED = 3


class Executor(base_executor.BaseExecutor):
    """Writes verdict.json; raises where it stops the run."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Judge the data.

        Raises:
            BrokenInput: nothing can be learned from the data.
            AnomaliesFound: the data contradicts its schema.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        splits = [
            _findings(statistics, anomalies, split)
            for split in artifact_utils.decode_split_names(statistics.split_names)
        ]
        # A pipeline that was compiled before there was a search asks for none.
        search = LeakSearch.from_json(exec_properties["leak_search"]) if exec_properties.get("leak_search") else None
        verdict = judge(
            splits,
            io_utils.SchemaReader().read(schema_file),
            label=exec_properties["label"],
            schema_is_curated=bool(exec_properties["schema_is_curated"]),
            minimum_examples=exec_properties["minimum_examples"],
            schema_path=exec_properties["schema_path"],
            texts=search.texts if search else (),
        )
        if search is not None and not verdict.stopped:
            leaks = find_leaks(search, exec_properties["label"], _rows(input_dict["examples"], splits))
            verdict = replace(verdict, warnings=(*verdict.warnings, *leaks))
        output = artifact_utils.get_single_instance(output_dict["verdict"])
        io_utils.write_string_file(f"{output.uri}/{VERDICT_FILE}", json.dumps(verdict.as_json(), indent=2))
        if verdict.unusable:
            raise BrokenInput("\n".join(verdict.reasons))
        if verdict.anomalies:
            raise AnomaliesFound("\n".join(verdict.reasons))


def _findings(statistics: types.Artifact, anomalies: types.Artifact, split: str) -> SplitFindings:
    found = anomalies_pb2.Anomalies()
    # A split that ExampleValidator was told to leave out has no anomalies.
    if split in artifact_utils.decode_split_names(anomalies.split_names):
        path = f"{artifact_utils.get_split_uri([anomalies], split)}/{ANOMALIES_FILE}"
        with fileio.open(path, "rb") as file:
            found.ParseFromString(file.read())
    view = stats_artifact_utils.load_statistics(statistics, split).get_default_slice_or_die()
    return SplitFindings(split, view.proto(), found)


def _rows(examples: list[types.Artifact], splits: Sequence[SplitFindings]) -> dict[str, SplitRows]:
    """Rows of each split, those that models learn from first."""
    rows: dict[str, SplitRows] = {}
    for split in sorted(splits, key=lambda split: split.name != "train"):
        files = sorted(fileio.glob(f"{artifact_utils.get_split_uri(examples, split.name)}/*"))
        most = min(MAXIMUM_ROWS, MAXIMUM_VALUES / max(len(split.columns), 1), MAXIMUM_BYTES / max(mean_bytes(split), 1))
        rows[split.name] = read_rows(files, split.examples, max(1, int(most if not rows else most / 2)))
    return rows


def read_rows(files: Sequence[str], total: int, maximum: int = MAXIMUM_ROWS) -> SplitRows:
    """Decode the examples of a split, of many a sample that is the same each time.

    Args:
        files: gzipped TFRecord files of tf.Examples.
        total: how many examples they hold.
        maximum: how many are decoded at most.
    """
    records = tf.data.TFRecordDataset(list(files), "GZIP", buffer_size=1 << 20).batch(_BATCH)
    if total > maximum:
        chosen = np.zeros(total, bool)
        chosen[np.random.default_rng(_SEED).choice(total, maximum, replace=False)] = True
        masks = tf.data.Dataset.from_tensor_slices(chosen).batch(_BATCH)
        records = tf.data.Dataset.zip(records, masks).map(tf.boolean_mask).prefetch(2)
    decoder = ExamplesToRecordBatchDecoder()
    batches = [decoder.DecodeBatch(batch.tolist()) for batch in records.as_numpy_iterator() if len(batch)]
    names = dict.fromkeys(name for batch in batches for name in batch.schema.names)
    return SplitRows({name: joined([_values(batch, name) for batch in batches]) for name in names}, total)


def _values(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The one value of each row, null where it has none; of a row with several, all of them as one text."""
    if name not in batch.schema.names or pa.types.is_null(batch.column(batch.schema.names.index(name)).type):
        return pa.nulls(batch.num_rows)
    column = batch.column(batch.schema.names.index(name))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    if lengths.max(initial=0) > 1:
        return pa.array([repr(row).encode() if row else None for row in column.to_pylist()], pa.large_binary())
    return column.values.take(pa.array(column.offsets.to_numpy()[:-1], mask=lengths == 0))


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
