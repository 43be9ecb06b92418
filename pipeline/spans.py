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
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson

from components.errors import BrokenInput
from components.table_example_gen.options import WHOLE_FOLDER, Ingestion, TableReading
from components.table_example_gen.sources import plan_inputs, shard_batches
from pipeline.data import IMAGE_MEASURES, check_table, image_measures
from pipeline.options import DataOptions, RunConfig, TableDataOptions, TableRunConfig
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


def next_span_file(pattern: str) -> str:
    """A file that would be of a span after those that are there: of the next number, or of today or the day after them.

    Args:
        pattern: as find_spans takes it, of CSV or TSV files here.

    Raises:
        BrokenInput: the pattern is of other files.
    """
    if "://" in pattern or not pattern.endswith((".csv", ".tsv")):
        raise BrokenInput(f"{pattern}: expected spans of CSV or TSV files here; write rows of others by hand")
    return _next_span(pattern).replace("*", "truth").replace("?", "0")


def next_span_photos(pattern: str) -> str:
    """A pattern `FOLDER/*/NAME` of the photos of such a span: below a folder that is not there yet, a folder a class.

    Args:
        pattern: as find_spans takes it, of photos here.

    Raises:
        BrokenInput: spans have no folders of their own with folders of classes in them.
    """
    folder, *class_and_name = pattern.rsplit("/", 2)
    if "://" in pattern or class_and_name[:1] != ["*"] or "*" not in class_and_name[-1] or "{" not in folder:
        raise BrokenInput(
            f"{pattern}: expected spans of photos here, such as photos/{{SPAN}}/*/*, in whose folders those of the "
            "classes are; sort photos of others by hand"
        )
    folder, kind, name = _next_span(pattern).rsplit("/", 2)
    return "/".join([folder.replace("*", "truth").replace("?", "0"), kind, name])


