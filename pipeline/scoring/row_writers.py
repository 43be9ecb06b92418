"""Write predictions in the format that a file's name asks for."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scoring.bad_item import BadItem
from pipeline.scoring.prediction import Prediction

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
