"""CSV files as CsvExampleGen can read them."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path


def plain_csv(path: str, folder: Path) -> str:
    """The path of a file with the same rows, without a byte order mark and with a row on each line.

    CsvExampleGen reads line by line: a line break in a quoted field would end the row. Each becomes a space.

    Args:
        path: a file that check_csv accepts.
        folder: where a copy is made, under a name that changes with its content, if one is needed.

    Returns:
        `path` itself where nothing needs to be changed.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        plain = not next(rows)[0].startswith("\ufeff") and all(rows.line_num == row for row, _ in enumerate(rows, 2))
    if plain:
        return path
    with Path(path).open("rb") as content:
        copy = folder / hashlib.file_digest(content, "sha256").hexdigest()[:16] / "plain.csv"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (
        Path(path).open(encoding="utf-8-sig", newline="") as file,
        copy.open("w", encoding="utf-8", newline="") as written,
    ):
        writer = csv.writer(written, lineterminator="\n")
        writer.writerows([" ".join(field.splitlines()) for field in row] for row in csv.reader(file))
    return str(copy)