def _next_span(pattern: str) -> str:
    """The pattern of the files of a span after those that are there."""
    try:
        newest = find_spans(pattern)[-1].name
    except BrokenInput:
        newest = ""
    if "{SPAN}" in pattern:
        values = {"{SPAN}": str(int(newest or 0) + 1)}
    else:
        day = datetime.now(UTC).date()
        if newest:
            day = max(day, date.fromisoformat(newest) + timedelta(days=1))
        values = {"{YYYY}": f"{day:%Y}", "{MM}": f"{day:%m}", "{DD}": f"{day:%d}"}
    return "".join(values.get(token, token) for token in _TOKEN.split(pattern))


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

    Photos of formats that are not read are among them, for ExampleGen to count.

    Args:
        span: its files are photos in class folders, among which other files are passed over, or lists of photos as
            components.image_example_gen.image_files takes them.

    Raises:
        BrokenInput: a list of photos cannot be used.
    """
    from components.image_example_gen.file_formats import CONVERTED  # imports TensorFlow
    from components.image_example_gen.image_files import IMAGE_EXTENSIONS, find_images, is_unread_photo

    converted = {path.removesuffix(CONVERTED) for path in span.files if path.endswith(CONVERTED)}
    for path in span.files:
        if path.lower().endswith(".csv"):
            found = find_images(path)
            yield from ((photo.file, photo.label) for photo in (*found.photos, *found.unread))
        elif path not in converted and (path.lower().endswith(IMAGE_EXTENSIONS) or is_unread_photo(path)):
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


# What a run learns from, in the folder of its window: a folder of tables, or a list of photos.
WINDOW = "window"


@dataclass(frozen=True)
class SpanContent:
    """What the files of spans hold, and how it is read: one for tables, one for texts, one for images.

    Attributes:
        has_rows: whether there is anything to learn from in a span.
        columns: what is compared of the files.
        compared_columns: those of them that a bound of divergence may be given for.
        write: the spans, for a run to learn from; returns the name of what it made in the folder.
        write_compared: a span, to be compared; returns the pattern of the tables that it made in the folder.
        reading: how these are read.
        stays: whether `write` only lists files that are read where they are.
    """

    has_rows: Callable[[Span, DataOptions], bool]
    columns: Callable[[SpanWindow, RunConfig], list[str]]
    compared_columns: Callable[[Sequence[str], RunConfig], Sequence[str]]
    write: Callable[[Iterable[Span], Path, RunConfig], str]
    write_compared: Callable[[Span, Path, str, RunConfig], str]
    reading: Callable[[DataOptions], TableReading]
    stays: bool = False


def _has_table_rows(span: Span, data: DataOptions) -> bool:
    ingestion = Ingestion(reading=_table_reading(data), columns_differ=True)
    shards = plan_inputs({span.name: "\n".join(span.files)}, ingestion)
    return any(len(batch) for shard in shards for batch in shard_batches(shard, ingestion.reading))


def _table_reading(data: DataOptions) -> TableReading:
    return cast(TableDataOptions, data).reading(as_text=False)


def _table_columns(window: SpanWindow, config: RunConfig) -> list[str]:
    assert isinstance(config, TableRunConfig)
    files = itertools.chain.from_iterable(span.files for span in window.spans)
    return list(check_table({"all": "\n".join(files)}, config).columns)


def _link_tables(spans: Iterable[Span], folder: Path, config: RunConfig) -> str:
    for span in spans:
        _link_span(span, folder, WINDOW, config)
    return WINDOW


def _link_span(span: Span, folder: Path, name: str, config: RunConfig) -> str:
    """Put the tables of a span into a folder, without copying those that are here."""
    (folder / name).mkdir(exist_ok=True)
    for number, file in enumerate(span.files):
        # Names in the order of the files; their endings say how they are read.
        link = folder / name / f"{span.name}-{number:05d}-{posixpath.basename(file)}"
        if "://" not in file:
            link.unlink(missing_ok=True)
            link.symlink_to(file)
            continue
        part = link.with_name(f".{link.name}.part")
        with open_span_file(file) as content, part.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        part.replace(link)
    return f"{name}/{WHOLE_FOLDER}"


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


def _list_images(spans: Iterable[Span], folder: Path, config: RunConfig) -> str:
    from components.image_example_gen.image_files import MANIFEST_COLUMNS  # imports TensorFlow

    name = f"{WINDOW}.csv"
    _write(folder / name, itertools.chain([MANIFEST_COLUMNS], *map(span_images, spans)))
    return name


def _measure_images(span: Span, folder: Path, name: str, config: RunConfig) -> str:
    _write(folder / f"{name}.csv", _measured_images(span, config.preprocessing.label.column))
    return f"{name}.csv"


def _measured_images(span: Span, label_column: str) -> Iterator[Sequence[object]]:
    columns = [label_column, *IMAGE_MEASURES]
    yield columns
    for path, label in span_images(span):
        with open_span_file(path) as file:
            measures = image_measures(file.read())
        format_ = measures.pop("format", b"")
        assert isinstance(format_, bytes)
        row = {**measures, "format": format_.decode(), label_column: label}
        yield [row.get(name, "") for name in columns]


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as written:
        csv.writer(written, lineterminator="\n").writerows(rows)
    part.replace(path)


TABLE_SPANS = SpanContent(_has_table_rows, _table_columns, unignored_columns, _link_tables, _link_span, _table_reading)
TEXT_SPANS = replace(TABLE_SPANS, compared_columns=_columns_but_the_text)
IMAGE_SPANS = SpanContent(
    _has_images,
    _image_columns,
    lambda columns, _: columns,
    _list_images,
    _measure_images,
    lambda data: TableReading(),
    stays=True,
)


@dataclass(frozen=True)
class SpanFiles:
    """What a run reads of spans, in one folder.

    Attributes:
        folder: its name changes with the content of the files.
        window: the name of what the run learns from: a folder of tables, or a list of photos.
        fingerprints: name -> fingerprint of the spans whose rows or photos are in it.
        compared: span that the served model did not learn from -> the pattern of its tables.
        previous: the span before them; None, and nothing to compare, where there is none.
        previous_tables: the pattern of its tables.
        bounds: column -> the largest divergence from that span.
        ingestion: how tables that are compared are read.
    """

    folder: Path
    window: str
    fingerprints: Mapping[str, str]
    compared: Mapping[str, str]
    previous: str | None
    previous_tables: str
    bounds: Mapping[str, float]
    ingestion: Ingestion

    def read_by(self, config: RunConfig) -> RunConfig:
        """The config of a run that reads all spans from one place."""
        data = config.data.model_copy(update={"path": str(self.folder / self.window)})
        return config.model_copy(update={"data": data})


def write_span_files(content: SpanContent, window: SpanWindow, config: RunConfig, folder: Path) -> SpanFiles:
    """Put what a run reads of spans into a folder; what one lacks of the columns of the others is missing.

    Files that are here stay where they are; of photos that are compared, classes and measures are written.

    Args:
        content: what the files of the spans hold.
        window: the spans.
        config: of the run.
        folder: where the folder of the files is made.

    Raises:
        BrokenInput: what check_table says of the files of the spans; or a bound is given for a column that no span has.
    """
    columns = content.columns(window, config)
    bounds = _drift_bounds(content, config, columns)
    previous = window.previous if bounds and window.unseen else None
    compared = window.unseen if previous else ()
    read = [[(span.name, span.fingerprint) for span in spans] for spans in (window.spans, compared)]
    made = folder / hashlib.sha256(orjson.dumps([*read, previous and previous.fingerprint])).hexdigest()[:16]
    made.mkdir(parents=True, exist_ok=True)
    return SpanFiles(
        folder=made,
        window=content.write(window.spans, made, config),
        fingerprints=window.fingerprints(),
        compared={span.name: content.write_compared(span, made, f"compared-{span.name}", config) for span in compared},
        previous=previous.name if previous else None,
        previous_tables=content.write_compared(previous, made, "previous", config) if previous else "",
        bounds=bounds,
        ingestion=Ingestion(reading=content.reading(config.data), split_of_input=True, columns_differ=True),
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
    found = [made.parent for made in folder.glob(f"*/{WINDOW}*")]
    others = [made for made in dict.fromkeys(found) if made.name != in_use.name]
    others.sort(key=lambda made: made.stat().st_mtime, reverse=True)
    for made in others[kept - 1 :]:
        shutil.rmtree(made, ignore_errors=True)
