"""Writes the rows of tables as examples."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue
from google.protobuf.wrappers_pb2 import StringValue
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils

from components.errors import BrokenInput
from components.table_example_gen.facts import TableFacts, batch_facts, merged_facts, shard_facts
from components.table_example_gen.options import WHOLE_FOLDER, Ingestion
from components.table_example_gen.serialization import (
    framed,
    framed_examples,
    gzip_member,
    put_checksums,
    record_checksums,
    record_digests,
    records_of_frames,
)
from components.table_example_gen.sources import BATCH_ROWS, Shard, plan_inputs, shard_batches
from components.table_example_gen.splits import (
    hash_buckets,
    key_buckets,
    named_splits,
    near_duplicate_keys,
    places_of_buckets,
    sample_sizes,
    text_hashes,
    times_from,
)
from serving.reference_predictions import read_examples

REPORT_FILE = "ingestion.json"
_NO_ROWS = "the files hold no rows; expected at least one for each class"
# Written once and read a few times. Compression takes as long as all else together, and an eighth of the room: so much
# is stored without. Of the rest, the next levels take three times as long for a tenth less.
_STORED_BYTES = 2**30
_COMPRESSION_LEVEL = 1
_NO_RECORDS = gzip_member(framed([]), _COMPRESSION_LEVEL)


@dataclass(frozen=True)
class _Output:
    """What is done with the rows.

    Attributes:
        ingestion: how they are read and split.
        folders: split -> where its files are.
        files: how many each split has, one for each shard.
    """

    ingestion: Ingestion
    folders: Mapping[str, str]
    files: int


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
            counted, facts = self._write(numbered, _Output(ingestion, folders, len(shards)))
            _ = counted | "Count" >> beam.CombineGlobally(_added) | "Report" >> beam.Map(_write_report, report, facts)
        with fileio.open(report, "r") as file:
            found = json.loads(file.read())
        if found["error"]:
            raise BrokenInput(found["error"])
        if ingestion.sample:
            found["examples"] = {
                split: _keep_sample(split, folder, ingestion.sample, ingestion.label)
                for split, folder in folders.items()
            }
            io_utils.write_string_file(report, json.dumps(found, indent=2))

    def _read_properties(self, exec_properties: Mapping[str, Any]) -> tuple[Ingestion, dict[str, str]]:
        """What is done, and the split of the input -> the pattern of its files, with its folder."""
        config, value, inputs = example_gen_pb2.CustomConfig(), StringValue(), example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties["custom_config"], config)
        config.custom_config.Unpack(value)
        proto_utils.json_to_proto(exec_properties["input_config"], inputs)
        base = exec_properties["input_base"].rstrip("/")
        paths = {split.name: f"{base}/{split.pattern}".removesuffix(f"/{WHOLE_FOLDER}") for split in inputs.splits}
        return Ingestion.model_validate_json(value.value), paths

    def _write(self, numbered: beam.PCollection, output: _Output) -> tuple[beam.PCollection, Any]:
        """Write the rows.

        Each shard is written while it is looked at, with the types that it has by itself. Nearly always these are those
        of the whole table, and the second step has nothing to do.

        Returns:
            of each piece of the work, how many rows went into each split and what stopped it; and the facts.
        """
        looked = numbered | "Look" >> beam.ParDo(_Together(_looked), output)
        facts = _merged(looked | "Facts" >> beam.Map(_facts_of))
        return looked | "Write" >> beam.ParDo(_Together(_written), output, facts), facts


class BigQueryExecutor(Executor):
    """Does the same with rows of BigQuery, whose streams hold other rows, in another order, each time.

    Each file takes the rows of a range of hashes, wherever they come from: the same files for the same rows. Between
    reading and writing the rows are Beam's, whose in-memory runner keeps them in memory.
    """

    def _read_properties(self, exec_properties: Mapping[str, Any]) -> tuple[Ingestion, dict[str, str]]:
        return Ingestion.model_validate_json(exec_properties["ingestion"]), {"all": exec_properties["source"]}

    def _write(self, numbered: beam.PCollection, output: _Output) -> tuple[beam.PCollection, Any]:
        facts = _merged(numbered | "Look" >> beam.Map(_facts_of_stream, output.ingestion))
        gathered = (
            numbered
            | "Read" >> beam.FlatMap(_records_of_files, facts, output.ingestion)
            | "Gather" >> beam.GroupByKey()
        )
        return gathered | "Write" >> beam.Map(_gathered, facts, output.folders), facts


def _merged(facts: beam.PCollection) -> Any:
    return beam.pvalue.AsSingleton(facts | "MergeFacts" >> beam.CombineGlobally(merged_facts))


def _facts_of_stream(numbered: _Numbered, ingestion: Ingestion) -> TableFacts:
    return shard_facts(numbered[1], ingestion)


class _Together(beam.DoFn):
    """Takes the shards of a bundle together, so that their batches share the cores.

    Args:
        work: takes the elements of a bundle and the other arguments of `process`, and gives results.
    """

    def __init__(self, work: Callable[..., Iterator[Any]]) -> None:
        self._work = work

    def start_bundle(self) -> None:
        self._elements: list[Any] = []
        self._arguments: tuple[Any, ...] = ()

    def process(self, element: Any, *arguments: Any) -> None:
        self._elements.append(element)
        self._arguments = arguments

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._elements:
            yield from map(GlobalWindows.windowed_value, self._work(self._elements, *self._arguments))


_Numbered = tuple[int, Shard]


@dataclass(frozen=True)
class _Ingested:
    """A shard, looked at and written.

    Attributes:
        numbered: the shard, with its number.
        facts: about its rows.
        types: those that its rows were written with; None where they were not, or not all of them.
        counts: split -> how many rows were written.
    """

    numbered: _Numbered
    facts: TableFacts
    types: Mapping[str, pa.DataType] | None
    counts: Counter[str]


def _facts_of(shard: _Ingested) -> TableFacts:
    return shard.facts


def _looked(shards: Sequence[_Numbered], output: _Output) -> Iterator[_Ingested]:
    """Look at shards, and write those whose rows can be split without the others."""
    yield from _ingested(shards, output, None)


def _written(shards: Sequence[_Ingested], output: _Output, facts: TableFacts) -> Iterator[tuple[Counter[str], str]]:
    """Write those that are not written as the facts about the table want it; see Executor._write."""
    if facts.error:
        yield Counter(), facts.error
        return
    yield from ((shard.counts, "") for shard in shards if shard.types == facts.types)
    others = [shard.numbered for shard in shards if shard.types != facts.types]
    yield from ((shard.counts, shard.facts.error) for shard in _ingested(others, output, facts))


@dataclass(frozen=True)
class _Piece:
    """A batch of a shard; the first of each shard is none.

    Attributes:
        numbered: the shard, with its number.
        place: of the batch in the shard.
        batch: its rows as they are read.
        facts: about them, or why they cannot be read.
        types: those that they are serialized with, as _Ingested has them.
        counts: split -> how many rows it has.
        members: split -> its records, framed and compressed.
    """

    numbered: _Numbered
    place: int = 0
    batch: pa.RecordBatch | None = None
    facts: TableFacts = field(default_factory=TableFacts)
    types: Mapping[str, pa.DataType] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    members: Mapping[str, bytes] = field(default_factory=dict)


def _ingested(shards: Sequence[_Numbered], output: _Output, facts: TableFacts | None) -> Iterator[_Ingested]:
    """Read shards and write them.

    Args:
        shards: with their numbers.
        output: what is done with them.
        facts: about the whole table; None where they are to be found.
    """
    splitter = _Splitter(output.ingestion, facts)
    pieces = in_threads(partial(_serialized, splitter=splitter), _pieces(shards, output.ingestion, facts))
    for numbered, of_shard in groupby(pieces, attrgetter("numbered")):
        next(of_shard)
        found, counts, types = TableFacts(), Counter[str](), None
        with _files(output.folders if splitter.is_able else {}, numbered[0], output.files) as files:
            for place, piece in enumerate(of_shard):
                found = found.merged(piece.facts)
                types = piece.types if place == 0 or piece.types == types else None
                if types is not None:
                    counts += piece.counts
                    for split, member in piece.members.items():
                        files[split].write(member)
        yield _Ingested(numbered, found, types, counts)


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Beyond these the interpreter's lock is what all wait for.
_MOST_THREADS = 8


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """The results in the order of the items, of which a few are taken ahead: memory does not grow with their number."""
    count = min(os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(count) as threads:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _pieces(shards: Sequence[_Numbered], ingestion: Ingestion, facts: TableFacts | None) -> Iterator[_Piece]:
    for numbered in shards:
        yield _Piece(numbered)
        try:
            batches = shard_batches(numbered[1], ingestion.reading, facts.types if facts else None)
            yield from (_Piece(numbered, place, batch) for place, batch in enumerate(batches))
        except BrokenInput as error:
            yield _Piece(numbered, facts=TableFacts(error=str(error)))


def _serialized(piece: _Piece, splitter: _Splitter) -> _Piece:
    """The piece with everything that is made of its batch, and without it."""
    if piece.batch is None:
        return piece
    try:
        facts, columns = batch_facts(piece.batch, splitter.ingestion)
        if not splitter.is_able or not splitter.columns <= set(columns.schema.names):
            return _Piece(piece.numbered, facts=facts)
        frames, records, rows = splitter.split(columns, piece.numbered[1].split)
        level = _level(piece.numbered[0], piece.place, frames)
        checksums = record_checksums(records)
        members = {}
        for split, places in rows.items():
            if len(places):
                of_split = frames.take(pa.array(places))
                put_checksums(of_split, checksums[places])
                members[split] = gzip_member(of_split, level)
        counts = Counter({split: len(places) for split, places in rows.items()})
        types = dict(zip(columns.schema.names, columns.schema.types, strict=True))
        return _Piece(piece.numbered, facts=facts, types=types, counts=counts, members=members)
    except BrokenInput as error:
        return _Piece(piece.numbered, facts=TableFacts(error=str(error)))


def _level(number: int, place: int, frames: pa.BinaryArray) -> int:
    """Of the compression, by about where a batch of a file is among all that is written."""
    return 0 if (number + 1) * (place + 1) * frames.nbytes <= _STORED_BYTES else _COMPRESSION_LEVEL


@contextmanager
def _files(folders: Mapping[str, str], number: int, files: int) -> Iterator[dict[str, _RecordFile]]:
    """One for each split, of that number; each is a gzip file, even without records."""
    with ExitStack() as stack:
        opened = {}
        for split, folder in folders.items():
            path = f"{folder}/data_tfrecord-{number:05d}-of-{files:05d}.gz"
            opened[split] = _RecordFile(stack.enter_context(fileio.open(path, "wb")))
        yield opened
        for file in opened.values():
            # Only where nothing else is: TensorFlow takes an empty member for the end of the file.
            if file.is_empty:
                file.write(_NO_RECORDS)


class _RecordFile:
    """A file of gzip members; an object store's does not say how long it is."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.is_empty = True

    def write(self, member: bytes) -> None:
        self._file.write(member)
        self.is_empty = False


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
    with _files(folders, number, _files_of(facts)) as files:
        for split, records in of_split.items():
            ordered = [records[place] for place in _order_of_hashes(record_digests(records))]
            if ordered:
                frames = framed(ordered)
                files[split].write(gzip_member(frames, _level(number, 0, frames)))
    return Counter({split: len(records) for split, records in of_split.items()}), errors[0].decode() if errors else ""


