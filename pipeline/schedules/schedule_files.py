"""Files that a target reads its schedules from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from components.errors import BrokenInput


def write_schedule_files(folder: Path, files: Mapping[str, str]) -> str:
    """Write files, each in place of the one of its name; returns what was written, a line each.

    Raises:
        BrokenInput: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            part = folder / f".{name}.part"
            part.write_text(content, encoding="utf-8")
            part.rename(folder / name)
    except OSError as error:
        raise BrokenInput(f"{folder}: the schedule cannot be written: {error.strerror}") from error
    return "\n".join(f"wrote {folder / name}" for name in files)


def remove_schedule_files(folder: Path, names: Iterable[str]) -> str:
    """Remove files; returns what was removed, a line each.

    Raises:
        BrokenInput: one cannot be removed.
    """
    lines = []
    for name in names:
        path = folder / name
        try:
            path.unlink()
        except FileNotFoundError:
            lines.append(f"there is no {path}")
        except OSError as error:
            raise BrokenInput(f"{path}: cannot be removed: {error.strerror}") from error
        else:
            lines.append(f"removed {path}")
    return "\n".join(lines)
