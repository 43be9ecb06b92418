"""Find what is wrong with a CSV file before a pipeline does, and say in which line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import BrokenInput
from transform.tabular_options import TabularOptions
from transform.text_options import TextOptions


@dataclass(frozen=True)
class CsvFindings:
    """What is in a CSV file that can be used.

    Attributes:
        rows: how many, the header apart.
        duplicates: how many of them repeat an earlier row.
        empty: column -> how many rows have nothing in it, of the columns that the config names.
    """

    rows: int
    duplicates: int
    empty: dict[str, int]

    def __str__(self) -> str:
        counts = [f"{self.rows:,} rows", *([f"{self.duplicates:,} repeat an earlier one"] if self.duplicates else [])]
        return ", ".join(counts + [f"{name!r} is empty in {count:,}" for name, count in self.empty.items() if count])


def check_csv(path: str, options: TabularOptions | TextOptions) -> CsvFindings:
    """Read the whole file once and compare it with what the config says of its columns.

    CsvExampleGen takes a file without a header for one with, and answers a short row with a stack trace of Beam's.

    Raises:
        BrokenInput: the file is missing, empty, not UTF-8, has rows of another length than its header, lacks a column
            that the config names, or holds text where the config says that there are numbers.
    """
    file = Path(path)
    if not file.is_file():
        raise BrokenInput(f"{path}: no such file; `data.path` in the config names the CSV file to learn from")
    with file.open("rb") as lines:
        rows = csv.reader(_decoded(path, lines))
        try:
            header = next(rows, None)
            _check_header(path, header, options)
            return _check_rows(path, header or [], rows, options)
        except csv.Error as error:
            raise BrokenInput(f"{path}: line {rows.line_num} is not valid CSV: {error}") from error


def _decoded(path: str, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BrokenInput(
                f"{path}: line {number} is not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x}); "
                "save the file as UTF-8"
            ) from None


def _check_header(path: str, header: Sequence[str] | None, options: TabularOptions | TextOptions) -> None:
    if not header:
        raise BrokenInput(f"{path}: the file is empty; expected a header line with the column names, then rows")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BrokenInput(f"{path}: the header names the column {twice[0]!r} more than once; rename one of them")
    for name, key in options.named_columns().items():
        if name not in header:
            raise BrokenInput(
                f"{path}: there is no column {name!r}, which preprocessing.{key} in the config names; "
                f"the columns are {', '.join(map(repr, header))}"
            )


def _check_rows(
    path: str, header: Sequence[str], rows: Iterator[list[str]], options: TabularOptions | TextOptions
) -> CsvFindings:
    kinds = options.numeric_columns()
    numeric = [(index, name) for index, name in enumerate(header) if name in kinds]
    named = [(index, name) for index, name in enumerate(header) if name in options.named_columns()]
    empty: dict[str, int] = {name: 0 for _, name in named}
    count, seen = 0, set()
    for row in rows:
        if not row:
            continue
        count += 1
        line = rows.line_num  # type: ignore[attr-defined]
        if len(row) != len(header):
            raise BrokenInput(f"{path}: line {line} has {len(row)} fields, the header has {len(header)}; mend the line")
        seen.add(hash(tuple(row)))
        for index, name in named:
            empty[name] += not row[index].strip()
        for index, name in numeric:
            if row[index].strip() and not _is_number(row[index]):
                raise BrokenInput(
                    f"{path}: line {line}: column {name!r} is {row[index]!r}, expected a number "
                    f"(preprocessing.columns.{name} in the config is {kinds[name]}); "
                    "mend the value, or call the column categorical"
                )
    if not count:
        raise BrokenInput(f"{path}: the file has a header and no rows; expected at least one row for each class")
    return CsvFindings(rows=count, duplicates=count - len(seen), empty=empty)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
