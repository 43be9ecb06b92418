"""The spans of a run as files that an ExampleGen reads."""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from components.drift_gate.splits import PREVIOUS
from components.errors import BrokenInput
from components.table_file import TableFile
from pipeline.check_table import check_table
from pipeline.config import RunConfig
from pipeline.find_spans import Span, open_span_file
from pipeline.photo_measures import PHOTO_MEASURES, photo_measures
from pipeline.span_photos import span_photos
from pipeline.span_window import SpanWindow
from transform.image_options import ImageOptions
from transform.tabular_options import TabularOptions
from transform.text_options import TextOptions

WINDOW_FILE = "window.csv"

_Rows = Iterator[Sequence[object]]


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


def write_span_files(window: SpanWindow, config: RunConfig, folder: Path) -> SpanFiles:
    """Write the spans; what one of them lacks of the columns of the others is empty there.

    Photos stay where they are; of those that are compared, their classes and measures are written.

    Args:
        window: the spans.
        config: of the run.
        folder: where the folder of the files is made.

    Raises:
        BrokenInput: what check_table says of the files of the spans; or a bound is given for a column that no span has.
    """
    columns = _columns(window, config)
    bounds = _drift_bounds(config, columns)
    compared = window.unseen if window.previous and bounds else ()
    to_write: dict[str, Iterable[Span]] = {WINDOW_FILE: window.spans}
    if compared and window.previous:
        to_write |= {f"{PREVIOUS}.csv": [window.previous], **{f"{span.name}.csv": [span] for span in compared}}
    content = {name: [(span.name, span.fingerprint) for span in spans] for name, spans in to_write.items()}
    made = folder / hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]
    made.mkdir(parents=True, exist_ok=True)
    for name, spans in to_write.items():
        _write(made / name, _rows(spans, columns, config, is_window=name == WINDOW_FILE))
    return SpanFiles(
        folder=made,
        fingerprints=window.fingerprints(),
        compared=tuple(span.name for span in compared),
        previous=window.previous.name if compared and window.previous else None,
        bounds=bounds,
    )


def _columns(window: SpanWindow, config: RunConfig) -> list[str]:
    """The columns of the files that are compared; those of tables are in WINDOW_FILE too."""
    if isinstance(config.preprocessing, ImageOptions):
        return [config.preprocessing.label.column, *PHOTO_MEASURES]
    columns: dict[str, None] = {}
    for path in _files(window.spans):
        table = TableFile(path, config.data.format)
        check_table(table, config.preprocessing)
        columns |= dict.fromkeys(table.columns())
    return list(columns)


def _files(spans: Iterable[Span]) -> Iterator[str]:
    return itertools.chain.from_iterable(span.files for span in spans)


def _drift_bounds(config: RunConfig, columns: Sequence[str]) -> dict[str, float]:
    assert config.data.spans is not None
    unknown = [name for name in config.data.spans.maximum_drift_of if name not in columns]
    if unknown:
        raise BrokenInput(
            f"data.spans.maximum_drift_of names {unknown[0]!r}; the columns of the spans are "
            f"{', '.join(map(repr, columns))}"
        )
    options = config.preprocessing
    if isinstance(options, TextOptions):
        columns = [name for name in columns if name != options.column]  # hardly a text comes twice
    if isinstance(options, TabularOptions):
        columns = [name for name in columns if name not in options.columns or options.columns[name].kind != "ignored"]
    bounds = {name: config.data.spans.drift_bound(name) for name in columns}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _rows(spans: Iterable[Span], columns: Sequence[str], config: RunConfig, is_window: bool) -> _Rows:
    """The header, and what follows."""
    if isinstance(config.preprocessing, ImageOptions):
        return _listed_photos(spans) if is_window else _measured_photos(spans, columns)
    # Texts of several lines are kept for learning; CsvExampleGen, which compares spans, reads line by line.
    return _table_rows(spans, columns, config, keep_lines=config.task == "text" and is_window)


def _listed_photos(spans: Iterable[Span]) -> _Rows:
    from components.image_example_gen.list_photos import MANIFEST_COLUMNS  # imports TensorFlow

    yield MANIFEST_COLUMNS
    for span in spans:
        yield from span_photos(span)


def _measured_photos(spans: Iterable[Span], columns: Sequence[str]) -> _Rows:
    yield columns
    for span in spans:
        for path, label in span_photos(span):
            with open_span_file(path) as file:
                measures = photo_measures(file.read())
            format_ = measures.pop("format", b"")
            assert isinstance(format_, bytes)
            row = {**measures, "format": format_.decode(), columns[0]: label}
            yield [row.get(name, "") for name in columns]


def _table_rows(spans: Iterable[Span], columns: Sequence[str], config: RunConfig, keep_lines: bool) -> _Rows:
    yield columns
    for file in _files(spans):
        for row in TableFile(file, config.data.format).rows():
            fields = [row.fields.get(name, "") for name in columns]
            yield fields if keep_lines else [" ".join(field.splitlines()) for field in fields]


def _write(path: Path, rows: _Rows) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as written:
        csv.writer(written, lineterminator="\n").writerows(rows)
    part.replace(path)
