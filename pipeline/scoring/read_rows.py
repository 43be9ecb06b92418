"""Read the rows of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from apache_beam.io.filesystem import BeamIOError

from components.table_file import FORMAT_OF_SUFFIX, GZIP_SUFFIX
from pipeline.scoring.bad_item import BadItem
from pipeline.scoring.item import Item
from pipeline.scoring.open_lines import open_lines
from pipeline.scoring.separated_records import separated_records

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
