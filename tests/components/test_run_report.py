"""The report's figures, gates and inputs."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from PIL import Image
from sklearn import metrics
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.drift import ColumnShift, column_shifts, shift_sentence
from components.run_report.charts import latency_chart, shift_chart
from components.run_report.evaluation import shown_input
from components.run_report.finished_run import FinishedRun, RunArtifact, ServedModel, Step
from components.run_report.gates import Check, Gate, compatibility_gate, drift_gate, headline
from components.run_report.pages import common_examples, config_differences, render
from components.run_report.statistics import (
    EvalPredictions,
    calibration,
    class_results,
    confusion_matrix,
    metric_estimates,
    threshold_curve,
    unknown_result,
    wilson_interval,
)
from serving.answers import UnknownRule, conformal_threshold
from tests.components.test_baseline import COLUMNS, model
from trainers.roc import area_under_roc


def predictions(examples: int = 400, classes: int = 3, seed: int = 0, skill: float = 1.5) -> EvalPredictions:
    """A model that knows something, and a baseline that knows less."""
    source = np.random.default_rng(seed)
    truth = source.integers(0, classes, examples)

    def model(strength: float) -> np.ndarray:
        logits = source.normal(size=(examples, classes)) + strength * np.eye(classes)[truth]
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)

    labels = [f"class {number}" for number in range(classes)]
    ids = [f"{number:064x}" for number in range(examples)]
    return EvalPredictions(ids, labels, truth, model(skill), model(skill / 3))


def test_the_interval_of_a_share_is_wilsons():
    interval = wilson_interval(8, 10)
    assert (interval.value, round(interval.low, 4), round(interval.high, 4)) == (0.8, 0.4902, 0.9433)


@pytest.mark.parametrize(("count", "total"), [(0, 5), (5, 5), (1, 1)])
def test_the_interval_of_a_share_holds_the_share_and_stays_between_0_and_1(count, total):
    interval = wilson_interval(count, total)
    assert 0 <= interval.low <= count / total <= interval.high <= 1
    assert interval.high - interval.low > 0.3


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(8, 10, 0.4901624715, 0.9433178485), (0, 5, 0.0, 0.4344824648), (37, 1000, 0.0269611809, 0.0505823975)],
)
def test_the_interval_of_a_share_has_the_bounds_of_the_formula(count, total, low, high):
    interval = wilson_interval(count, total)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-7), pytest.approx(high, abs=1e-7))


@pytest.mark.parametrize(("rows", "coverage"), [(20, 0.9), (99, 0.9), (200, 0.55)])
def test_label_sets_hold_the_true_label_as_often_as_was_asked_for_in_the_mean_over_calibrations(rows, coverage):
    chance = np.random.default_rng(rows)
    # A model that knows something, of four classes; the truth is drawn by other probabilities than it says.
    found = []
    for _ in range(400):
        logits = chance.normal(size=(rows + 500, 4))
        truth = (logits + chance.gumbel(size=logits.shape)).argmax(axis=1)
        said = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
        of_truth = said[np.arange(len(truth)), truth].astype(np.float32)
        found.append((of_truth[rows:] >= np.float32(conformal_threshold(of_truth[:rows], coverage))).mean())
    # It is ceil((n + 1) coverage) / (n + 1) exactly, but for the margin.
    assert np.mean(found) == pytest.approx(np.ceil((rows + 1) * coverage) / (rows + 1), abs=0.01)


def test_a_coverage_that_needs_more_rows_is_refused_and_the_fewest_are_enough():
    with pytest.raises(ValueError, match="needs 99 labelled rows that the model did not learn from, received 98"):
        conformal_threshold(np.linspace(0.1, 0.9, 98), 0.99)
    assert 0.0999 <= conformal_threshold(np.linspace(0.1, 0.9, 99), 0.99) < 0.1


@pytest.mark.parametrize("calibrated_on", ["out_of_fold", "half_of_eval"])
def test_unknown_is_measured_on_rows_that_it_was_not_calibrated_on(calibrated_on):
    found = predictions(examples=600)
    used = np.array([calibrated_on == "out_of_fold" or int(id_, 16) % 2 == 1 for id_ in found.ids])
    result = unknown_result(found, UnknownRule("unsure", 0.3, 0.9, calibrated_on, 300))
    sets = found.probabilities[used] >= np.float32(0.3)
    best, truth = found.predicted[used], found.truth[used]
    answered = sets.sum(axis=1) == 1
    assert 0.2 < answered.mean() < 0.9
    assert result.examples == used.sum()
    assert result.unknown.value == pytest.approx((~answered).mean())
    assert result.accuracy.value == pytest.approx((best == truth)[answered].mean())
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high
    assert result.wrong.value == pytest.approx(((best != truth) & answered).mean())
    assert result.coverage.value == pytest.approx(sets[np.arange(len(truth)), truth].mean())
    assert "at least 0.9" in result.guarantee and "at most 0.1 of all rows" in result.guarantee
    assert ("as far as the models of the folds" in result.guarantee) == (calibrated_on == "out_of_fold")


def test_unknown_by_confidence_promises_no_coverage():
    found = predictions(examples=600)
    result = unknown_result(found, UnknownRule("unsure", 0.6))
    assert result.unknown.value == pytest.approx((found.probabilities.max(axis=1) < np.float32(0.6)).mean())
    assert (result.examples, result.coverage, result.guarantee) == (600, None, "")


def test_a_share_of_nothing_has_no_interval():
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_are_scikit_learns_and_lie_in_their_intervals(classes):
    found = predictions(classes=classes)
    estimates = {one.name: one for one in metric_estimates(found)}
    for probabilities, models in ((found.probabilities, "candidate"), (found.baseline, "baseline")):
        scores = probabilities[:, 1] if classes == 2 else probabilities
        expected = {
            "accuracy": metrics.accuracy_score(found.truth, probabilities.argmax(axis=1)),
            "cross_entropy": metrics.log_loss(found.truth, probabilities.astype(np.float64)),
            "auc": metrics.roc_auc_score(found.truth, scores, multi_class="ovr"),
        }
        for name, value in expected.items():
            interval = getattr(estimates[name], models)
            assert interval.value == pytest.approx(value, abs=1e-5)
            assert interval.low < interval.value < interval.high


def test_the_change_is_the_difference_and_is_surer_than_the_two_intervals_suggest():
    found = predictions(examples=1000)
    for one in metric_estimates(found):
        assert one.change.value == pytest.approx(one.candidate.value - one.baseline.value)
        assert one.change.low < one.change.value < one.change.high
        assert one.change.low > one.candidate.low - one.baseline.high
        assert one.change.high < one.candidate.high - one.baseline.low


def test_a_model_compared_with_itself_changes_by_nothing():
    found = predictions()
    same = EvalPredictions(found.ids, found.labels, found.truth, found.probabilities, found.probabilities)
    for one in metric_estimates(same):
        assert (one.change.value, one.change.low, one.change.high) == (0, 0, 0)


def test_intervals_are_the_same_each_time_and_narrower_with_more_examples():
    few, many = metric_estimates(predictions(200))[1], metric_estimates(predictions(3200))[1]
    assert metric_estimates(predictions(200))[1] == few
    ratio = (few.candidate.high - few.candidate.low) / (many.candidate.high - many.candidate.low)
    assert 3 < ratio < 5.5  # 16 times the examples, a quarter of the width


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says():
    everything = predictions(20000)
    truth = next(one.candidate.value for one in metric_estimates(everything) if one.name == "cross_entropy")
    held = 0
    for start in range(0, 20000, 200):
        part = slice(start, start + 200)
        sample = EvalPredictions(
            everything.ids[part], everything.labels, everything.truth[part], everything.probabilities[part]
        )
        interval = next(one.candidate for one in metric_estimates(sample) if one.name == "cross_entropy")
        held += interval.low <= truth <= interval.high
    assert 88 <= held <= 100


def test_the_confusion_matrix_and_the_classes_are_scikit_learns():
    found = predictions()
    matrix = confusion_matrix(found)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(found.truth, found.predicted))
    precision, recall, _, support = metrics.precision_recall_fscore_support(found.truth, found.predicted)
    results = class_results(found)
    assert [one.label for one in results] == ["class 0", "class 1", "class 2"]
    np.testing.assert_allclose([one.recall.value for one in results], recall)
    np.testing.assert_allclose([one.precision.value for one in results], precision)
    assert [one.examples for one in results] == support.tolist()


def test_a_class_without_examples_has_no_recall():
    found = EvalPredictions(["a"], ["x", "y"], np.array([0]), np.array([[0.9, 0.1]], np.float32))
    present, absent = class_results(found)
    assert (present.recall.value, absent.recall, absent.precision) == (1, None, None)


def test_the_curves_are_scikit_learns():
    source = np.random.default_rng(1)
    positive, scores = source.random(300) < 0.3, np.round(source.random(300), 2)
    curve = threshold_curve(positive, scores)
    rate, recall, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, rate)
    np.testing.assert_allclose(curve.recall, recall)
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(positive, scores))


def test_there_is_no_curve_of_one_kind_only():
    assert threshold_curve(np.array([True, True]), np.array([0.1, 0.9])) is None


def test_calibration_compares_how_sure_with_how_often_right():
    probabilities = np.array([[0.92, 0.08]] * 4 + [[0.4, 0.6]] * 2, np.float32)
    found = calibration(EvalPredictions(list("abcdef"), ["x", "y"], np.array([0, 0, 0, 1, 1, 1]), probabilities))
    low, high = found.bins
    assert (low.examples, low.accuracy.value) == (2, 1.0)
    assert (high.examples, high.accuracy.value) == (4, 0.75)
    assert found.expected_error == pytest.approx((2 * 0.4 + 4 * 0.17) / 6, abs=1e-6)


def test_two_runs_are_compared_on_the_examples_they_share_with_their_labels_lined_up():
    before = EvalPredictions(
        ["a", "b", "c"], ["y", "x"], np.array([1, 0, 0]), np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]], np.float32)
    )
    after = EvalPredictions(["c", "d", "a"], ["x", "y"], np.array([1, 0, 0]), np.full([3, 2], 0.5, np.float32))
    common = common_examples(before, after)
    assert common.ids == ["c", "a"]
    np.testing.assert_allclose(common.baseline, [[0.3, 0.7], [0.9, 0.1]])
    assert common_examples(before, EvalPredictions(["z"], ["x", "y"], np.array([0]), np.ones([1, 2]))) is None


def test_models_of_texts_that_were_tried_are_shown_with_their_intervals_and_milliseconds():
    figures = {"cross_entropy": [0.4, 0.35, 0.45], "accuracy": [0.8, 0.75, 0.85], "auc": [0.9, 0.85, 0.95], "ece": 0.02}
    one = {**figures, "milliseconds": 1.25, "seconds": 3.5}
    tried = {"kept": "static", "why": "its cross entropy is the smallest of 2", "rows": 1200, "folds": 5}
    page = render("tried_texts.html", tried={**tried, "members": {"ngrams": one, "static": one}})
    assert "Kept: <strong>static</strong>, for its cross entropy is the smallest of 2." in page
    assert "1,200 rows of the train split" in page and "(5 folds)" in page
    assert page.count("0.8000 (0.7500 to 0.8500)") == page.count("0.4000 (0.3500 to 0.4500)") == 2
    assert page.count('<td class="number">1.25</td><td class="number">3.5</td>') == 2


def test_backbones_that_were_tried_are_shown_with_their_photos_intervals_and_blocks():
    one = {"accuracy": [0.8, 0.75, 0.85], "photos": 400, "milliseconds": 44.5, "seconds": 50.2, "blocks": ["mixed3"]}
    worse = {**one, "accuracy": [0.5, 0.45, 0.55], "photos": 150, "blocks": ["add_1", "add_2"]}
    tried = {"kept": "InceptionV3", "why": "it tells most photos", "left_out": ["ConvNeXtTiny"]}
    page = render("tried_backbones.html", tried={**tried, "members": {"InceptionV3": one, "MobileNet": worse}})
    assert "Kept: <strong>InceptionV3</strong>, for it tells most photos." in page
    assert "There are no weights of ConvNeXtTiny." in page
    assert '<td class="number">400</td><td class="number">0.8000 (0.7500 to 0.8500)</td>' in page
    assert '<td class="number">150</td><td class="number">0.5000 (0.4500 to 0.5500)</td>' in page
    assert "<td>mixed3</td>" in page and "<td>add_1, add_2</td>" in page


def test_only_the_keys_that_differ_are_named():
    before = {"name": "a", "trainer": {"epochs": 3, "l2": 0.1}}
    after = {"name": "a", "trainer": {"epochs": 5, "l2": 0.1, "seed": 0}}
    assert config_differences(before, after) == [("trainer.epochs", "3", "5"), ("trainer.seed", "", "0")]


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


def example(**features) -> bytes:
    result = tf.train.Example()
    for name, value in features.items():
        values = result.features.feature[name]
        if isinstance(value, bytes):
            values.bytes_list.value.append(value)
        elif isinstance(value, int):
            values.int64_list.value.append(value)
        elif isinstance(value, float):
            values.float_list.value.append(value)
    return result.SerializeToString()


def photo(width: int, height: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, form)
    return buffer.getvalue()


def test_a_row_is_shown_column_by_column_without_its_label():
    shown = shown_input(example(age=63, thal=b"fixed", oldpeak=2.3, cp=None, target=1), ["target"])
    assert shown.fields == (("age", "63"), ("cp", "(missing)"), ("oldpeak", "2.3"), ("thal", "fixed"))
    assert shown.picture == ""


def test_a_long_text_is_cut():
    ((_, text),) = shown_input(example(text=("word " * 1000).encode()), []).fields
    assert len(text) < 650 and text.endswith("…")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_photo_is_shown_small(form):
    shown = shown_input(example(image=photo(900, 300, form), path=b"a/1"), [])
    kind, _, data = shown.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(small.size) == 160 and small.size[0] > 2 * small.size[1]
    red, green, _ = small.getpixel((80, 20))
    assert red > 150 > 90 > green
    assert shown.fields == (("path", "a/1"),)


def test_a_photo_that_cannot_be_opened_is_left_out():
    assert shown_input(example(image=photo(50, 50, "PNG")[:60]), []).picture == ""


@pytest.fixture(scope="module")
def shifts():
    """Two halves of one source, but for two columns that move."""
    source = np.random.default_rng(0)
    before, after = (
        tfdv.generate_statistics_from_dataframe(
            pd.DataFrame(
                {
                    "same_number": source.normal(size=rows),
                    "same_text": source.choice(["a", "b", "c"], rows),
                    "moved_number": source.normal(moved, size=rows),
                    "moved_text": source.choice(["a", "b"], rows, p=[0.5 + moved / 5, 0.5 - moved / 5]),
                    "free_text": [f"{moved} {row}" for row in range(rows)],
                }
            )
        )
        for rows, moved in ((2000, 0.0), (400, 1.0))
    )
    return column_shifts(before.datasets[0], after.datasets[0], tfdv.infer_schema(before))


def test_only_the_columns_that_moved_are_called_shifted(shifts):
    assert {shift.column for shift in shifts if shift.shifted} == {"moved_number", "moved_text"}
    assert {shift.column for shift in shifts} == {"moved_number", "moved_text", "same_number", "same_text"}
    assert all(0 < shift.distance < 1 for shift in shifts)


def test_the_shift_is_said_in_words(shifts):
    said = shift_sentence(shifts, "the eval split", "the train split")
    assert said.startswith("2 of 4 columns of the eval split differ from the train split by more than chance: moved_")
    same = [shift for shift in shifts if not shift.shifted]
    assert shift_sentence(same, "A", "B") == "No column of A differs from B by more than chance explains."


def test_the_area_under_the_curve_counts_ties_half_and_weights_as_copies():
    source = np.random.default_rng(3)
    positive, scores = source.random(200) < 0.4, source.integers(0, 10, 200) / 10
    weights = source.integers(0, 4, (2, 200)).astype(np.float32)
    expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(area_under_roc(positive, scores, weights), expected, rtol=1e-6)


def test_the_area_is_unknown_where_a_resample_has_one_kind_only():
    assert np.isnan(area_under_roc(np.array([True, False]), np.array([0.1, 0.2]), np.array([[1.0, 0.0]])))


@pytest.mark.parametrize("seed", range(5))
def test_without_weights_it_is_scikit_learns(seed):
    source = np.random.default_rng(seed)
    positive = source.random(500) < 0.3
    scores = np.round(source.normal(size=500) + positive, 1)
    np.testing.assert_allclose(area_under_roc(positive, scores), [metrics.roc_auc_score(positive, scores)], rtol=1e-12)
