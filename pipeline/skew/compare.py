"""Training-serving skew: logged requests compared with the data that the served model learned from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.components import DistributionValidator
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.io import fileio
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from components.data_gate.splits import column_name, present_count
from components.drift import ColumnShift, measured_drift, presence_shift, shift_by_chance
from components.errors import BrokenInput
from components.request_logs import Columns, LoggedRequests, Value, find_logs
from components.run_report.dataset import ColumnSummary, column_summaries, read_statistics
from components.run_report.finished_run import RunArtifact
from components.statistics_gen import StatisticsGen
from pipeline.dag import distribution_comparators
from pipeline.history import open_metadata_store, read_recorded_run
from pipeline.options import RunConfig
from pipeline.run import model_base_path
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.runners.local import BEAM_PIPELINE_ARGS, LocalRunner
from pipeline.spans import unignored_columns
from pipeline.tasks import TASKS
from serving.model_store import ModelStoreError, ModelVersion, served_version
from serving.reference_predictions import read_examples
from serving.signatures.common import is_missing


@dataclass(frozen=True)
class Comparison:
    """How rows become columns whose distributions say something.

    Attributes:
        feature_of_input: name of an input in a request -> the feature of the training data.
        columns: what is compared: those features, or what is measured of them.
        texts: the features that hold text in the training data; the others hold numbers.
        measure: for texts and photos, of which hardly one comes twice: what is measured of each of them, as columns.
            None where the features themselves are compared.
    """

    feature_of_input: Mapping[str, str]
    columns: Sequence[str]
    texts: frozenset[str]
    measure: Callable[[Sequence[bytes]], list[dict[str, Value]]] | None = None


def comparison(config: RunConfig, training: statistics_pb2.DatasetFeatureStatistics) -> Comparison:
    """What is compared of the inputs of a model.

    Args:
        config: of its run.
        training: statistics of the training data.
    """
    measures = TASKS[config.task].measures
    if measures is not None:
        feature = measures.feature(config)
        inputs = dict.fromkeys((*measures.inputs, feature), feature)
        return Comparison(inputs, measures.columns, frozenset({feature}), measures.measure)
    columns = {column_name(column): column for column in training.features}
    texts = (name for name, column in columns.items() if column.type == statistics_pb2.FeatureNameStatistics.STRING)
    inputs = {name: name for name in columns if name != config.preprocessing.label.column}
    return Comparison(inputs, unignored_columns(list(inputs), config), frozenset(texts))


# Of so much is asked at once what is missing.
_BATCH_ROWS = 10_000
_BATCH_BYTES = 64 * 2**20


def write_examples(batches: Iterable[Columns], comparison: Comparison, split: Path) -> int:
    """Write rows where TFX looks for a split, without what is missing; returns how many there are.

    Args:
        batches: rows, in columns of features.
        comparison: what becomes of them.
        split: its folder, which is made.
    """
    split.mkdir(parents=True)
    written = 0
    with tf.io.TFRecordWriter(str(split / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for columns in _joined(batches):
            for row in _rows(columns, comparison):
                writer.write(_example(row).SerializeToString())
                written += 1
    return written


def _joined(batches: Iterable[Columns]) -> Iterable[Columns]:
    """Larger batches of the same rows."""
    joined: Columns = {}
    rows = size = 0
    for columns in batches:
        count = len(next(iter(columns.values())))
        for name in columns.keys() - joined.keys():
            joined[name] = [None] * rows
        for name, values in joined.items():
            values.extend(columns.get(name, [None] * count))
        rows += count
        size += sum(len(value) for values in columns.values() for value in values if isinstance(value, bytes))
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield joined
            joined, rows, size = {}, 0, 0
    if rows:
        yield joined


def _rows(columns: Columns, comparison: Comparison) -> Iterable[dict[str, Value]]:
    present = {name: _present(values, name in comparison.texts) for name, values in columns.items()}
    if comparison.measure is not None:
        (name,) = columns
        measured = iter(comparison.measure([value for value in present[name] if isinstance(value, bytes)]))
        yield from (next(measured) if isinstance(value, bytes) else {} for value in present[name])
        return
    for row in zip(*present.values(), strict=True):
        yield {name: value for name, value in zip(present, row, strict=True) if value is not None}


def _present(values: Sequence[Value | None], are_texts: bool) -> list[Value | None]:
    """The values, with None for every form of a missing one, and for what is no text or no number."""
    present: list[Value | None] = [None] * len(values)
    for kind, dtype in [(bytes, tf.string)] if are_texts else [(int, tf.int64), (float, tf.float32)]:
        places = [place for place, value in enumerate(values) if type(value) is kind]
        if places:
            missing = is_missing(tf.constant([values[place] for place in places], dtype)).numpy()
            for place, is_gone in zip(places, missing, strict=True):
                present[place] = None if is_gone else values[place]
    return present


def _example(row: dict[str, Value]) -> tf.train.Example:
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:  # whole or not: requests may mix them, and a column has one type
            feature.float_list.value.append(value)
    return example


@dataclass(frozen=True)
class TrainingRun:
    """The run that published the served version.

    Attributes:
        version: what is served.
        base_path: where.
        run_id: of the run.
        examples: its artifact of examples.
        statistics: its artifact of their statistics.
    """

    version: ModelVersion
    base_path: str
    run_id: str
    examples: RunArtifact
    statistics: RunArtifact


def find_training_run(config: RunConfig, workdir: str) -> TrainingRun:
    """Find it by the provenance of the version.

    Args:
        config: of the model.
        workdir: what relative `runs` and `models` of the config are relative to.

    Raises:
        BrokenInput: nothing is published, or the data of its run are not here.
    """
    base_path = model_base_path(config, workdir)
    try:
        version = served_version(base_path)
    except ModelStoreError as error:
        raise BrokenInput(str(error)) from error
    if version is None:
        raise BrokenInput(f"{base_path}: no published version there; `ingraph run` publishes one")
    run_id = str(version.provenance.get("run_id", ""))
    metadata = Path(workdir, config.runs, config.name).resolve() / "metadata.sqlite"
    artifacts = read_recorded_run(open_metadata_store(str(metadata)), run_id).artifacts if metadata.exists() else {}
    for role in ("examples", "statistics"):
        if role not in artifacts or not fileio.exists(artifacts[role].uri):
            raise BrokenInput(
                f"version {version.number} in {base_path} is of run {run_id or '(not known)'}, and the {role} of its "
                f"data are not in {metadata.parent}; `--workdir` and `runs` in the config say where it ran"
            )
    return TrainingRun(version, base_path, run_id, artifacts["examples"], artifacts["statistics"])


REQUESTS = "requests"
TRAINING = "train"


def skew_pipeline(
    folder: Path, splits: Sequence[str], training: RunArtifact | None, bounds: Mapping[str, float]
) -> Pipeline:
    """The pipeline of a comparison.

    Args:
        folder: holds the examples in `span/Split-*`, and gets everything that the steps make.
        splits: of the examples: REQUESTS, and TRAINING where there are no statistics of the training data.
        training: these statistics.
        bounds: column -> the largest divergence.
    """
    examples = Importer(
        source_uri=str(folder / "span"),
        artifact_type=standard_artifacts.Examples,
        properties={"split_names": json.dumps(list(splits))},
    ).with_id("Requests")
    statistics_gen = StatisticsGen(examples=examples.outputs["result"])
    statistics = statistics_gen.outputs["statistics"]
    imported = []
    baseline = statistics
    if training is not None:
        importer = Importer(
            source_uri=training.uri,
            artifact_type=standard_artifacts.ExampleStatistics,
            properties={"split_names": training.text("split_names")},
        ).with_id("TrainingStatistics")
        imported, baseline = [importer], importer.outputs["result"]
    validator = DistributionValidator(
        statistics=statistics,
        baseline_statistics=baseline,
        config=distribution_comparators(bounds),
        include_split_pairs=[(REQUESTS, TRAINING)],
    )
    return Pipeline(
        pipeline_name="skew",
        pipeline_root=str(folder / "artifacts"),
        components=[examples, statistics_gen, *imported, validator],
        metadata_connection_config=sqlite_metadata_connection_config(str(folder / "metadata.sqlite")),
        beam_pipeline_args=BEAM_PIPELINE_ARGS,
    )


class SkewVerdict(Enum):
    """What a column turned out to be."""

    SKEWED = "skewed"
    UNDECIDED = "too few"
    FINE = "fine"


@dataclass(frozen=True)
class ColumnSkew:
    """A column of the requests, held against the training data.

    Attributes:
        column: its name.
        verdict: whether it differs.
        divergence: Jensen-Shannon, in bits: of its values or of whether there is one, whichever is larger.
        finding: in words.
    """

    column: str
    verdict: SkewVerdict
    divergence: float
    finding: str


def judge_skew(
    requests: statistics_pb2.DatasetFeatureStatistics,
    training: statistics_pb2.DatasetFeatureStatistics,
    anomalies: anomalies_pb2.Anomalies,
    bounds: Mapping[str, float],
) -> list[ColumnSkew]:
    """Judge each column that has a bound: the skewed ones first, the largest divergence first.

    DistributionValidator compares the values that are there. Whether there is one is compared here, by the same measure
    and bound: a column that clients do not send any more has no values to compare.

    Args:
        requests: their statistics.
        training: those of the training data.
        anomalies: DistributionValidator's.
        bounds: column -> the largest divergence.
    """
    measured = measured_drift(anomalies)
    sides = (_Side(requests), _Side(training))
    judged = []
    for column, bound in bounds.items():
        shifts = [presence_shift(column, requests, training)]
        if column in measured:
            by_chance = shift_by_chance(sides[0].columns[column], sides[1].columns[column])
            shifts.append(ColumnShift(column, measured[column].divergence, by_chance))
        comparable = column in measured or not all(side.present(column) for side in sides)
        judged.append(_judge(column, bound, shifts, comparable, *sides))
    return sorted(judged, key=lambda skew: (list(SkewVerdict).index(skew.verdict), -skew.divergence))


class _Side:
    """Statistics by column."""

    def __init__(self, statistics: statistics_pb2.DatasetFeatureStatistics) -> None:
        self.rows = int(statistics.num_examples)
        self.columns = {column_name(column): column for column in statistics.features}
        self._summaries: dict[str, ColumnSummary] = {
            summary.name: summary for summary in column_summaries({"": statistics})
        }

    def present(self, column: str) -> int:
        return present_count(self.columns[column]) if column in self.columns else 0

    def words(self, column: str) -> str:
        """What the column holds."""
        present = self.present(column)
        if not present:
            return "no value"
        missing = 1 - present / self.rows
        return self._summaries[column].values + (f", {missing:.1%} missing" if missing else "")


def _presence_words(column: str, requests: _Side, training: _Side) -> str:
    here, before = (side.present(column) / side.rows for side in (requests, training))
    have = f"{here:.1%} of the requests have" if here else "no request has"
    return f"{have} a value, in the training data {before:.1%}"


def _judge(
    column: str, bound: float, shifts: Sequence[ColumnShift], comparable: bool, requests: _Side, training: _Side
) -> ColumnSkew:
    """Judge by the shifts of whether there is a value and, where they can be compared, of the values."""
    holds = f"Requests: {requests.words(column)}. Training: {training.words(column)}."
    if not comparable:
        return ColumnSkew(column, SkewVerdict.SKEWED, 1.0, f"skewed: values of another type. {holds}")
    worst = max(shifts, key=lambda shift: shift.distance)
    said = f"divergence {worst.distance:.4f}, expected at most {bound:g}"
    if any(shift.shifted and shift.distance > bound for shift in shifts):
        what = _presence_words(column, requests, training) if worst is shifts[0] else "other values"
        return ColumnSkew(column, SkewVerdict.SKEWED, worst.distance, f"skewed: {what}: {said}. {holds}")
    by_chance = max(shift.by_chance for shift in shifts)
    if by_chance > bound:
        finding = f"too few rows to tell: {said}, and chance alone explains {min(by_chance, 1):.4f}"
        return ColumnSkew(column, SkewVerdict.UNDECIDED, worst.distance, finding)
    return ColumnSkew(column, SkewVerdict.FINE, worst.distance, f"fine: {said}")


def compare_examples(
    folder: Path, splits: Sequence[str], statistics: RunArtifact | None, bounds: Mapping[str, float]
) -> list[ColumnSkew]:
    """Each column that has a bound, the worst first; see skew_pipeline for what is given."""
    apply_beam_speedups()
    pipeline = skew_pipeline(folder, splits, statistics, bounds)
    LocalRunner("skew", lambda node: None, lambda node, seconds: None).run(pipeline)
    (computed,) = folder.glob("artifacts/StatisticsGen/statistics/*")
    (found,) = folder.glob(f"artifacts/DistributionValidator/anomalies/*/SplitPair-{REQUESTS}_{TRAINING}/*.pb")
    of_split = read_statistics(RunArtifact(str(computed), {"split_names": json.dumps(list(splits))}))
    training = read_statistics(statistics)[TRAINING] if statistics is not None else of_split[TRAINING]
    return judge_skew(of_split[REQUESTS], training, anomalies_pb2.Anomalies.FromString(found.read_bytes()), bounds)


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
        logs: files of PredictionLogs, see components.table_file.find_files.

    Raises:
        BrokenInput: there is nothing published, no log, or no request to this model in them; or the bounds do not fit
            the columns.
    """
    files = find_logs(logs)
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
    for record in read_examples(sorted(fileio.glob(f"{examples.uri}/Split-{TRAINING}/*"))):
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
