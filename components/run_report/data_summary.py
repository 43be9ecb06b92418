"""What a run learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.data_gate.column_statistics import class_counts, column_name
from components.data_gate.executor import ANOMALIES_FILE
from components.run_report.column_shift import ColumnShift, column_shifts
from components.run_report.column_summary import ColumnSummary, column_summaries
from components.run_report.finished_run import FinishedRun
from components.run_report.read_schema import read_schema
from components.run_report.read_statistics import read_statistics


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
    """

    examples: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    columns: list[ColumnSummary]
    anomalies: Mapping[str, Mapping[str, str]]
    skew: list[ColumnShift]
    drift: list[ColumnShift] | None


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
    )


def _anomalies(run: FinishedRun, split: str) -> dict[str, str]:
    path = f"{run.artifacts['anomalies'].uri}/Split-{split}/{ANOMALIES_FILE}" if "anomalies" in run.artifacts else ""
    if not path or not fileio.exists(path):
        return {}
    found = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
    return {
        ".".join(anomaly.path.step) or name: anomaly.description for name, anomaly in sorted(found.anomaly_info.items())
    }