def _order_of_hashes(digests: np.ndarray) -> np.ndarray:
    """Records whose first 64 bits are the same are the same."""
    return np.argsort(_leading(digests))


def _leading(digests: np.ndarray) -> np.ndarray:
    """The first 64 bits of each digest, uint64 [n]."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def split_records(shard: Shard, facts: TableFacts, ingestion: Ingestion) -> Iterator[tuple[str, list[bytes]]]:
    """The serialized examples of a shard, a split and some of its records at a time; see _Splitter.split."""
    splitter = _Splitter(ingestion, facts)
    for batch in shard_batches(shard, ingestion.reading, facts.types):
        _, records, rows = splitter.split(batch, shard.split)
        for split, places in rows.items():
            yield split, [records[place] for place in places]


class _Splitter:
    """Tells the split of rows.

    Args:
        ingestion: how.
        facts: about the whole table; None where they are not known yet.

    Attributes:
        is_able: whether it can; without the facts, where rows are split by times or by near-duplicates, it cannot.
        columns: those that it needs.
    """

    def __init__(self, ingestion: Ingestion, facts: TableFacts | None) -> None:
        self.ingestion = ingestion
        self.is_able = facts is not None or not (ingestion.split.time or ingestion.text_column)
        self.columns = set(ingestion.split.named_columns())
        facts = facts or TableFacts()
        held_out = ingestion.eval_share + ingestion.test_share
        self._times = facts.times.threshold(held_out), facts.times.threshold(ingestion.eval_share)
        self._shared_texts = facts.texts.shared()

    def split(self, batch: pa.RecordBatch, only: str) -> tuple[pa.BinaryArray, list[bytes], dict[str, np.ndarray]]:
        """The serialized examples of a batch, and which of them are of which split.

        Within a split they stand in the order of their hashes: the same one each time, and one that has nothing to do
        with how the file is sorted.

        Args:
            batch: as serialization.serialized_examples takes it.
            only: the split of all rows; "" where each has its own.

        Returns:
            what serialization.framed_examples makes of the batch, the records in it, and split -> the places of its
            rows.
        """
        column = self.ingestion.split.column
        frames = framed_examples(batch.drop_columns([column]) if column else batch)
        records = records_of_frames(frames)
        digests = record_digests(records)
        order = _order_of_hashes(digests)
        if only:
            return frames, records, {only: order}
        of_row = _places(batch, digests, self.ingestion, self._times, self._shared_texts)[order]
        splits = self.ingestion.splits([])
        return frames, records, {split: order[of_row == place] for place, split in enumerate(splits)}


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


def _keep_sample(split: str, folder: str, most: int, label: str) -> int:
    """Leave so many records in the folder of a split, some of each label, those whose hashes are the smallest."""
    files = sorted(fileio.glob(f"{folder}/*"))
    counts: Counter[str] = Counter()
    of_label: dict[str, list[tuple[bytes, bytes]]] = {}
    for record in read_examples(files):
        value = str(tf.train.Example.FromString(record).features.feature[label])
        counts[value] += 1
        found = of_label.setdefault(value, [])
        found.append((hashlib.sha256(record).digest(), record))
        if len(found) == 2 * most:  # no more of a label can be wanted
            found.sort()
            del found[most:]
    sizes = sample_sizes(counts, most)
    kept = [record for value, records in of_label.items() for _, record in sorted(records)[: sizes[value]]]
    for file in files:
        fileio.remove(file)
    with _files({split: folder}, 0, 1) as opened:
        if kept:
            kept = [kept[place] for place in _order_of_hashes(record_digests(kept))]
            opened[split].write(gzip_member(framed(kept), _COMPRESSION_LEVEL))
    return len(kept)


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
