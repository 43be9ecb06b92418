"""Spans of data, such as a folder a day: which there are, which a run learns from, and their files."""

from __future__ import annotations

import csv
import glob
import hashlib
import itertools
import posixpath
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson

from components.errors import BrokenInput
from components.table_file import TableFile
from pipeline.data import IMAGE_MEASURES, TableOptions, check_table, image_measures
from pipeline.options import DataOptions, RunConfig
from serving.model_store import ModelVersion

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
        pattern: see pipeline.options; absolute, or of an object store.

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


def span_images(span: Span) -> Iterator[tuple[str, str]]:
    """Path and class of each photo, in the order of the span's files; none is read.

    Args:
        span: its files are photos in class folders, among which other files are passed over, or lists of photos as
            components.image_example_gen.image_files takes them.

    Raises:
        BrokenInput: a list of photos cannot be used.
    """
    from components.image_example_gen.image_files import IMAGE_EXTENSIONS, list_images  # imports TensorFlow

    for path in span.files:
        if path.lower().endswith(".csv"):
            yield from ((photo.file, photo.label) for photo in list_images(path))
        elif path.lower().endswith(IMAGE_EXTENSIONS):
            yield path, posixpath.basename(posixpath.dirname(path))


# In the provenance of a version: the spans that it learned from, name -> fingerprint.
DATA_SPANS = "data_spans"


@dataclass(frozen=True)
class SpanWindow:
    """The spans of a run, each the oldest first.

    Attributes:
        spans: what the model learns from.
        empty: names of spans that were passed over, since they hold no row or no photo.
        unseen: those of `spans` that the served version did not learn from, as far as is known.
        previous: the newest span that it did learn from and that is still as it was; None where there is none.
        last_published: the newest version, served or withdrawn, if it learned from just these spans: nothing is new.
    """

    spans: tuple[Span, ...]
    empty: tuple[str, ...]
    unseen: tuple[Span, ...]
    previous: Span | None
    last_published: ModelVersion | None

    def fingerprints(self) -> dict[str, str]:
        """Name -> fingerprint, as the provenance has it."""
        return {span.name: span.fingerprint for span in self.spans}

    def __str__(self) -> str:
        names = [span.name for span in self.spans]
        said = f"span {names[0]}" if len(names) == 1 else f"{len(names)} spans, {names[0]} to {names[-1]}"
        return said + (f"; without rows: {', '.join(self.empty)}" if self.empty else "")


def span_window(content: SpanContent, data: DataOptions, versions: Sequence[ModelVersion]) -> SpanWindow:
    """Choose the newest spans that hold rows, or photos.

    Args:
        content: what the files of the spans hold.
        data: of a config with spans.
        versions: what is in the model base path, highest first: each says what it learned from.

    Raises:
        BrokenInput: there are no spans with rows or photos, or a file of one of them is no table.
    """
    assert data.spans is not None
    found = find_spans(data.spans.path)
    spans: list[Span] = []
    empty: list[str] = []
    for span in reversed(found):
        if content.has_rows(span, data):
            spans.append(span)
        else:
            empty.append(span.name)
        if len(spans) == data.spans.window:
            break
    if not spans:
        raise BrokenInput(
            f"{data.spans.path}: no span holds a row or a photo, of {len(found)} that are there; expected one at least"
        )
    spans.reverse()
    served = _learned_from(next((version for version in versions if not version.withdrawn), None))
    known = [span for span in found if span.name in served and served[span.name] == span.fingerprint]
    return SpanWindow(
        spans=tuple(spans),
        empty=tuple(reversed(empty)),
        unseen=tuple(span for span in spans if span not in known),
        previous=known[-1] if known else None,
        last_published=_newest_of_same_data(spans, versions),
    )


def _newest_of_same_data(spans: Sequence[Span], versions: Sequence[ModelVersion]) -> ModelVersion | None:
    if not versions:
        return None
    return versions[0] if _learned_from(versions[0]) == {span.name: span.fingerprint for span in spans} else None


def _learned_from(version: ModelVersion | None) -> Mapping[str, str]:
    return version.provenance.get(DATA_SPANS, {}) if version else {}


