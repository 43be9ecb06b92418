import json
from pathlib import Path

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.example_validator.executor import Executor as ExampleValidatorExecutor
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import io_utils

from components.data_gate.component import DataGate
from components.data_gate.executor import Executor
from components.errors import AnomaliesFound, BrokenInput

SCHEMA = """
feature { name: "thal" type: BYTES domain: "thal" }
feature { name: "target" type: INT }
string_domain { name: "thal" value: "fixed" value: "normal" }
"""
GOOD = pd.DataFrame({"thal": ["fixed", "normal"] * 5, "target": [0, 1] * 5})


@pytest.fixture
def run_gate(artifact):
    """Statistics and anomalies as TFX's components write them, then the gate; answers verdict.json."""

    def run(train: pd.DataFrame, evaluation: pd.DataFrame) -> dict:
        statistics = artifact(standard_artifacts.ExampleStatistics, "statistics", ("train", "eval"))
        for split, frame in {"train": train, "eval": evaluation}.items():
            io_utils.write_bytes_file(
                f"{statistics.uri}/Split-{split}/FeatureStats.pb",
                tfdv.generate_statistics_from_dataframe(frame).SerializeToString(),
            )
        schema = artifact(standard_artifacts.Schema, "schema")
        io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", text_format.Parse(SCHEMA, schema_pb2.Schema()))
        anomalies = artifact(standard_artifacts.ExampleAnomalies, "anomalies")
        ExampleValidatorExecutor().Do({"statistics": [statistics], "schema": [schema]}, {"anomalies": [anomalies]}, {})
        verdict = artifact(standard_artifacts.ExampleAnomalies, "verdict")
        try:
            Executor().Do(
                {"statistics": [statistics], "schema": [schema], "anomalies": [anomalies]},
                {"verdict": [verdict]},
                {"label": "target", "schema_is_curated": 1, "minimum_examples": 5, "schema_path": "heart.pbtxt"},
            )
        finally:
            run.verdict = json.loads(Path(verdict.uri, "verdict.json").read_text())
        return run.verdict

    return run


def test_good_data_passes_and_the_verdict_is_recorded(run_gate):
    assert run_gate(GOOD, GOOD.head(6)) == {
        "stopped": False,
        "reasons": [],
        "warnings": [],
        "examples": {"train": 10, "eval": 6},
        "classes": {"train": {"0": 5, "1": 5}, "eval": {"0": 3, "1": 3}},
    }


def test_an_anomaly_in_the_eval_split_stops_the_run(run_gate):
    with pytest.raises(AnomaliesFound) as stopped:
        run_gate(GOOD, GOOD.replace("fixed", "broken"))
    assert str(stopped.value) == (
        "eval split, column 'thal': the schema expects text, one of 'fixed', 'normal', found 'broken' (5 rows); "
        "correct the values, or list them in heart.pbtxt."
    )
    assert run_gate.verdict["stopped"]
    assert run_gate.verdict["reasons"] == [str(stopped.value)]


def test_what_cannot_be_learned_from_is_broken_input(run_gate):
    with pytest.raises(BrokenInput, match="train split: the label column 'target' holds one value only, '0'"):
        run_gate(GOOD.assign(target=0), GOOD)


def test_the_component_takes_the_channels_and_answers_a_verdict():
    gate = DataGate(
        anomalies=channel_utils.as_channel([standard_artifacts.ExampleAnomalies()]),
        statistics=channel_utils.as_channel([standard_artifacts.ExampleStatistics()]),
        schema=channel_utils.as_channel([standard_artifacts.Schema()]),
        label="target",
        schema_is_curated=True,
    )
    assert gate.exec_properties == {
        "label": "target",
        "schema_is_curated": 1,
        "minimum_examples": 1,
        "schema_path": "",
    }
    assert gate.outputs["verdict"].type == standard_artifacts.ExampleAnomalies
