"""Tables as CsvExampleGen can read them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from components.table_file import TableFile


def plain_csv(table: TableFile, folder: Path) -> TableFile:
    """A CSV file with the same rows, without a byte order mark and with a row on each line.

    CsvExampleGen reads line by line: a line break in a field would end the row. Each becomes a space.

    Args:
        table: what check_table accepts.
        folder: where a copy is made, under a name that changes with its content, if one is needed.

    Returns:
        `table` itself where nothing needs to be changed.
    """
    if table.is_plain_csv():
        return table
    with Path(table.path).open("rb") as content:
        copy = folder / hashlib.file_digest(content, "sha256").hexdigest()[:16] / "plain.csv"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("w", encoding="utf-8", newline="") as written:
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(" ".join(name.splitlines()) for name in table.columns())
        writer.writerows([" ".join(field.splitlines()) for field in row.fields.values()] for row in table.rows())
    return TableFile(str(copy))