WINDOW_FILE = "window.csv"

_Rows = Iterator[Sequence[object]]
_WriteRows = Callable[[Iterable[Span], Sequence[str], RunConfig], _Rows]


@dataclass(frozen=True)
class SpanContent:
    """What the files of spans hold, and how it is read: one for tables, one for texts, one for images.

    Attributes:
        has_rows: whether there is anything to learn from in a span.
        columns: of the files that are compared; those of tables are in WINDOW_FILE too.
        compared_columns: those of them that a bound of divergence may be given for.
        window_rows: the rows of WINDOW_FILE, the header first.
        compared_rows: the rows of a file that is compared, the header first.
        stays: whether WINDOW_FILE only lists files that are read where they are.
    """

    has_rows: Callable[[Span, DataOptions], bool]
    columns: Callable[[SpanWindow, RunConfig], list[str]]
    compared_columns: Callable[[Sequence[str], RunConfig], Sequence[str]]
    window_rows: _WriteRows
    compared_rows: _WriteRows
    stays: bool = False


def _has_table_rows(span: Span, data: DataOptions) -> bool:
    return any(next(TableFile(path, data.format).rows(), None) is not None for path in span.files)


def _table_columns(window: SpanWindow, config: RunConfig) -> list[str]:
    columns: dict[str, None] = {}
    for path in _files(window.spans):
        table = TableFile(path, config.data.format)
        check_table(table, cast(TableOptions, config.preprocessing))
        columns |= dict.fromkeys(table.columns())
    return list(columns)


def _files(spans: Iterable[Span]) -> Iterator[str]:
    return itertools.chain.from_iterable(span.files for span in spans)


def _table_rows(spans: Iterable[Span], columns: Sequence[str], config: RunConfig) -> _Rows:
    yield columns
    for file in _files(spans):
        for row in TableFile(file, config.data.format).rows():
            yield [row.fields.get(name, "") for name in columns]


def _rows_of_one_line(spans: Iterable[Span], columns: Sequence[str], config: RunConfig) -> _Rows:
    """For CsvExampleGen, which reads line by line."""
    for row in _table_rows(spans, columns, config):
        yield [" ".join(str(field).splitlines()) for field in row]


def unignored_columns(columns: Sequence[str], config: RunConfig) -> Sequence[str]:
    """The columns of a table without those that the config ignores."""
    kinds = getattr(config.preprocessing, "columns", {})
    return [name for name in columns if name not in kinds or kinds[name].kind != "ignored"]


def _columns_but_the_text(columns: Sequence[str], config: RunConfig) -> Sequence[str]:
    """Hardly a text comes twice."""
    return [name for name in columns if name != getattr(config.preprocessing, "column", None)]


def _has_images(span: Span, data: DataOptions) -> bool:
    return any(True for _ in span_images(span))


def _image_columns(window: SpanWindow, config: RunConfig) -> list[str]:
    return [config.preprocessing.label.column, *IMAGE_MEASURES]


def _listed_images(spans: Iterable[Span], columns: Sequence[str], config: RunConfig) -> _Rows:
    from components.image_example_gen.image_files import MANIFEST_COLUMNS  # imports TensorFlow

    yield MANIFEST_COLUMNS
    for span in spans:
        yield from span_images(span)


def _measured_images(spans: Iterable[Span], columns: Sequence[str], config: RunConfig) -> _Rows:
    yield columns
    for span in spans:
        for path, label in span_images(span):
            with open_span_file(path) as file:
                measures = image_measures(file.read())
            format_ = measures.pop("format", b"")
            assert isinstance(format_, bytes)
            row = {**measures, "format": format_.decode(), columns[0]: label}
            yield [row.get(name, "") for name in columns]


TABLE_SPANS = SpanContent(_has_table_rows, _table_columns, unignored_columns, _rows_of_one_line, _rows_of_one_line)
TEXT_SPANS = SpanContent(_has_table_rows, _table_columns, _columns_but_the_text, _table_rows, _rows_of_one_line)
IMAGE_SPANS = SpanContent(
    _has_images, _image_columns, lambda columns, _: columns, _listed_images, _measured_images, stays=True
)


