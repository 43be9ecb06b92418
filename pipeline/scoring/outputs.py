"""Outputs of batch scoring: predictions, written in the format that a file's name asks for."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.scoring.inputs import BadItem


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one row or photo.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        label: that `serving_default` answers: the best one, the one that a decision chooses, or the model's label for
            unknown.
        probability: of that label; None where the model gives none, and of the label for unknown.
        probabilities: label -> probability, the best first, as many as the model's `classify` ranks.
    """

    source: str
    line: int | None
    label: str
    probability: np.float32 | None
    probabilities: Mapping[str, np.float32]


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

    def write(self, rows: Sequence[Prediction | BadItem]) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Sequence[Prediction | BadItem]) -> None:
        self._file.writelines(_json(_as_dict(row)) + b"\n" for row in rows)

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="")
        self._writer = csv.DictWriter(self._text, _COLUMNS, lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Sequence[Prediction | BadItem]) -> None:
        for row in map(_as_dict, rows):
            self._writer.writerow(row | {"probabilities": _json(row["probabilities"]).decode()})

    def close(self) -> None:
        self._text.close()


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer = pq.ParquetWriter(file, _SCHEMA)
        self._rows: list[dict[str, Any]] = []

    def write(self, rows: Sequence[Prediction | BadItem]) -> None:
        self._rows += map(_as_dict, rows)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()
        self._file.close()

    def _write_group(self) -> None:
        rows = [row | {"probabilities": list(row["probabilities"].items())} for row in self._rows]
        self._writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
        self._rows = []


def _as_dict(row: Prediction | BadItem) -> dict[str, Any]:
    names = _COLUMNS if isinstance(row, Prediction) else ("source", "line", "reason")
    return {name: getattr(row, name) for name in names}


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


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
    """Lists of predictions, or of bad items -> a Shard for each bundle, under a name that no other attempt has.

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
        self._ends_run = False

    def process(self, rows: Sequence[Prediction | BadItem]) -> None:
        """Write rows."""
        if not self._path:
            self._path = f"{self._folder}/{uuid.uuid4().hex}{self._suffix}"
            self._writer = open_row_writer(self._path)
            self._first = (rows[0].source, rows[0].line or 0)
            self._reason = ""
        for row in rows:
            if isinstance(row, BadItem) and (not self._reason or (row.whole_file and not self._ends_run)):
                self._reason = f"{row.place}: {row.reason}"
                self._ends_run = row.whole_file
        self._writer.write(rows)
        self._rows += len(rows)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Close the file."""
        if self._path:
            self._writer.close()
            shard = Shard(self._path, self._is_bad, self._rows, self._first, self._reason, self._ends_run)
            window = GlobalWindow()
            yield WindowedValue(shard, window.max_timestamp(), [window])


def open_row_writer(path: str) -> RowWriter:
    """A writer into a new file."""
    return ROW_WRITERS[Path(path).suffix](FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))


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
