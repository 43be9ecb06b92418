"""Write what came out of a worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.scoring.bad_item import BadItem
from pipeline.scoring.prediction import Prediction
from pipeline.scoring.row_writers import ROW_WRITERS, RowWriter


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
