"""Writes the rows of tables as examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from google.protobuf.wrappers_pb2 import StringValue
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils

from components.errors import BrokenInput
from components.table_example_gen.facts import TableFacts, merged_facts, shard_facts
from components.table_example_gen.options import WHOLE_FOLDER, Ingestion
from components.table_example_gen.serialization import record_digests, serialized_examples
from components.table_example_gen.sources import BATCH_ROWS, Shard, plan_inputs, shard_batches
from components.table_example_gen.splits import (
    hash_buckets,
    key_buckets,
    named_splits,
    near_duplicate_keys,
    places_of_buckets,
    text_hashes,
    times_from,
)

REPORT_FILE = "ingestion.json"
_NO_ROWS = "the files hold no rows; expected at least one for each class"
# Written once and read a few times: the next levels take three times as long for a tenth less.
_COMPRESSION_LEVEL = 1


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes gzipped TFRecord files of tf.Examples as TFX's own ExampleGens do, and ingestion.json.

    The same rows become the same bytes, whatever the engine, its workers and the run.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Read the tables.

        Raises:
            BrokenInput: a file cannot be read, or there are no rows.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        ingestion, inputs = self._read_properties(exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["examples"])
        splits = ingestion.splits(list(inputs))
        artifact.split_names = artifact_utils.encode_split_names(splits)
        examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(artifact, "tfrecords_gzip")
        folders = {split: artifact_utils.get_split_uri([artifact], split) for split in splits}
        for folder in folders.values():
            fileio.makedirs(folder)

        shards = plan_inputs(inputs, ingestion)
        report = f"{artifact.uri}/{REPORT_FILE}"
        with self._make_beam_pipeline() as pipeline:
            numbered = pipeline | "Shards" >> beam.Create(list(enumerate(shards))) | "Spread" >> beam.Reshuffle()
            found = (
                numbered | "Look" >> beam.Map(_facts_of, ingestion) | "MergeFacts" >> beam.CombineGlobally(merged_facts)
            )
            facts = beam.pvalue.AsSingleton(found)
            _ = (
                self._write(numbered, facts, ingestion, folders, len(shards))
                | "Count" >> beam.CombineGlobally(_added)
                | "Report" >> beam.Map(_write_report, report, facts)
            )
        with fileio.open(report, "r") as file:
            error = json.loads(file.read())["error"]
        if error:
            raise BrokenInput(error)

    def _read_properties(self, exec_properties: Mapping[str, Any]) -> tuple[Ingestion, dict[str, str]]:
        """What is done, and the split of the input -> the pattern of its files, with its folder."""
        config, value, inputs = example_gen_pb2.CustomConfig(), StringValue(), example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties["custom_config"], config)
        config.custom_config.Unpack(value)
        proto_utils.json_to_proto(exec_properties["input_config"], inputs)
        base = exec_properties["input_base"].rstrip("/")
        paths = {split.name: f"{base}/{split.pattern}".removesuffix(f"/{WHOLE_FOLDER}") for split in inputs.splits}
        return Ingestion.model_validate_json(value.value), paths

    def _write(
        self, numbered: beam.PCollection, facts: Any, ingestion: Ingestion, folders: Mapping[str, str], shards: int
    ) -> beam.PCollection:
        """Write the rows: how many went into each split, and what stopped it, of each piece of the work."""
        return numbered | "Write" >> beam.Map(_written, facts, ingestion, folders, shards)


class BigQueryExecutor(Executor):
    """Does the same with rows of BigQuery, whose streams hold other rows, in another order, each time.

    Each file takes the rows of a range of hashes, wherever they come from: the same files for the same rows. Between
    reading and writing the rows are Beam's, whose in-memory runner keeps them in memory.
    """

    def _read_properties(self, exec_properties: Mapping[str, Any]) -> tuple[Ingestion, dict[str, str]]:
        return Ingestion.model_validate_json(exec_properties["ingestion"]), {"all": exec_properties["source"]}

    def _write(
        self, numbered: beam.PCollection, facts: Any, ingestion: Ingestion, folders: Mapping[str, str], shards: int
    ) -> beam.PCollection:
        return (
            numbered
            | "Read" >> beam.FlatMap(_records_of_files, facts, ingestion)
            | "Gather" >> beam.GroupByKey()
            | "Write" >> beam.Map(_gathered, facts, folders)
        )


def _facts_of(shard: tuple[int, Shard], ingestion: Ingestion) -> TableFacts:
    return shard_facts(shard[1], ingestion)


def _written(
    numbered: tuple[int, Shard], facts: TableFacts, ingestion: Ingestion, folders: Mapping[str, str], shards: int
) -> tuple[Counter[str], str]:
    """Write a shard: how many rows went into each split, and why it could not be; "" where it could."""
    if facts.error:
        return Counter(), facts.error
    number, shard = numbered
    counts: Counter[str] = Counter()
    with _writers(folders, number, shards) as writers:
        try:
            for split, records in split_records(shard, facts, ingestion):
                counts[split] += len(records)
                for record in records:
                    writers[split].write(record)
        except BrokenInput as error:
            return counts, str(error)
    return counts, ""


@contextmanager
def _writers(folders: Mapping[str, str], number: int, files: int) -> Iterator[dict[str, tf.io.TFRecordWriter]]:
    """One for each split, to the file of that number."""
    options = tf.io.TFRecordOptions("GZIP", compression_level=_COMPRESSION_LEVEL)
    with ExitStack() as stack:
        yield {
            split: stack.enter_context(
                tf.io.TFRecordWriter(f"{folder}/data_tfrecord-{number:05d}-of-{files:05d}.gz", options)
            )
            for split, folder in folders.items()
        }


# The number of a file, and some of its records of one split; or no split, and why the rows cannot be read.
_Part = tuple[int, tuple[str, list[bytes]]]


def _files_of(facts: TableFacts) -> int:
    return max(1, -(-facts.rows // BATCH_ROWS))


def _records_of_files(numbered: tuple[int, Shard], facts: TableFacts, ingestion: Ingestion) -> Iterator[_Part]:
    if facts.error:
        return
    try:
        for split, records in split_records(numbered[1], facts, ingestion):
            # The first half of a hash, as a share of all that there are, times the number of files.
            halves = _leading(record_digests(records)) >> np.uint64(32)
            of_record = halves * np.uint64(_files_of(facts)) >> np.uint64(32)
            for number in np.unique(of_record):
                yield int(number), (split, [records[place] for place in np.flatnonzero(of_record == number)])
    except BrokenInput as error:
        yield 0, ("", [str(error).encode()])


def _gathered(
    gathered: tuple[int, Iterable[tuple[str, list[bytes]]]], facts: TableFacts, folders: Mapping[str, str]
) -> tuple[Counter[str], str]:
    """Write a file for each split; see _written."""
    number, parts = gathered
    of_split: dict[str, list[bytes]] = {split: [] for split in ("", *folders)}
    for split, records in parts:
        of_split[split] += records
    errors = of_split.pop("")
    with _writers(folders, number, _files_of(facts)) as writers:
        for split, records in of_split.items():
            for place in _order_of_hashes(record_digests(records)):
                writers[split].write(records[place])
    return Counter({split: len(records) for split, records in of_split.items()}), errors[0].decode() if errors else ""


def _order_of_hashes(digests: np.ndarray) -> np.ndarray:
    return np.argsort(_leading(digests), kind="stable")


def _leading(digests: np.ndarray) -> np.ndarray:
    """The first 64 bits of each digest, uint64 [n]."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def split_records(shard: Shard, facts: TableFacts, ingestion: Ingestion) -> Iterator[tuple[str, list[bytes]]]:
    """The serialized examples of a shard, a split and some of its records at a time.

    Within a batch they stand in the order of their hashes: the same one each time, and one that has nothing to do with
    how the file is sorted.
    """
    splits = ingestion.splits([])
    held_out = ingestion.eval_share + ingestion.test_share
    times = facts.times.threshold(held_out), facts.times.threshold(ingestion.eval_share)
    shared_texts = facts.texts.shared()
    for batch in shard_batches(shard, ingestion.reading, facts.types):
        features = batch.drop_columns([ingestion.split.column]) if ingestion.split.column else batch
        records = serialized_examples(features).to_pylist()
        digests = record_digests(records)
        order = _order_of_hashes(digests)
        if shard.split:
            yield shard.split, [records[place] for place in order]
            continue
        of_row = _places(batch, digests, ingestion, times, shared_texts)
        for place, split in enumerate(splits):
            yield split, [records[row] for row in order[of_row[order] == place]]


