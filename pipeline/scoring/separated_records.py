"""The records of CSV and TSV files, broken ones among them."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from components.table_file import LONGEST_FIELD

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
