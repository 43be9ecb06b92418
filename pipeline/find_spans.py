"""The spans that a pattern matches."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from components.errors import BrokenInput

_DIGITS = {"{SPAN}": "[0-9]+", "{YYYY}": "[0-9]{4}", "{MM}": "[0-9]{2}", "{DD}": "[0-9]{2}"}
_TOKEN = re.compile(r"({SPAN}|{YYYY}|{MM}|{DD}|\*|\?)")


@dataclass(frozen=True)
class Span:
    """What arrived at one time.

    Attributes:
        name: its number, or its day as 2026-01-31.
        files: in the order of their paths.
    """

    name: str
    files: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the content of the files."""
        digest = hashlib.sha256()
        for path in self.files:
            with open_span_file(path) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def find_spans(pattern: str) -> list[Span]:
    """The spans that are there, the oldest first.

    Args:
        pattern: see pipeline.span_options; absolute, or of an object store.

    Raises:
        BrokenInput: there is none, or a name is no day of the calendar.
    """
    matches = re.compile("".join(_expression(token) for token in _TOKEN.split(pattern)))
    files: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path in sorted(_paths(pattern)):
        match = matches.fullmatch(path)
        if match:
            files[_place(path, match.groupdict())].append(path)
    if not files:
        raise BrokenInput(f"{pattern}: no span is there; `data.spans.path` in the config says where their files lie")
    return [Span(name, tuple(files[place, name])) for place, name in sorted(files)]


def _expression(token: str) -> str:
    if token in _DIGITS:
        return f"(?P<{token[1:-1]}>{_DIGITS[token]})"
    return {"*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))


def _paths(pattern: str) -> list[str]:
    tokens = _TOKEN.split(pattern)
    wildcards = "".join("*" if token in _DIGITS else token if token in "*?" else glob.escape(token) for token in tokens)
    if "://" not in pattern:
        return glob.glob(wildcards)  # noqa: PTH207 (the pattern is absolute)
    from tfx.dsl.io import fileio

    found: list[str] = fileio.glob(wildcards)
    return found


def _place(path: str, found: dict[str, str]) -> tuple[int, str]:
    """The span's place in the order, and its name."""
    if "SPAN" in found:
        return int(found["SPAN"]), str(int(found["SPAN"]))
    try:
        day = date(int(found["YYYY"]), int(found["MM"]), int(found["DD"]))
    except ValueError as error:
        raise BrokenInput(f"{path}: the name is no day of the calendar: {error}; rename or remove it") from error
    return day.toordinal(), day.isoformat()


def open_span_file(path: str) -> Any:
    """A file of a span, here or in an object store, for reading bytes."""
    if "://" not in path:
        return Path(path).open("rb")
    from tfx.dsl.io import fileio

    return fileio.open(path, "rb")
