"""Compare the logged requests of a model with the data that it learned from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from tfx.dsl.io import fileio

from components.errors import BrokenInput
from components.run_report.read_statistics import read_statistics
from components.run_report.run_artifact import RunArtifact
from pipeline.config import RunConfig
from pipeline.scoring.find_files import find_files
from pipeline.skew.compare_examples import compare_examples
from pipeline.skew.comparison import Comparison, comparison
from pipeline.skew.judge_skew import ColumnSkew
from pipeline.skew.logged_requests import LoggedRequests
from pipeline.skew.request_columns import Columns
from pipeline.skew.skew_pipeline import REQUESTS, TRAINING
from pipeline.skew.training_run import TrainingRun, find_training_run
from pipeline.skew.write_examples import write_examples
from serving.server.request_log import SUFFIX


@dataclass(frozen=True)
class SkewCheck:
    """What came of it.

    Attributes:
        columns: each one that was compared, the worst first.
        logged: the requests, and what was passed over.
        files: how many logs there were.
        rows: of the requests.
        training: the run that the model is of.
        training_rows: of its training data.
    """

    columns: list[ColumnSkew]
    logged: LoggedRequests
    files: int
    rows: int
    training: TrainingRun
    training_rows: int


def check_skew(config: RunConfig, workdir: str, logs: Sequence[str]) -> SkewCheck:
    """Compare; the copy of the requests that this needs is in a folder of its own, and gone at the end.

    Args:
        config: of the model.
        workdir: what relative `runs` and `models` of the config are relative to.
        logs: files of PredictionLogs, see pipeline.scoring.find_files.

    Raises:
        BrokenInput: there is nothing published, no log, or no request to this model in them; or the bounds do not fit
            the columns.
    """
    files = [file for place in logs for file in find_files(place, (SUFFIX, f"{SUFFIX}.gz"))]
    run = find_training_run(config, workdir)
    training = read_statistics(run.statistics)[TRAINING]
    compared = comparison(config, training)
    bounds = _bounds(config, compared.columns)
    logged = LoggedRequests(files, config.name, compared.feature_of_input)
    with tempfile.TemporaryDirectory(prefix="ingraph-skew-") as folder:
        rows = write_examples(logged, compared, Path(folder, "span", f"Split-{REQUESTS}"))
        if not rows:
            raise BrokenInput(_nothing_read(config, logs, logged))
        if compared.measure is None:
            columns = compare_examples(Path(folder), [REQUESTS], run.statistics, bounds)
        else:
            write_examples(_training_rows(run.examples, compared), compared, Path(folder, "span", f"Split-{TRAINING}"))
            columns = compare_examples(Path(folder), [REQUESTS, TRAINING], None, bounds)
    return SkewCheck(columns, logged, len(files), rows, run, int(training.num_examples))


def _nothing_read(config: RunConfig, logs: Sequence[str], logged: LoggedRequests) -> str:
    found = [
        f"{sum(counts.values()):,} {what} ({', '.join(sorted(counts))})"
        for counts, what in (
            (logged.other_models, "requests to other models"),
            (logged.other_inputs, "requests without an input of it, by signature"),
        )
        if counts
    ]
    if logged.damaged:
        found.append(f"{len(logged.damaged):,} damaged records, the first in {logged.damaged[0]}")
    return (
        f"{', '.join(logs)}: no request to the model {config.name} is logged there; found "
        f"{', '.join(found) or 'no record at all'}. `ingraph serve --request-log PREFIX` logs requests"
    )


def _training_rows(examples: RunArtifact, compared: Comparison) -> Iterator[Columns]:
    """The feature that is measured, of each example."""
    (feature,) = set(compared.feature_of_input.values())
    for record in tf.data.TFRecordDataset(
        sorted(fileio.glob(f"{examples.uri}/Split-{TRAINING}/*")), "GZIP"
    ).as_numpy_iterator():
        values = tf.train.Example.FromString(record).features.feature[feature].bytes_list.value
        yield {feature: [values[0] if values else None]}


def _bounds(config: RunConfig, columns: Sequence[str]) -> dict[str, float]:
    unknown = [name for name in config.skew.maximum_of if name not in columns]
    if unknown:
        raise BrokenInput(
            f"skew.maximum_of names {unknown[0]!r}; the columns that are compared are {', '.join(map(repr, columns))}"
        )
    bounds = {name: config.skew.bound(name, config.data.spans) for name in columns}
    compared = {name: bound for name, bound in bounds.items() if bound is not None}
    if not compared:
        raise BrokenInput("no column has a bound: `skew.maximum` in the config, or data.spans.maximum_drift, gives one")
    return compared
