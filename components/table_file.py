"""Tables in files: CSV, TSV and JSON lines, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from components.errors import BrokenInput

TableFormat = Literal["csv", "tsv", "jsonl"]
FORMAT_OF_SUFFIX: Mapping[str, TableFormat] = {".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
GZIP_SUFFIX = ".gz"
GZIP_MAGIC = b"\x1f\x8b"
# Python's own limit, 131,072 characters, is short of a long text.
LONGEST_FIELD = 2**30


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        line: the line of the file in which it begins, from 1.
        fields: column -> what stands there, every column in the file's order; "" where there is nothing.
    """

    line: int
    fields: dict[str, str]


class TableFile:
    """A file that holds a table.

    CSV and TSV: UTF-8 with or without a byte order mark, a header, fields quoted as spreadsheets do it: these may
    hold separators, quotes and line breaks. JSON lines: an object on each line; strings are taken as they are, null is
    nothing, any other value is its JSON text, and the columns are the keys of all lines.

    Args:
        path: of the file; local or an object store's. Gzipped where its first bytes say so.
        table_format: where None, by the ending of the name (before .gz): .tsv and .tab, .jsonl and .ndjson, else CSV.
    """

    def __init__(self, path: str, table_format: TableFormat | None = None) -> None:
        self.path = path
        self.format: TableFormat = table_format or _format_of(path)

    def columns(self) -> list[str]:
        """The names of the columns, in the file's order.

        Raises:
            BrokenInput: there is no such file, it is empty, or what `rows` says of lines that have to be read for this.
        """
        if self.format == "jsonl":
            columns = list(dict.fromkeys(itertools.chain.from_iterable(fields for _, fields in self._json_objects())))
        else:
            columns = next(self._separated_rows(), (0, []))[1]
        if not columns:
            raise BrokenInput(f"{self.path}: the file is empty; expected {_EXPECTED[self.format]}")
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise BrokenInput(f"{self.path}: the header names the column {twice[0]!r} more than once; rename one")
        return columns

    def rows(self) -> Iterator[Row]:
        """The rows, one after the other; empty lines are none.

        Raises:
            BrokenInput: a line is not UTF-8, its quotes do not match, it has another number of fields than the header,
                or it holds no JSON object. The message names the line.
        """
        columns = self.columns()
        if self.format == "jsonl":
            for line, found in self._json_objects():
                yield Row(line, {name: _text(found.get(name)) for name in columns})
            return
        for line, values in itertools.islice(self._separated_rows(), 1, None):
            if len(values) != len(columns):
                raise BrokenInput(
                    f"{self.path}: line {line} has {len(values)} fields, the header has {len(columns)}; mend the line"
                )
            yield Row(line, dict(zip(columns, values, strict=True)))

    def is_plain_csv(self) -> bool:
        """Whether a reader that knows nothing but lines of fields, such as CsvExampleGen, reads the same rows."""
        if self.format != "csv":
            return False
        with _open(self.path) as file:
            head = file.read(3)
        if head.startswith(GZIP_MAGIC) or head == b"\xef\xbb\xbf":
            return False
        return all(line == number for number, (line, _) in enumerate(self._separated_rows(keep_empty=True), 1))

    def _separated_rows(self, keep_empty: bool = False) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(LONGEST_FIELD)
        rows = csv.reader(self._lines(), delimiter="\t" if self.format == "tsv" else ",", strict=True)
        line = 1
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise BrokenInput(
                    f"{self.path}: the row that begins in line {line} is not valid {self.format.upper()}: {error}; "
                    "a quote that opens a field has to be closed, and one inside of such a field doubled"
                ) from error
            if row or keep_empty:
                yield line, row
            line = rows.line_num + 1

    def _json_objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BrokenInput(f"{self.path}: line {number} is not valid JSON: {error}; mend the line") from error
            if not isinstance(found, dict):
                raise BrokenInput(f"{self.path}: line {number} holds no JSON object; expected one such as {_OBJECT}")
            yield number, found

    def _lines(self) -> Iterator[str]:
        with _open(self.path) as file:
            for number, line in enumerate(_decompressed(self.path, file), start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    where = f"line {number} is not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"
                    raise BrokenInput(f"{self.path}: {where}; save the file as UTF-8") from None


_OBJECT = '{"text": "...", "label": "..."}'
_HEADER = "a header line with the column names, then rows"
_EXPECTED = {"csv": _HEADER, "tsv": _HEADER, "jsonl": f"a JSON object on each line, such as {_OBJECT}"}


def _format_of(path: str) -> TableFormat:
    return FORMAT_OF_SUFFIX.get(Path(path.lower().removesuffix(GZIP_SUFFIX)).suffix, "csv")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if "://" in path:
        from tfx.dsl.io import fileio

        with fileio.open(path, "rb") as remote:
            yield remote
        return
    try:
        local = Path(path).open("rb")  # noqa: SIM115 (closed below, where its errors are no longer those of opening)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise BrokenInput(f"{path}: {reason}; `data.path` in the config names the file to learn from") from error
    with local:
        yield local


def _decompressed(path: str, file: BinaryIO) -> Iterator[bytes]:
    head = file.read(len(GZIP_MAGIC))
    file.seek(0)
    if head != GZIP_MAGIC:
        yield from file
        return
    try:
        yield from gzip.GzipFile(fileobj=file)
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenInput(f"{path}: the gzip file is damaged: {error}; make it again") from error
