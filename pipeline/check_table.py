"""Find what is wrong with a table before a pipeline does, and say in which line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.errors import BrokenInput
from components.table_file import TableFile
from transform.tabular_options import TabularOptions
from transform.text_options import TextOptions


@dataclass(frozen=True)
class TableFindings:
    """What is in a table that can be used.

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


def check_table(table: TableFile, options: TabularOptions | TextOptions) -> TableFindings:
    """Read the whole file once and compare it with what the config says of its columns.

    CsvExampleGen takes a file without a header for one with, and answers a short row with a stack trace of Beam's.

    Raises:
        BrokenInput: what TableFile says of its lines; or the file has no rows, lacks a column that the config names, or
            holds text where the config says that there are numbers.
    """
    columns = table.columns()
    _check_columns(table.path, columns, options)
    kinds = options.numeric_columns()
    empty = {name: 0 for name in columns if name in options.named_columns()}
    count, seen = 0, set()
    for row in table.rows():
        count += 1
        seen.add(hash(tuple(row.fields.values())))
        for name in empty:
            empty[name] += not row.fields[name].strip()
        for name in kinds:
            if row.fields[name].strip() and not _is_number(row.fields[name]):
                raise BrokenInput(
                    f"{table.path}: line {row.line}: column {name!r} is {row.fields[name]!r}, expected a number "
                    f"(preprocessing.columns.{name} in the config is {kinds[name]}); "
                    "mend the value, or call the column categorical"
                )
    if not count:
        raise BrokenInput(f"{table.path}: the file has a header and no rows; expected at least one row for each class")
    return TableFindings(rows=count, duplicates=count - len(seen), empty=empty)


def _check_columns(path: str, columns: Sequence[str], options: TabularOptions | TextOptions) -> None:
    for name, key in options.named_columns().items():
        if name not in columns:
            raise BrokenInput(
                f"{path}: there is no column {name!r}, which preprocessing.{key} in the config names; "
                f"the columns are {', '.join(map(repr, columns))}"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
