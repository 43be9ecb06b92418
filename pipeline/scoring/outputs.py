"""Outputs of batch scoring: predictions, written in the format that a file's name asks for."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.scoring.inputs import BadItem


@dataclass(frozen=True)
class Predictions:
    """The model's answers for some rows or photos.

    Attributes:
        sources: the file of each, string [n].
        lines: of rows the lines in which they begin, from 1, int64 [n]; null for photos.
        labels: that `serving_default` answers, string [n]: the best one, the one that a decision chooses, or the
            model's label for unknown.
        of_labels: their probabilities, float32 [n]; null where the model gives none, and for the label for unknown.
        ranked: the labels of each, the best first, as many as the model's `classify` ranks, string [n * ranks].
        probabilities: theirs, float32 [n, ranks].
    """

    sources: pa.StringArray
    lines: pa.Int64Array
    labels: pa.StringArray
    of_labels: pa.FloatArray
    ranked: pa.StringArray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.sources)

    def by_rank(self, values: pa.Array) -> pa.ListArray:
        """What is given for each rank of each row, row by row."""
        rows, ranks = self.probabilities.shape
        return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * ranks, pa.int32()), values)


_ROWS_PER_GROUP = 8192
_COLUMNS = ("source", "line", "label", "probability", "probabilities")
_SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "line": pa.int64(),
        "label": pa.string(),
        "probability": pa.float32(),
        "probabilities": pa.map_(pa.string(), pa.float32()),
    }
)


class RowWriter(Protocol):
    """Writes rows into an open file."""

    def write(self, rows: Predictions) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Predictions) -> None:
        lines, of_labels = pc.cast(rows.lines, pa.string()), _json_numbers(rows.of_labels)
        values = [_json_strings(rows.sources), lines, _json_strings(rows.labels), of_labels, _json_objects(rows)]
        parts: list[Any] = []
        for name, column in zip(_COLUMNS, values, strict=True):
            parts += [f'{"," if parts else "{"}"{name}":', pc.fill_null(column, "null")]
        self._file.write(_together(*parts, "}\n"))

    def close(self) -> None:
        self._file.close()


class _BadLines:
    """Bad items as JSON lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, items: Sequence[BadItem]) -> None:
        for item in items:
            self._file.write(orjson.dumps({name: getattr(item, name) for name in ("source", "line", "reason")}) + b"\n")

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(",".join(_COLUMNS).encode() + b"\n")

    def write(self, rows: Predictions) -> None:
        lines, of_labels = pc.cast(rows.lines, pa.string()), _json_numbers(rows.of_labels)
        columns = [
            _csv_fields(rows.sources),
            lines,
            _csv_fields(rows.labels),
            of_labels,
            _csv_fields(_json_objects(rows)),
        ]
        parts: list[Any] = []
        for column in columns:
            parts += [pc.fill_null(column, ""), ","]
        self._file.write(_together(*parts[:-1], "\n"))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer = pq.ParquetWriter(file, _SCHEMA)
        self._batches: list[pa.RecordBatch] = []

    def write(self, rows: Predictions) -> None:
        ranked = rows.by_rank(rows.ranked)
        probabilities = pa.MapArray.from_arrays(ranked.offsets, ranked.values, pa.array(rows.probabilities.reshape(-1)))
        columns = [rows.sources, rows.lines, rows.labels, rows.of_labels, probabilities]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
        if sum(map(len, self._batches)) >= _ROWS_PER_GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()
        self._file.close()

    def _write_group(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._batches, _SCHEMA))
        self._batches = []


def _together(*parts: pa.StringArray | str) -> memoryview:
    """All rows behind each other, each made of its parts."""
    rows = pc.binary_join_element_wise(*parts, "")
    whole = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    return memoryview(pc.binary_join(whole, "")[0].as_buffer())


def _json_objects(rows: Predictions) -> pa.StringArray:
    """Label to probability."""
    probabilities = _json_numbers(pa.array(rows.probabilities.reshape(-1)))
    members = pc.binary_join_element_wise(_json_strings(rows.ranked), probabilities, ":")
    return pc.binary_join_element_wise("{", pc.binary_join(rows.by_rank(members), ","), "}", "")


def _json_numbers(values: pa.FloatArray) -> pa.StringArray:
    """As orjson writes float32: as few digits as tell them apart."""
    numbers = np.ascontiguousarray(values.to_numpy(zero_copy_only=False), np.float32)
    text = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    found = pc.split_pattern(pa.array([text[1:-1]]), ",").values if len(values) else pa.array([], pa.string())
    return pc.if_else(values.is_valid(), found, pa.scalar(None, pa.string()))


