"""`ingraph truth`."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.run import config_options
from pipeline.exit_status import ExitStatus
from serving.loading import garbage_collection_paused

if TYPE_CHECKING:
    from components.run_report.statistics import Interval, LiveFigure
    from pipeline.options import RunConfig
    from pipeline.scoring.truth import Truth

SHOWN_DAYS, SHOWN_SLICES = 14, 20


@click.command(
    epilog="""Exit status: 0 the figures are worked out, and no fall was found; 13 the served version's accuracy is
    below --fail-below, with confidence; 2 the config, the logs or the labels cannot be used, or nothing can be joined;
    1 anything unexpected."""
)
@config_options("Override a key: evaluation.slices=[[sex]].", "Where `ingraph run` made runs/ and models/.")
@click.option("--logs", multiple=True, metavar="PLACE", help="Request logs.  [default: evaluation.truth.logs]")
@click.option(
    "--labels",
    multiple=True,
    metavar="PLACE",
    help="Files of labels, CSV, TSV or Parquet, in the order in which they came.  [default: evaluation.truth.labels]",
)
@click.option(
    "--key",
    multiple=True,
    metavar="COLUMN",
    help="A column that rows are known by; may be given several times.  [default: all inputs that the labels have]",
)
@click.option("--fail-below", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="The least accuracy.")
@click.option("--metrics", metavar="FILE", help="Write Prometheus metrics, for node_exporter's textfile collector.")
@click.option("--report", metavar="FILE", help="Write a page with pictures, truth.html.")
@click.option("--to-training", is_flag=True, help="Write the joined rows as the next span of data.spans.")
def truth(
    config: str,
    overrides: tuple[str, ...],
    workdir: str,
    logs: tuple[str, ...],
    labels: tuple[str, ...],
    key: tuple[str, ...],
    fail_below: float | None,
    metrics: str | None,
    report: str | None,
    to_training: bool,
) -> None:
    """Join labels that came later with what was answered: how good the model is in the field.

    Logs are files of TensorFlow Serving's PredictionLogs, as `ingraph serve --request-log` writes them. Accuracy, AUC
    and calibration of each version, its days and its slices, with 95 % intervals.

    \b
    ingraph truth configs/heart.yaml --logs 'logs/heart-*' --labels late.csv
    ingraph truth configs/heart.yaml --logs logs/ --labels late.csv --fail-below 0.8 --metrics heart.prom
    """
    from components.errors import BrokenInput
    from pipeline.config import load_config
    from serving.loading import quiet_output

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        loaded = load_config(config, overrides)
        given = loaded.evaluation.truth
        logs = logs or (given.logs if given else ())
        labels = labels or (given.labels if given else ())
        if not logs or not labels:
            missing = "--labels" if logs else "--logs"
            raise BrokenInput(f"{missing} is missing, and the config has no evaluation.truth; say where they are")
        key = key or (given.key if given else ())
        bound = given.at_least if fail_below is None and given else fail_below
        with quiet_output(Path(os.devnull)):
            from pipeline.run import runs_folder

            found, written = _join(loaded, workdir, logs, labels, key, bound, to_training)
            live = found.live(bound)
            live.keep(runs_folder(loaded, workdir))
            if metrics is not None:
                _write(metrics, "".join(f"{line}\n" for line in metric_lines(loaded.name, found, bound)))
            if report is not None:
                from components.run_report.pages import truth_page

                _write(report, truth_page(loaded.name, live))
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(ExitStatus.BROKEN_INPUT)
    _print(found, bound)
    if written:
        _line("span", f"{written[0]:,} rows written to {written[1]}; `ingraph retrain {config}` learns from them")
    if report:
        _line("report", report)
    sys.exit(ExitStatus.PUBLISHED if found.fell_after is None else ExitStatus.FELL)


def _join(
    config: RunConfig,
    workdir: str,
    logs: Sequence[str],
    labels: Sequence[str],
    key: Sequence[str],
    bound: float | None,
    to_training: bool,
) -> tuple[Truth, tuple[int, str] | None]:
    with garbage_collection_paused():
        from pipeline.scoring.truth import join_truth
    if not to_training:
        return join_truth(config, workdir, logs, labels, key, bound), None
    with _next_span(config) as span:
        return join_truth(config, workdir, logs, labels, key, bound, span.write), span.written


class _Span:
    """Rows for a table; their columns are those of the first one."""

    def __init__(self, file: Any, path: str, label: str) -> None:
        self._writer = csv.writer(file, delimiter="\t" if path.endswith(".tsv") else ",", lineterminator="\n")
        self._label = label
        self._columns: list[str] = []
        self._rows = 0
        self._path = path

    @property
    def written(self) -> tuple[int, str]:
        return self._rows, self._path

    def write(self, features: Mapping[str, Any], label: str) -> None:
        from pipeline.scoring.truth import key_text

        if not self._columns:
            self._columns = sorted(features)
            self._writer.writerow([*self._columns, self._label])
        self._writer.writerow([*(key_text(features.get(name)) for name in self._columns), label])
        self._rows += 1


class _PhotoSpan:
    """Photos, in folders of their labels, below a folder that is not yet the span's."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._name = folder, pattern.rpartition("/")[2]
        self._place = pattern.rpartition("/*/")[0]
        self._rows = 0

    @property
    def written(self) -> tuple[int, str]:
        return self._rows, self._place

    def write(self, features: Mapping[str, Any], label: str) -> None:
        from components.errors import BrokenInput
        from components.request_logs import PHOTO_FILE, PHOTO_KEY
        from serving.signatures.image import FILE_BEGINNINGS

        if "/" in label or label.startswith("."):
            raise BrokenInput(
                f"--to-training: the label {label!r} can be no folder; expected one without / and . first"
            )
        file = features[PHOTO_FILE]
        kind = next((kind for kind, beginning in FILE_BEGINNINGS.items() if file.startswith(beginning)), "")
        ending = f".{kind.lower()}" if kind and self._name.endswith("*") else ""
        name = self._name.replace("*", features[PHOTO_KEY], 1).replace("*", "").replace("?", "0")
        (self._folder / label).mkdir(exist_ok=True)
        (self._folder / label / f"{name}{ending}").write_bytes(file)
        self._rows += 1


