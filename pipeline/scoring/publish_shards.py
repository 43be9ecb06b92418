"""Give finished files their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from apache_beam.io.filesystems import FileSystems


def publish_shards(shards: Sequence[str], target: str) -> list[str]:
    """Move files to where a person expects them; what an earlier call left there is replaced or removed.

    Args:
        shards: finished files, in order, in the same file system.
        target: the name of a single file. Several get numbers: `scores-00000-of-00002.jsonl`.

    Returns:
        The names.
    """
    path = PurePosixPath(target.rpartition("/")[2])
    folder = target.removesuffix(path.name)
    names = [path.name]
    if len(shards) != 1:
        names = [f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}" for number in range(len(shards))]
    FileSystems.rename(list(shards), [folder + name for name in names])
    outdated = re.compile(rf"{re.escape(path.stem)}(-\d{{5}}-of-\d{{5}})?{re.escape(path.suffix)}")
    old = [name for name in _names_in(folder, path.stem) if outdated.fullmatch(name) and name not in names]
    FileSystems.delete([folder + name for name in old])
    return [folder + name for name in names]


def _names_in(folder: str, beginning: str) -> list[str]:
    if "://" not in folder:  # Beam would walk through everything below it
        return [path.name for path in Path(folder).iterdir()]
    (found,) = FileSystems.match([f"{folder}{beginning}*"])
    return [metadata.path.rpartition("/")[2] for metadata in found.metadata_list]