def _json_strings(values: pa.StringArray) -> pa.StringArray:
    return _of_distinct(values, lambda value: orjson.dumps(value).decode())


def _csv_fields(values: pa.StringArray) -> pa.StringArray:
    """Quoted where they must be."""
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(values, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(values, '[,"\r\n]'), quoted, values)


def _of_distinct(values: pa.StringArray, function: Callable[[str], str]) -> pa.StringArray:
    encoded = values.dictionary_encode()
    return pa.array(map(function, encoded.dictionary.to_pylist()), pa.string()).take(encoded.indices)


# By the ending of the file's name.
ROW_WRITERS: dict[str, Callable[[BinaryIO], RowWriter]] = {".jsonl": _JsonLines, ".csv": _Csv, ".parquet": _Parquet}


@dataclass(frozen=True)
class Shard:
    """A file of predictions, or of what has none.

    Attributes:
        path: where it is, until all of them are there.
        is_bad: whether it holds bad items.
        rows: how many.
        first: source and line of the first row.
        reason: of bad items, one for a person: that which ends the run, or else the first.
        ends_run: whether a whole file is bad.
    """

    path: str
    is_bad: bool
    rows: int
    first: tuple[str, int]
    reason: str
    ends_run: bool


class WriteShard(beam.DoFn):
    """Predictions, or lists of bad items -> a Shard for each bundle, under a name that no other attempt has.

    Args:
        folder: takes the files.
        suffix: of their names, which says the format.
        is_bad: which of the two they are.
    """

    def __init__(self, folder: str, suffix: str, is_bad: bool) -> None:
        super().__init__()
        self._folder = folder
        self._suffix = suffix
        self._is_bad = is_bad

    def start_bundle(self) -> None:
        """Forget the bundle before."""
        self._path = ""
        self._rows = 0
        self._reason = ""
        self._ends_run = False

    def process(self, rows: Predictions | Sequence[BadItem]) -> None:
        """Write rows."""
        if not self._path:
            self._path = f"{self._folder}/{uuid.uuid4().hex}{self._suffix}"
            self._writer: Any = _BadLines(_created(self._path)) if self._is_bad else open_row_writer(self._path)
            self._first = _first_place(rows)
        if not isinstance(rows, Predictions):
            for item in rows:
                if not self._reason or (item.whole_file and not self._ends_run):
                    self._reason = f"{item.place}: {item.reason}"
                    self._ends_run = item.whole_file
        self._writer.write(rows)
        self._rows += len(rows)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Close the file."""
        if self._path:
            self._writer.close()
            shard = Shard(self._path, self._is_bad, self._rows, self._first, self._reason, self._ends_run)
            window = GlobalWindow()
            yield WindowedValue(shard, window.max_timestamp(), [window])


def _first_place(rows: Predictions | Sequence[BadItem]) -> tuple[str, int]:
    if isinstance(rows, Predictions):
        return rows.sources[0].as_py(), rows.lines[0].as_py() or 0
    return rows[0].source, rows[0].line or 0


def open_row_writer(path: str) -> RowWriter:
    """A writer into a new file."""
    return ROW_WRITERS[Path(path).suffix](_created(path))


def _created(path: str) -> BinaryIO:
    file: BinaryIO = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return file


def publish_shards(shards: Sequence[str], target: str) -> list[str]:
    """Move files to where a person expects them; what an earlier call left there is replaced or removed.

    Args:
        shards: finished files, in order, in the same file system.
        target: the name of a single file. Several get numbers: `scores-00000-of-00002.jsonl`.

    Returns:
        The names.
    """
    path = PurePosixPath(target.rpartition("/")[2])
    folder = target.removesuffix(path.name)
    names = [path.name]
    if len(shards) != 1:
        names = [f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}" for number in range(len(shards))]
    FileSystems.rename(list(shards), [folder + name for name in names])
    outdated = re.compile(rf"{re.escape(path.stem)}(-\d{{5}}-of-\d{{5}})?{re.escape(path.suffix)}")
    old = [name for name in _names_in(folder, path.stem) if outdated.fullmatch(name) and name not in names]
    FileSystems.delete([folder + name for name in old])
    return [folder + name for name in names]


def _names_in(folder: str, beginning: str) -> list[str]:
    if "://" not in folder:  # Beam would walk through everything below it
        return [path.name for path in Path(folder).iterdir()]
    (found,) = FileSystems.match([f"{folder}{beginning}*"])
    return [metadata.path.rpartition("/")[2] for metadata in found.metadata_list]