@dataclass(frozen=True)
class SpanFiles:
    """CSV files in one folder, all with the same columns; of photos, WINDOW_FILE is a list of them.

    Attributes:
        folder: its name changes with the content of the files.
        fingerprints: name -> fingerprint of the spans whose rows or photos are in WINDOW_FILE.
        compared: names of spans that the served model did not learn from, each in a file <name>.csv.
        previous: the span before them, in the file PREVIOUS.csv; None, and nothing to compare, where there is none.
        bounds: column -> the largest divergence from that span.
    """

    folder: Path
    fingerprints: Mapping[str, str]
    compared: tuple[str, ...]
    previous: str | None
    bounds: Mapping[str, float]

    def read_by(self, config: RunConfig) -> RunConfig:
        """The config of a run that reads all spans from one file."""
        data = config.data.model_copy(update={"path": str(self.folder / WINDOW_FILE), "format": "csv"})
        return config.model_copy(update={"data": data})


def write_span_files(content: SpanContent, window: SpanWindow, config: RunConfig, folder: Path) -> SpanFiles:
    """Write the spans; what one of them lacks of the columns of the others is empty there.

    Photos stay where they are; of those that are compared, their classes and measures are written.

    Args:
        content: what the files of the spans hold.
        window: the spans.
        config: of the run.
        folder: where the folder of the files is made.

    Raises:
        BrokenInput: what check_table says of the files of the spans; or a bound is given for a column that no span has.
    """
    from components.drift import PREVIOUS  # imports TFX

    columns = content.columns(window, config)
    bounds = _drift_bounds(content, config, columns)
    compared = window.unseen if window.previous and bounds else ()
    to_write: dict[str, Iterable[Span]] = {WINDOW_FILE: window.spans}
    if compared and window.previous:
        to_write |= {f"{PREVIOUS}.csv": [window.previous], **{f"{span.name}.csv": [span] for span in compared}}
    written = {name: [(span.name, span.fingerprint) for span in spans] for name, spans in to_write.items()}
    made = folder / hashlib.sha256(orjson.dumps(written)).hexdigest()[:16]
    made.mkdir(parents=True, exist_ok=True)
    for name, spans in to_write.items():
        rows = content.window_rows if name == WINDOW_FILE else content.compared_rows
        _write(made / name, rows(spans, columns, config))
    return SpanFiles(
        folder=made,
        fingerprints=window.fingerprints(),
        compared=tuple(span.name for span in compared),
        previous=window.previous.name if compared and window.previous else None,
        bounds=bounds,
    )


def _drift_bounds(content: SpanContent, config: RunConfig, columns: Sequence[str]) -> dict[str, float]:
    assert config.data.spans is not None
    unknown = [name for name in config.data.spans.maximum_drift_of if name not in columns]
    if unknown:
        raise BrokenInput(
            f"data.spans.maximum_drift_of names {unknown[0]!r}; the columns of the spans are "
            f"{', '.join(map(repr, columns))}"
        )
    bounds = {name: config.data.spans.drift_bound(name) for name in content.compared_columns(columns, config)}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _write(path: Path, rows: _Rows) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as written:
        csv.writer(written, lineterminator="\n").writerows(rows)
    part.replace(path)


# What a run reads is written anew by the next one that reads it. These are for people who look into a run that just
# ended, and for what `ingraph compile` made beside it and has not staged yet.
KEPT_WINDOWS = 3


def remove_old_windows(folder: Path, in_use: Path, kept: int = KEPT_WINDOWS) -> None:
    """Remove all but the newest windows that write_span_files made; what else lies there stays.

    Args:
        folder: of the data of a pipeline's runs.
        in_use: a window that stays in any case.
        kept: how many stay, that one included.
    """
    found = [made.parent for made in folder.glob(f"*/{Path(WINDOW_FILE).stem}.*")]
    others = [made for made in dict.fromkeys(found) if made.name != in_use.name]
    others.sort(key=lambda made: made.stat().st_mtime, reverse=True)
    for made in others[kept - 1 :]:
        shutil.rmtree(made, ignore_errors=True)
