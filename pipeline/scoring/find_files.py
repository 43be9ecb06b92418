"""Find the files that are scored."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from components.errors import BrokenInput


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
