"""Spans that differ from the one before them, through TFX's DistributionValidator."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import path_pb2
from tfx.components.distribution_validator.executor import Executor as DistributionValidatorExecutor
from tfx.proto.distribution_validator_pb2 import DistributionValidatorConfig
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, json_utils

from components.drift_gate import Executor
from components.errors import AnomaliesFound


def sales(seed=0, mean=50.0, city=("Oslo", "Rome"), income=None) -> pd.DataFrame:
    source = np.random.default_rng(seed)
    incomes = source.normal(mean, 10, 400) if income is None else [income] * 400
    return pd.DataFrame({"income": incomes, "city": source.choice(city, 400)})


@pytest.fixture
def judge(tmp_path):
    """Compares spans with the one called `previous`; answers what drift.json holds."""

    def compare(bounds: dict[str, float], **spans: pd.DataFrame) -> dict:
        statistics, anomalies, drift = (tmp_path / name for name in ("statistics", "anomalies", "drift"))
        measured = standard_artifacts.ExampleStatistics()
        measured.uri, measured.split_names = str(statistics), artifact_utils.encode_split_names(list(spans))
        for name, rows in spans.items():
            content = tfdv.generate_statistics_from_dataframe(rows).SerializeToString()
            io_utils.write_bytes_file(f"{statistics}/Split-{name}/FeatureStats.pb", content)
        found, verdict = standard_artifacts.ExampleAnomalies(), standard_artifacts.ExampleAnomalies()
        found.uri, verdict.uri = str(anomalies), str(drift)
        config = DistributionValidatorConfig()
        for column, bound in bounds.items():
            feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
            feature.distribution_comparator.jensen_shannon_divergence.threshold = bound
        DistributionValidatorExecutor().Do(
            {"statistics": [measured], "baseline_statistics": [measured]},
            {"anomalies": [found]},
            {
                "distribution_validator_config": config,
                "include_split_pairs": json_utils.dumps([(name, "previous") for name in spans if name != "previous"]),
            },
        )
        inputs = {"anomalies": [found], "statistics": [measured]}
        Executor().Do(inputs, {"drift": [verdict]}, {"previous_span": "2026-01-01"})
        return json.loads((drift / "drift.json").read_text())

    return compare


def test_a_span_like_the_one_before_passes_and_its_divergences_are_kept(judge):
    found = judge({"income": 0.1, "city": 0.1}, previous=sales(), today=sales(seed=1))
    assert found["previous"] == "2026-01-01"
    assert set(found["spans"]["today"]) == {"income", "city"}
    assert all(0 < divergence < 0.05 for divergence in found["spans"]["today"].values())


def test_a_number_that_moved_is_named_with_its_divergence_and_its_bound(judge):
    with pytest.raises(AnomaliesFound) as stopped:
        judge({"income": 0.1, "city": 0.1}, previous=sales(), good=sales(seed=1), bad=sales(seed=2, mean=80))
    (sentence,) = str(stopped.value).splitlines()
    assert sentence.startswith("span bad, column 'income': Jensen-Shannon divergence 0.")
    assert "from span 2026-01-01, expected at most 0.1" in sentence
    assert "data.spans.maximum_drift_of.income" in sentence


def test_a_category_that_was_replaced_is_named(judge):
    with pytest.raises(AnomaliesFound, match=r"column 'city': Jensen-Shannon divergence 0\.\d+ from span 2026-01-01"):
        judge({"city": 0.1}, previous=sales(), today=sales(city=("Lima", "Rome")))


def test_a_wider_bound_lets_the_same_span_pass(judge):
    found = judge({"income": 0.99}, previous=sales(), today=sales(mean=80))
    assert found["spans"]["today"]["income"] > 0.3


@pytest.mark.parametrize(("income", "what"), [("high", "text"), (None, "nothing")])
def test_a_column_that_cannot_be_compared_stops_the_run_too(judge, income, what):
    today = sales(income=income) if income else sales().drop(columns="income")
    with pytest.raises(AnomaliesFound, match=f"column 'income' holds {what}, and numbers in span 2026-01-01"):
        judge({"income": 0.1}, previous=sales(), today=today)
