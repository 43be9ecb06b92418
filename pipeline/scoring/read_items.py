"""Read what is scored."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.scoring.bad_item import BadItem
from pipeline.scoring.item import Item
from pipeline.scoring.read_rows import read_rows

# A photo takes megabytes when it is decoded, and gains little from company.
ROWS_PER_BATCH = 256
PHOTOS_PER_BATCH = 16
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
    size = ROWS_PER_BATCH if source.kind == "rows" else PHOTOS_PER_BATCH
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