def _places(
    batch: pa.RecordBatch,
    digests: np.ndarray,
    ingestion: Ingestion,
    times: tuple[float | str | None, float | str | None],
    shared_texts: np.ndarray,
) -> np.ndarray:
    """The split of each row, as its place among the names of the splits."""
    split = ingestion.split
    if split.column:
        return named_splits(batch.column(split.column), split.column, ingestion.splits([]))
    if split.time:
        column = batch.column(split.time)
        later, newest = (times_from(column, split.time, threshold) for threshold in times)
        return np.where(newest, 1, np.where(later & bool(ingestion.test_share), 2, 0))
    buckets = hash_buckets(digests)
    if split.group:
        of_group = key_buckets(batch.column(split.group))
        buckets = np.where(of_group < 0, buckets, of_group)
    elif ingestion.text_column and len(shared_texts):
        texts = near_duplicate_keys(batch.column(ingestion.text_column))
        buckets = np.where(np.isin(text_hashes(texts), shared_texts), key_buckets(texts), buckets)
    return places_of_buckets(buckets, ingestion.eval_share, ingestion.test_share)


def _added(parts: Iterable[tuple[Counter[str], str]]) -> tuple[Counter[str], str]:
    total: Counter[str] = Counter()
    first = ""
    for counts, error in parts:
        total += counts
        first = first or error
    return total, first


def _write_report(found: tuple[Counter[str], str], path: str, facts: TableFacts) -> None:
    counts, error = found
    report = {
        "examples": dict(counts),
        "columns": {name: str(kind) for name, kind in facts.types.items()},
        "left_out": dict(facts.left_out),
        "error": error or facts.error or ("" if facts.rows else _NO_ROWS),
    }
    io_utils.write_string_file(path, json.dumps(report, indent=2))
