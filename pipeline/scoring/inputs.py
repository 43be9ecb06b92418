"""Inputs of batch scoring: files found, and their rows, texts and photos read."""

from __future__ import annotations

import csv
import glob
import gzip
import itertools
import os
import posixpath
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import BrokenInput
from components.image_example_gen.image_files import IMAGE_EXTENSIONS
from components.table_file import FORMAT_OF_SUFFIX, GZIP_MAGIC, GZIP_SUFFIX, LONGEST_FIELD
from pipeline.scoring.model import PublishedModel


@dataclass(frozen=True)
class Item:
    """A row of a file, or a photo, that is still to be read.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        fields: column -> what stands there; {} for a photo.
    """

    source: str
    line: int | None
    fields: Mapping[str, str]


@dataclass(frozen=True)
class BadItem:
    """A row or photo that cannot be scored.

    Attributes:
        source: the file.
        line: in which the row begins, from 1; None for a photo.
        reason: for a person.
        whole_file: nobody knows how many rows are lost with it, so that nothing is written.
    """

    source: str
    line: int | None
    reason: str
    whole_file: bool = False

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def open_lines(path: str) -> Iterator[bytes]:
    """The lines of a file with their ends, unzipped where it is gzipped, without a byte order mark.

    Raises:
        OSError: the file cannot be read to its end.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        head = file.read(len(GZIP_MAGIC))
        file.seek(0)
        lines = iter(gzip.GzipFile(fileobj=file) if head == GZIP_MAGIC else file)
        try:
            for line in lines:
                yield line.removeprefix(_BYTE_ORDER_MARK)
                break
            yield from lines
        except (EOFError, zlib.error) as error:
            raise OSError(f"the gzip file is damaged: {error}") from error


# So many bytes are searched for the end of a quoted field before the quote that opens it counts as a mistake.
LONGEST_SEARCH = 2**20
_OPEN_QUOTE = "unexpected end of data"


def separated_records(lines: Iterator[bytes], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each record with the line in which it begins: its fields, or why it is broken; blank lines are none.

    A broken record costs one line, whatever its quotes span: the next one begins in the line after it.

    Args:
        lines: of the file, with their ends; the first record is the header.
        delimiter: between fields.
    """
    csv.field_size_limit(LONGEST_FIELD)
    ahead: deque[bytes] = deque()
    number, columns = 1, 0
    while first := _next_line(ahead, lines):
        taken = [first]
        record = _extended(taken, ahead, lines, delimiter)
        if isinstance(record, list):
            columns = columns or len(record)
            if record and len(record) != columns:
                record = f"{len(record)} fields, the header has {columns}"
        if isinstance(record, str):
            ahead.extendleft(reversed(taken[1:]))
            del taken[1:]
        if record:
            yield number, record
        number += len(taken)


def _next_line(ahead: deque[bytes], lines: Iterator[bytes]) -> bytes:
    return ahead.popleft() if ahead else next(lines, b"")


def _extended(taken: list[bytes], ahead: deque[bytes], lines: Iterator[bytes], delimiter: str) -> list[str] | str:
    """The record that begins in `taken`, which gets the further lines that it spans; or what is wrong with it."""
    record = _parse(taken, delimiter)
    length = len(taken[0])
    while record == _OPEN_QUOTE:
        line = _next_line(ahead, lines)
        if not line or length > LONGEST_SEARCH:
            taken += [line] * bool(line)
            return "a quote opens a field and none closes it"
        taken.append(line)
        length += len(line)
        if b'"' in line:
            record = _parse(taken, delimiter)
    return record


def _parse(lines: list[bytes], delimiter: str) -> list[str] | str:
    try:
        (record,) = csv.reader([b"".join(lines).decode()], delimiter=delimiter, strict=True)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1} is 0x{error.object[error.start]:02x})"
    except csv.Error as error:
        return str(error)
    return record


