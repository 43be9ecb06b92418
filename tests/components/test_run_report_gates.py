"""What a report says of the gates that only retraining has, and how its answer counts them."""

from __future__ import annotations

import json

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.run_report.charts import latency_chart, shift_chart
from components.run_report.drift import ColumnShift
from components.run_report.gates import Check, Gate, compatibility_gate, drift_gate, headline
from components.run_report.run import FinishedRun, RunArtifact, ServedModel, Step
from tests.components.test_compatibility_check import COLUMNS, model


def finished(step: str, state: str, artifacts=None, ended="", class_changes="stop") -> FinishedRun:
    config = {"data": {"spans": {"class_changes": class_changes}}}
    return FinishedRun("shop", "1", config, artifacts or {}, (Step(step, state, 1.0),), ended)


@pytest.fixture
def span_anomalies(tmp_path) -> RunArtifact:
    """What DistributionValidator leaves of two spans: the second has a column that moved, and one that became text."""
    measured = {"4": {"age": 0.02, "income": 0.05}, "5": {"age": 0.01, "income": 0.4}}
    for span, columns in measured.items():
        anomalies = anomalies_pb2.Anomalies()
        for column, divergence in columns.items():
            found = anomalies.drift_skew_info.add()
            found.path.step.append(column)
            found.drift_measurements.add(value=divergence, threshold=0.1)
        if span == "5":
            anomalies.anomaly_info["income"].path.step.append("income")
            anomalies.anomaly_info["city"].path.step.append("city")
        folder = tmp_path / f"SplitPair-{span}_previous"
        folder.mkdir()
        (folder / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
    return RunArtifact(str(tmp_path))


def test_of_several_spans_the_one_that_is_furthest_away_is_shown_for_each_column(span_anomalies):
    gate = drift_gate(finished("DriftGate", "failed", {"span_anomalies": span_anomalies}, "span 5 drifted"))
    assert (gate.verdict, gate.reasons[0]) == ("failed", "span 5 drifted")
    assert gate.checks == (
        Check("city can be compared", "not in span 5", False),
        Check("age moved by at most 0.1", "0.0200, in span 4", True),
        Check("income moved by at most 0.1", "0.4000, in span 5", False),
    )


def test_spans_that_pass_are_named_with_what_they_were_compared_with(span_anomalies, tmp_path):
    (tmp_path / "drift.json").write_text(json.dumps({"previous": "3", "spans": {"4": {"age": 0.02}, "5": {}}}))
    gate = drift_gate(finished("DriftGate", "done", {"drift": RunArtifact(str(tmp_path))}))
    assert gate.verdict == "passed"
    assert gate.reasons[0] == "Spans 4, 5 were compared with span 3; no column moved further than the config allows."


def test_a_gate_that_had_nothing_to_compare_says_why_it_was_left_out():
    nothing = {"baseline_model": RunArtifact("", {"has_model": 0})}
    gate = drift_gate(finished("DataGate", "done", nothing))
    assert (gate.verdict, gate.reasons[0].split(",")[0]) == ("not needed", "Nothing was served before this run")
    assert "no span is new to the served model" in drift_gate(finished("DataGate", "done")).reasons[0]


@pytest.fixture
def models(tmp_path):
    """Artifacts of the served model, version 7, and of a candidate that differs so."""

    def make(**changed) -> dict[str, RunArtifact]:
        served, candidate = model(tmp_path / "served"), model(tmp_path / "candidate", **changed)
        baseline = RunArtifact(served.uri, {"has_model": 1, "served_version": 7})
        return {"baseline_model": baseline, "model": RunArtifact(candidate.uri)}

    return make


def test_a_model_that_clients_can_ask_as_before_is_compared_signature_by_signature(models):
    gate = compatibility_gate(finished("CompatibilityCheck", "done", models()))
    assert gate.verdict == "passed"
    assert gate.reasons == ("Who asks version 7, served when the run began, can ask the new model in the same way.",)
    assert [(check.demand, check.found, check.holds) for check in gate.checks] == [
        ("classify: inputs and outputs as before", "the same", True),
        ("serving_default: inputs and outputs as before", "the same", True),
        ("classes as before", "the same 2 classes", True),
    ]


def test_what_clients_would_notice_is_said_where_it_is(models):
    changed = models(columns=COLUMNS | {"income": COLUMNS["age"]}, labels=("maybe", "no", "yes"))
    gate = compatibility_gate(finished("CompatibilityCheck", "failed", changed, "new input\nnew class"))
    assert (gate.verdict, gate.reasons) == ("failed", ("new input", "new class"))
    classify, _, classes = gate.checks
    assert classify.found.startswith("classify: new input 'income', int64 [-1]") and not classify.holds
    assert classes.found.startswith("new class 'maybe'") and not classes.holds


def test_classes_that_may_change_are_named_and_hold(models):
    changed = models(labels=("maybe", "no", "yes"))
    gate = compatibility_gate(finished("CompatibilityCheck", "done", changed, class_changes="allow"))
    assert gate.checks[-1].holds and gate.checks[-1].found.startswith("new class 'maybe'")
    assert "data.spans.class_changes is allow" in gate.checks[-1].demand


def test_a_check_that_the_run_did_not_come_to_was_not_reached():
    assert compatibility_gate(finished("CompatibilityCheck", "not reached")).verdict == "not reached"


def test_the_answer_counts_the_gates_that_judged_and_names_the_demands():
    pushed = RunArtifact("", {"pushed": 1, "reason": "published as version 2"})
    gates = [
        Gate("DriftGate", "?", "not needed", ()),
        Gate("Evaluator", "?", "passed", (), (Check("auc at least 0.9", "0.95", True),)),
    ]
    found = headline(FinishedRun("shop", "1", artifacts={"pushed_model": pushed}, served=ServedModel(2, "")), gates)
    assert found.reasons == (
        "All 1 gates passed. Published as version 2.",
        "DriftGate had nothing to judge.",
        "It is as good as the config demands: auc at least 0.9: 0.95.",
    )


def test_the_picture_of_latency_says_what_it_shows():
    measured = {"classify": {"1": {"p50": 0.5, "p99": 2.25}, "32": {"p50": 4, "p99": 80}}}
    drawn = latency_chart(measured)
    said = "classify, 1 example 0.50 and 2.25; classify, 32 examples 4.00 and 80.00"
    assert f"Milliseconds of a request, median and 99th percentile: {said}" in drawn


def test_the_picture_of_shifts_says_what_chance_explains():
    drawn = shift_chart([ColumnShift("age", 0.25, 0.0625), ColumnShift("sex", 0.01, 0.03)], "from before")
    assert "from before: age 0.250, by chance up to 0.062; sex 0.010, by chance up to 0.030" in drawn