@contextmanager
def _next_photos(pattern: str) -> Iterator[_PhotoSpan]:
    """The folder is there when it is whole, or not at all."""
    from pipeline.spans import next_span_photos

    found = next_span_photos(pattern)
    folder = Path(found.rpartition("/*/")[0])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        span = _PhotoSpan(Path(temporary, "span"), found)
        Path(temporary, "span").mkdir()
        yield span
        Path(temporary, "span").rename(folder)


@contextmanager
def _next_span(config: RunConfig) -> Iterator[_Span | _PhotoSpan]:
    """The file is there when it is whole, or not at all: a run may look for spans meanwhile."""
    from components.errors import BrokenInput
    from pipeline.options import TableRunConfig
    from pipeline.spans import next_span_file

    if config.data.spans is None:
        raise BrokenInput("--to-training: expected data that come in spans (data.spans); remove it")
    if not isinstance(config, TableRunConfig):
        with _next_photos(config.data.spans.path) as photos:
            yield photos
        return
    path = Path(next_span_file(config.data.spans.path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", encoding="utf-8", newline="") as file:
            yield _Span(file, str(path), config.preprocessing.label.column)
            file.flush()
            Path(file.name).chmod(0o644)
            os.link(file.name, path)
    except BaseException:
        with suppress(OSError):  # it may hold more
            path.parent.rmdir()
        raise


def _write(path: str, content: str) -> None:
    """All of it or nothing: the collector may read at any time."""
    from components.errors import BrokenInput

    part = Path(f"{path}.{os.getpid()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BrokenInput(f"{path}: the file cannot be written: {error.strerror}; name another one") from error


_METRICS = {
    "accuracy": "Share of right labels, of answers whose labels came later.",
    "auc": "Area under the ROC curve.",
    "ece": "Expected calibration error.",
}


def metric_lines(model: str, found: Truth, bound: float | None) -> Iterator[str]:
    """Metrics in Prometheus' text format, without days, of which there are more and more.

    Args:
        model: its name.
        found: what to say.
        bound: the least accuracy, None where none is asked for.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    """
    figures = [figure for figure in found.figures if not figure.day]
    yield "# HELP ingraph_live_rows Answered rows whose labels came later."
    yield "# TYPE ingraph_live_rows gauge"
    for figure in figures:
        yield f"ingraph_live_rows{_labels(model, figure)} {figure.rows}"
    for name, said in _METRICS.items():
        for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high")):
            yield f"# HELP ingraph_live_{name}{suffix} {said}{' An end of its 95 % interval.' if suffix else ''}"
            yield f"# TYPE ingraph_live_{name}{suffix} gauge"
            for figure in figures:
                interval = getattr(figure, name)
                if interval is not None:
                    yield f"ingraph_live_{name}{suffix}{_labels(model, figure)} {getattr(interval, part):.6g}"
    yield "# HELP ingraph_live_pending_rows Answered rows without a label."
    yield "# TYPE ingraph_live_pending_rows gauge"
    yield f'ingraph_live_pending_rows{{model="{_escaped(model)}"}} {found.pending}'
    if bound is not None:
        yield "# HELP ingraph_live_fell Whether the served version is less accurate than it should be, with confidence."
        yield "# TYPE ingraph_live_fell gauge"
        where = f'model="{_escaped(model)}",version="{found.served}",bound="{bound:g}"'
        yield f"ingraph_live_fell{{{where}}} {int(found.fell_after is not None)}"


def _labels(model: str, figure: LiveFigure) -> str:
    return f'{{model="{_escaped(model)}",version="{figure.version}",slice="{_escaped(figure.slice)}"}}'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _print(found: Truth, bound: float | None) -> None:
    from components.replay_gate.replay import some_labels

    _line("joined", f"{found.joined:,} answered rows by {', '.join(found.key)}; {found.pending:,} have no label yet")
    others = {
        "labels of which no answer is logged": found.unused,
        "rows that give another label to the same key, of which the last counts": found.twice,
        "rows that were answered with no label": found.failed,
        "rows that were answered that the model does not know": found.unknown,
    }
    for what, count in others.items():
        if count:
            _line("left out", f"{count:,} {what}")
    for one in found.left_out:
        _line("left out", one)
    if found.strange:
        said = (
            f"{found.strange.total():,} rows have a label that no published version knows: {some_labels(found.strange)}"
        )
        _line("unlike", f"{said}; they count as answered wrongly")
    click.echo()
    _row("version", "", "rows", "accuracy", "AUC", "ECE")
    for version in sorted({figure.version for figure in found.figures}):
        mine = [figure for figure in found.figures if figure.version == version]
        days = [figure for figure in mine if figure.day]
        slices = sorted((figure for figure in mine if figure.slice), key=_accuracy)
        whole = [figure for figure in mine if not figure.day and not figure.slice]
        for figure in (*whole, *days[-SHOWN_DAYS:], *slices[:SHOWN_SLICES]):
            figures = (_shown(figure.accuracy), _shown(figure.auc), _shown(figure.ece))
            _row(str(version), figure.day or figure.slice or "all", f"{figure.rows:,}", *figures)
    click.echo()
    if bound is not None:
        _line("no fall" if found.fell_after is None else "fell", found.verdict(bound))


def _accuracy(figure: LiveFigure) -> float:
    return figure.accuracy.value if figure.accuracy is not None else 1.0


def _shown(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _row(version: str, what: str, rows: str, accuracy: str, auc: str, ece: str) -> None:
    from components.errors import printable

    click.echo(printable(f"{version:<8} {what:<24} {rows:>9}  {accuracy:<27} {auc:<27} {ece:<27}").rstrip())


def _line(what: str, said: str) -> None:
    from components.errors import printable

    click.echo(printable(f"{what:<10} {said}"))