LINES_SUFFIX = ".txt"
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_rows(path: str, columns: Mapping[str, str]) -> Iterator[Item | BadItem]:
    """The rows of a CSV, TSV, JSON lines or text file, broken ones among them, one at a time.

    Formats are those of components.table_file, by the ending of the name; .txt holds one value of the only column on
    each line. The keys of a JSON object are its own: one that lacks a column is broken.

    Args:
        path: of the file; gzipped where its first bytes say so. Any file system that Beam reads.
        columns: what a column is called in an Item -> what it is called in the file.
    """
    suffix = Path(path.lower().removesuffix(GZIP_SUFFIX)).suffix
    table_format = FORMAT_OF_SUFFIX.get(suffix, "csv")
    try:
        if suffix == LINES_SUFFIX and len(columns) == 1:
            yield from _text_lines(path, next(iter(columns)))
        elif table_format == "jsonl":
            yield from _json_lines(path, columns)
        else:
            yield from _separated(path, columns, _DELIMITERS[table_format])
    except (OSError, BeamIOError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        yield BadItem(path, None, f"the file cannot be read: {reason}", whole_file=True)


def _separated(path: str, columns: Mapping[str, str], delimiter: str) -> Iterator[Item | BadItem]:
    records = separated_records(open_lines(path), delimiter)
    line, header = next(records, (1, []))
    if not header:
        return
    problem = header if isinstance(header, str) else _header_problem(header, columns)
    if problem:
        yield BadItem(path, line, problem, whole_file=True)
        return
    places = {name: header.index(column) for name, column in columns.items()}
    for line, record in records:
        if isinstance(record, str):
            yield BadItem(path, line, record)
        else:
            yield Item(path, line, {name: record[place] for name, place in places.items()})


def _header_problem(header: Sequence[str], columns: Mapping[str, str]) -> str:
    missing = [column for column in columns.values() if column not in header]
    if missing:
        return f"the header lacks {', '.join(missing)}; the model takes {', '.join(columns.values())}"
    twice = [column for column in columns.values() if header.count(column) > 1]
    return f"the header names {twice[0]} more than once; rename one" if twice else ""


def _json_lines(path: str, columns: Mapping[str, str]) -> Iterator[Item | BadItem]:
    for number, line in enumerate(open_lines(path), start=1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield BadItem(path, number, f"not valid JSON: {error}")
            continue
        if not isinstance(found, dict):
            yield BadItem(path, number, "no JSON object")
        elif missing := [column for column in columns.values() if column not in found]:
            yield BadItem(path, number, f"lacks {', '.join(missing)}; write null where a value is missing")
        else:
            yield Item(path, number, {name: _text(found[column]) for name, column in columns.items()})


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _text_lines(path: str, name: str) -> Iterator[Item | BadItem]:
    for number, line in enumerate(open_lines(path), start=1):
        try:
            yield Item(path, number, {name: line.decode().rstrip("\r\n")})
        except UnicodeDecodeError as error:
            yield BadItem(path, number, f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})")


def find_files(place: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a place names, sorted.

    Args:
        place: a file; a folder, for every file below it that ends with one of `suffixes` and is not hidden; or a
            pattern such as `new/*.csv`. Any file system that Beam reads.

    Raises:
        BrokenInput: there are none.
    """
    try:
        files = sorted(_remote(place, suffixes) if "://" in place else _local(place, suffixes))
    except (BeamIOError, OSError, ValueError) as error:
        raise BrokenInput(f"{place}: the files cannot be listed: {error}") from error
    if not files:
        raise BrokenInput(
            f"{place}: no such file, no file matches, or the folder holds none that ends with {', '.join(suffixes)}"
        )
    return files


def _local(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if Path(place).is_dir():
        for folder, _, names in os.walk(place):
            yield from (str(Path(folder, name)) for name in names if _is_taken(name, suffixes))
    elif Path(place).is_file():
        yield place
    else:
        yield from (path for path in glob.glob(place, recursive=True) if Path(path).is_file())  # noqa: PTH207 (takes absolute patterns)


def _remote(place: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    (exact,) = FileSystems.match([place])
    if exact.metadata_list:
        yield from (found.path for found in exact.metadata_list)
        return
    (below,) = FileSystems.match([f"{place.rstrip('/')}/**"])
    yield from (found.path for found in below.metadata_list if _is_taken(found.path.rpartition("/")[2], suffixes))


def _is_taken(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")


# A photo takes megabytes when it is decoded, and gains little from company.
ROWS_PER_BATCH = 256
IMAGES_PER_BATCH = 16
_PATH = "path"


@dataclass(frozen=True)
class Source:
    """Files whose rows or photos are read one after the other.

    Attributes:
        files: a table, a list of photos, or the photos themselves.
        columns: of a table, see read_rows.
        kind: what the files are.
    """

    files: tuple[str, ...]
    columns: Mapping[str, str]
    kind: str  # "rows", "photos" or "list of photos"


def read_items(source: Source) -> Iterator[list[Item | BadItem]]:
    """The items of a source, in its order, in batches."""
    items = _items(source)
    size = ROWS_PER_BATCH if source.kind == "rows" else IMAGES_PER_BATCH
    while batch := list(itertools.islice(items, size)):
        yield batch


def _items(source: Source) -> Iterator[Item | BadItem]:
    for file in source.files:
        if source.kind == "photos":
            yield Item(file, None, {})
        elif source.kind == "rows":
            yield from read_rows(file, source.columns)
        else:
            yield from map(_listed, read_rows(file, {_PATH: _PATH}))


def _listed(row: Item | BadItem) -> Item | BadItem:
    """The photo that a row of a list names, by its path from the list."""
    if isinstance(row, BadItem):
        return row
    path = row.fields[_PATH].strip()
    if not path:
        return BadItem(row.source, row.line, "path is empty")
    is_absolute = "://" in path or path.startswith("/")
    return Item(path if is_absolute else posixpath.join(posixpath.dirname(row.source), path), None, {})


def find_sources(model: PublishedModel, places: Sequence[str], renamed_inputs: Mapping[str, str]) -> list[Source]:
    """The sources of what a model takes, in the order of the places.

    Args:
        model: what is asked.
        places: see find_files.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.

    Raises:
        BrokenInput: a place holds no file.
    """
    tables = _with_gzip(".csv", *FORMAT_OF_SUFFIX)
    if model.takes == "photos":
        return [source for place in places for source in _photos(find_files(place, IMAGE_EXTENSIONS), tables)]
    suffixes = tables + (_with_gzip(LINES_SUFFIX) if model.takes == "texts" else ())
    columns = {name: renamed_inputs.get(name, name) for name in model.inputs}
    return [Source((file,), columns, "rows") for place in places for file in find_files(place, suffixes)]


def _photos(files: Sequence[str], tables: tuple[str, ...]) -> list[Source]:
    lists = [file for file in files if file.lower().endswith(tables)]
    photos = tuple(file for file in files if not file.lower().endswith(tables))
    found = [Source((file,), {}, "list of photos") for file in lists]
    return [*found, Source(photos, {}, "photos")] if photos else found


def _with_gzip(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + zipped for suffix in suffixes for zipped in ("", GZIP_SUFFIX))
