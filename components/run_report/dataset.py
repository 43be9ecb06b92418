"""The data of a run, as a report reads them: schema, statistics, and what is in each column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.data_gate.splits import class_counts, column_name, present_count, value_counts
from components.data_gate.verdict import ANOMALIES_FILE
from components.drift import ColumnShift, column_shifts
from components.image_example_gen.file_formats import REPORT_FILE, kinds_left_out
from components.run_report.finished_run import FinishedRun, RunArtifact, artifact_json


def read_schema(run: FinishedRun) -> schema_pb2.Schema:
    """The schema that a run checked its data with, an empty one where it has none."""
    if "schema" not in run.artifacts:
        return schema_pb2.Schema()
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(run.artifacts["schema"].uri))


def read_statistics(artifact: RunArtifact) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """Split -> statistics of all its examples; the train split first."""
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = artifact.uri
    statistics.split_names = artifact.text("split_names")
    return {
        split: stats_artifact_utils.load_statistics(statistics, split).get_default_slice_or_die().proto()
        for split in sorted(json.loads(statistics.split_names), key=lambda split: split != "train")
    }


SHOWN_VALUES = 4
SHOWN_CHARACTERS = 24


@dataclass(frozen=True)
class ColumnSummary:
    """What the statistics say of a column.

    Attributes:
        name: of the column.
        kind: `numbers`, `text` or `bytes`.
        values: the range and the mean, or the most frequent values, in words.
        missing: split -> the share of examples without a value.
        statistics: split -> TFDV's statistics of the column, for the picture.
    """

    name: str
    kind: str
    values: str
    missing: dict[str, float]
    statistics: dict[str, statistics_pb2.FeatureNameStatistics]


def column_summaries(splits: dict[str, statistics_pb2.DatasetFeatureStatistics]) -> list[ColumnSummary]:
    """A summary of each column, in the order of the first split; values are those of that split."""
    columns = {
        split: {column_name(column): column for column in statistics.features} for split, statistics in splits.items()
    }
    names = dict.fromkeys(name for found in columns.values() for name in found)
    return [_summary(name, columns, splits) for name in names]


def _summary(
    name: str,
    columns: dict[str, dict[str, statistics_pb2.FeatureNameStatistics]],
    splits: dict[str, statistics_pb2.DatasetFeatureStatistics],
) -> ColumnSummary:
    found = {split: named[name] for split, named in columns.items() if name in named}
    missing = {}
    for split, statistics in splits.items():
        present = present_count(found[split]) if split in found else 0
        missing[split] = 1 - present / statistics.num_examples if statistics.num_examples else 0.0
    kind, values = _described(next(iter(found.values())))
    return ColumnSummary(name, kind, values, missing, found)


def _described(column: statistics_pb2.FeatureNameStatistics) -> tuple[str, str]:
    kind = column.WhichOneof("stats")
    if kind == "num_stats":
        numbers = column.num_stats
        return "numbers", f"{numbers.min:.4g} to {numbers.max:.4g}, mean {numbers.mean:.4g}"
    if kind == "bytes_stats":
        return "bytes", f"{column.bytes_stats.avg_num_bytes:,.0f} bytes on average"
    counts = value_counts(column)
    unique = int(column.string_stats.unique)
    if unique > present_count(column) / 2:
        return "text", f"{unique:,} different, {column.string_stats.avg_length:.0f} bytes on average"
    shown = ", ".join(f"{_shortened(value)} ({count:,})" for value, count in list(counts.items())[:SHOWN_VALUES])
    more = f" and {unique - SHOWN_VALUES:,} more" if unique > SHOWN_VALUES else ""
    return "text", shown + more


def _shortened(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"


@dataclass(frozen=True)
class DataSummary:
    """The data of a run, by the artifacts of TFDV.

    Attributes:
        examples: split -> number of examples.
        classes: split -> label -> number of examples; {} where the statistics do not say.
        columns: all columns.
        anomalies: split -> column -> what ExampleValidator found, in TFDV's words.
        skew: how the eval split differs from the train split.
        drift: how the train split differs from that of the model served before; None where that is not known.
        left_out: why photos were left out -> how many, see image_example_gen.file_formats.kinds_left_out.
        passed_over: what was found that is no photo -> how often.
    """

    examples: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    columns: list[ColumnSummary]
    anomalies: Mapping[str, Mapping[str, str]]
    skew: list[ColumnShift]
    drift: list[ColumnShift] | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)


def read_data_summary(run: FinishedRun) -> DataSummary | None:
    """Read the statistics, the schema and the anomalies; None where the run made no statistics."""
    if "statistics" not in run.artifacts:
        return None
    splits = read_statistics(run.artifacts["statistics"])
    schema = read_schema(run)
    drift = None
    if run.served_statistics is not None:
        before = read_statistics(run.served_statistics)
        if "train" in before and "train" in splits:
            drift = column_shifts(before["train"], splits["train"], schema)
    ingestion = artifact_json(run, "examples", REPORT_FILE)
    classes = {}
    for split, statistics in splits.items():
        label = [column for column in statistics.features if column_name(column) == run.label_column()]
        counts = class_counts(label[0]) if label else {}
        classes[split] = {run.label_name(value): count for value, count in sorted(counts.items())}
    return DataSummary(
        examples={split: int(statistics.num_examples) for split, statistics in splits.items()},
        classes=classes,
        columns=column_summaries(splits),
        anomalies={split: _anomalies(run, split) for split in splits},
        skew=column_shifts(splits["train"], splits["eval"], schema) if {"train", "eval"} <= set(splits) else [],
        drift=drift,
        left_out=kinds_left_out(ingestion),
        passed_over=ingestion.get("passed_over", {}),
    )


def _anomalies(run: FinishedRun, split: str) -> dict[str, str]:
    path = f"{run.artifacts['anomalies'].uri}/Split-{split}/{ANOMALIES_FILE}" if "anomalies" in run.artifacts else ""
    if not path or not fileio.exists(path):
        return {}
    found = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
    return {
        ".".join(anomaly.path.step) or name: anomaly.description for name, anomaly in sorted(found.anomaly_info.items())
    }
