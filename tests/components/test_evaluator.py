"""The Evaluator: metrics, thresholds, and the comparison with the served model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tfx.types import standard_artifacts

from components.evaluator.classification import (
    MEASURED,
    NUMBERS_EACH,
    STATISTICS,
    _SumRows,
    _value,
    interval,
    slice_statistics,
    sums_of,
)
from components.evaluator.component import Executor, PredictExamples
from components.evaluator.eval_config import (
    CANDIDATE,
    LABEL_KEY,
    PREDICTION_KEY,
    WEIGHT_KEY,
    aligned,
    overall_metrics,
    slice_bounds,
)
from components.evaluator.options import EvaluationOptions
from pipeline.runners.local import BEAM_PIPELINE_ARGS
from serving.answers import Decision, write_decision
from serving.signatures.common import SERVE_EXAMPLES, TRANSFORM_FEATURES, Labels, ServedModel, export

SCORES = pd.DataFrame(
    {
        "label": [1, 1, 0, 0],
        "sex": ["f", "m", "f", "m"],
        "candidate_score": [0.9, 0.8, 0.7, 0.1],
        "baseline_score": [0.1, 0.2, 0.3, 0.4],
    }
)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> str:
    """An evaluation of two models, overall and by slice, as TFMA writes it."""
    models = ["candidate", "baseline"]
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                name=name, label_key="label", prediction_key=f"{name}_score", is_baseline=name == "baseline"
            )
            for name in models
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name="BinaryAccuracy", config='{"name": "accuracy"}'),
                    config_pb2.MetricConfig(class_name="ExampleCount", config='{"name": "example_count"}'),
                ],
                model_names=models,
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["sex"])],
    )
    path = str(tmp_path_factory.mktemp("evaluation"))
    tfma.analyze_raw_data(SCORES, config, output_path=path)
    return path


def test_only_the_candidates_metrics_on_all_examples_are_taken(evaluation):
    # The baseline's accuracy is 0.5, the candidate's on the women 0.5 and on the men 1.
    assert overall_metrics(evaluation) == {"accuracy": 0.75, "example_count": 4.0}


EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")
# score, label: the model answers "yes" with probability `score`. The last one has no label.
ROWS = [(0.9, "yes"), (0.8, "no"), (0.6, "yes"), (0.3, "no"), (0.2, "no"), (0.1, None)]


def export_model(path: Path, labels: Sequence[str], shift: float = 0.0) -> None:
    """A model whose probability of "yes" is the feature `score`, moved by `shift`."""
    (path / "files").mkdir(parents=True)
    vocabulary = path / "files/labels"
    vocabulary.write_text("".join(f"{label}\n" for label in labels))
    lookup = Labels(str(vocabulary))
    spec = {"score": tf.io.FixedLenFeature([], tf.float32), "label": tf.io.FixedLenFeature([], tf.string, "")}

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        yes = tf.io.parse_example(examples, spec)["score"] + shift
        columns = {"yes": yes, "no": 1 - yes}
        return {"probabilities": tf.stack([columns.get(label, tf.zeros_like(yes)) for label in labels], axis=1)}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        text = tf.io.parse_example(examples, spec)["label"]
        matches = tf.equal(text[:, tf.newaxis], tf.constant(list(labels)))
        # The lookup brings the vocabulary into the export.
        number = tf.where(tf.reduce_any(matches, axis=1), tf.argmax(matches, axis=1), -1)
        return {"label": number, "name": lookup.answered(tf.cast(matches, tf.float32))}

    model = ServedModel(
        {
            SERVE_EXAMPLES: (serve_examples, {"examples": EXAMPLES}),
            TRANSFORM_FEATURES: (transform_features, {"examples": EXAMPLES}),
        },
        {"labels": lookup},
    )
    export(model, str(path / "Format-Serving"))


def write_examples(
    folder: Path, rows: Sequence[tuple[float, str | None, str]], weights: Sequence[float] = ()
) -> standard_artifacts.Examples:
    """An eval split of scores, labels and groups, and of weights where there are any."""
    (folder / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "Split-eval/data.gz"), "GZIP") as writer:
        for number, (score, label, group) in enumerate(rows):
            example = tf.train.Example()
            if weights:
                example.features.feature["w"].float_list.value.append(weights[number])
            example.features.feature["score"].float_list.value.append(score)
            if label:
                example.features.feature["label"].bytes_list.value.append(label.encode())
            example.features.feature["group"].bytes_list.value.append(group.encode())
            writer.write(example.SerializeToString())
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(folder), '["eval"]'
    return artifact


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> standard_artifacts.Examples:
    return write_examples(tmp_path_factory.mktemp("examples"), [(*row, "a") for row in ROWS])


def model_artifact(path: Path, has_model: int | None = None) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri = str(path)
    if has_model is not None:
        artifact.set_int_custom_property("has_model", has_model)
    return artifact


def evaluate(
    examples, model, baseline, options: EvaluationOptions, folder: Path, positive: str = "", weight: str = ""
) -> standard_artifacts.ModelBlessing:
    blessing, evaluation = standard_artifacts.ModelBlessing(), standard_artifacts.ModelEvaluation()
    blessing.uri, evaluation.uri = str(folder / "blessing"), str(folder / "evaluation")
    context = Executor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(
        {"examples": [examples], "model": [model], "baseline_model": [baseline]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"options": options.model_dump_json(), "split": "eval", "positive": positive, "weight": weight},
    )
    return blessing


@pytest.fixture(scope="module")
def candidate(tmp_path_factory) -> standard_artifacts.Model:
    path = tmp_path_factory.mktemp("candidate")
    export_model(path, ["no", "yes"])
    return model_artifact(path)


def test_metrics_are_those_of_the_rows_with_a_label(examples, candidate, tmp_path):
    options = EvaluationOptions(at_least={"accuracy": 0.8, "auc": 0.83}, at_most={"cross_entropy": 0.6})
    blessing = evaluate(examples, candidate, model_artifact(tmp_path, has_model=0), options, tmp_path)
    metrics = overall_metrics(str(tmp_path / "evaluation"))
    assert metrics["example_count"] == 5
    assert metrics["accuracy"] == pytest.approx(4 / 5)
    # One of the six pairs of a "yes" and a "no" is in the wrong order.
    assert metrics["auc"] == pytest.approx(5 / 6, abs=1e-3)
    # The mean of -ln of 0.9, 0.2, 0.6, 0.7 and 0.8.
    assert metrics["cross_entropy"] == pytest.approx(0.56109, abs=1e-4)
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("reason") == ""
    assert (tmp_path / "blessing/BLESSED").exists()


def test_tfma_gets_labels_probabilities_weights_and_columns_of_slices_alone_of_rows_with_a_label(candidate, tmp_path):
    rows = [(0.9, "yes", "a"), (0.2, None, "b"), (0.4, "no", "c")]
    write_examples(tmp_path, rows, weights=[2.0, 1.0, 0.5])
    records = list(tf.data.TFRecordDataset(f"{tmp_path}/Split-eval/data.gz", "GZIP").as_numpy_iterator())
    predict = PredictExamples({CANDIDATE: f"{candidate.uri}/Format-Serving"}, "w", ["group", "nowhere"])
    predict.setup()
    (batch,) = predict.process(records)
    assert list(predict.process(records[1:2])) == []  # nothing to measure
    predict.teardown()
    found = batch.to_pydict()
    assert found.pop(PREDICTION_KEY.format(model=CANDIDATE)) == [pytest.approx([0.1, 0.9]), pytest.approx([0.6, 0.4])]
    assert found == {LABEL_KEY: [[1], [0]], WEIGHT_KEY: [[2.0], [0.5]], "group": [[b"a"], [b"c"]]}


def test_a_missed_threshold_is_named_with_its_value(examples, candidate, tmp_path):
    options = EvaluationOptions(at_least={"accuracy": 0.95}, at_most={"cross_entropy": 0.2})
    blessing = evaluate(examples, candidate, model_artifact(tmp_path, has_model=0), options, tmp_path)
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_string_custom_property("reason") == (
        "accuracy is 0.8000, expected at least 0.95; cross_entropy is 0.5611, expected at most 0.2"
    )
    assert (tmp_path / "blessing/NOT_BLESSED").exists()


def test_a_worse_model_than_the_one_served_now_is_not_blessed_though_their_labels_are_ordered_otherwise(
    examples, candidate, tmp_path
):
    worse = tmp_path / "worse"
    export_model(worse, ["yes", "no"], shift=-0.15)
    served, better = candidate, model_artifact(worse)
    served.set_int_custom_property("has_model", 1)
    options = EvaluationOptions(at_least={"accuracy": 0.1}, may_worsen_by={"cross_entropy": 0.0})
    # With 0.15 less for each "yes": -ln of 0.75, 0.35, 0.45, 0.85 and 0.95 have the mean 0.4702, which is better.
    blessing = evaluate(examples, better, served, options, tmp_path / "better")
    assert blessing.get_string_custom_property("reason") == ""
    better.set_int_custom_property("has_model", 1)
    blessing = evaluate(examples, candidate, better, options, tmp_path / "worsened")
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_string_custom_property("reason").startswith("cross_entropy changed by +0.09")


def test_probabilities_are_lined_up_by_label_and_an_unknown_label_has_none():
    lined_up = aligned(tf.constant([[0.7, 0.3]]).numpy(), ["b", "a"], ["a", "b", "c"])
    assert lined_up.tolist() == [[pytest.approx(0.3), pytest.approx(0.7), 0]]


def test_without_any_label_a_model_is_blessed_where_nothing_is_demanded_of_it(candidate, tmp_path):
    (tmp_path / "examples/Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(tmp_path / "examples/Split-eval/data.gz"), "GZIP") as writer:
        for score, label in [(0.9, ""), (0.2, "perhaps")]:
            example = tf.train.Example()
            example.features.feature["score"].float_list.value.append(score)
            example.features.feature["label"].bytes_list.value.append(label.encode())
            writer.write(example.SerializeToString())
    unlabelled = standard_artifacts.Examples()
    unlabelled.uri, unlabelled.split_names = str(tmp_path / "examples"), '["eval"]'
    nothing_served = model_artifact(tmp_path, has_model=0)
    blessing = evaluate(unlabelled, candidate, nothing_served, EvaluationOptions(), tmp_path / "free")
    assert blessing.get_int_custom_property("blessed") == 1
    assert "accuracy" not in overall_metrics(str(tmp_path / "free/evaluation"))
    demanding = EvaluationOptions(at_least={"accuracy": 0.5})
    blessing = evaluate(unlabelled, candidate, nothing_served, demanding, tmp_path / "demanding")
    assert blessing.get_int_custom_property("blessed") == 0
    assert "no example of the eval split has a label of the model" in blessing.get_string_custom_property("reason")


def rows_of(group: str, scores: Sequence[tuple[float, str, int]]) -> list[tuple[float, str, str]]:
    return [(score, label, group) for score, label, count in scores for _ in range(count)]


# Of the label "yes": in group a 45 of 50 are found, in b 25 of 50; c has three rows, one of them "yes", which is found.
GROUPS = [
    *rows_of("a", [(0.9, "yes", 45), (0.2, "yes", 5), (0.3, "no", 90), (0.7, "no", 10)]),
    *rows_of("b", [(0.9, "yes", 25), (0.2, "yes", 25), (0.3, "no", 90), (0.7, "no", 10)]),
    *rows_of("c", [(0.9, "yes", 1), (0.3, "no", 2)]),
]


@pytest.fixture(scope="module")
def groups(tmp_path_factory) -> standard_artifacts.Examples:
    return write_examples(tmp_path_factory.mktemp("groups"), GROUPS)


@pytest.fixture(scope="module")
def in_groups(groups, candidate, tmp_path_factory) -> tuple[standard_artifacts.ModelBlessing, Path]:
    """An evaluation with bounds of all examples and of each group."""
    options = EvaluationOptions(
        at_least={"recall": 0.6, "precision": 0.9},
        at_most={"ece": 0.05},
        slices=(
            {"columns": ("group",), "at_least": {"recall": 0.75, "auc": 0.6}, "at_most": {"cross_entropy": 0.5}},
            ["group"],
        ),
    )
    folder = tmp_path_factory.mktemp("in_groups")
    return evaluate(groups, candidate, model_artifact(folder, has_model=0), options, folder, positive="yes"), folder


def test_metrics_of_the_positive_label_are_scikit_learns(in_groups):
    truth = [label == "yes" for _, label, _ in GROUPS]
    scores = [score for score, _, _ in GROUPS]
    named = [score > 0.5 for score in scores]
    metrics = overall_metrics(str(in_groups[1] / "evaluation"))
    expected = {
        "precision": sklearn.metrics.precision_score(truth, named),
        "recall": sklearn.metrics.recall_score(truth, named),
        "f1": sklearn.metrics.f1_score(truth, named),
        "specificity": sklearn.metrics.recall_score(truth, named, pos_label=False),
        "accuracy": sklearn.metrics.accuracy_score(truth, named),
        "pr_auc": sklearn.metrics.average_precision_score(truth, scores),
        # Sure by 0.9, 0.8 and 0.7: right in 71 of 71, 0 of 30, and 182 of 202, two kinds of rows in one bin.
        "ece": (71 * 0.1 + 30 * 0.8 + abs(182 - 202 * 0.7)) / len(truth),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    assert STATISTICS not in metrics


def test_the_area_is_the_mean_of_the_labels_that_the_eval_split_holds(examples, tmp_path):
    export_model(tmp_path / "model", ["never", "no", "yes"])
    options = EvaluationOptions(at_least={"auc": 0.83})
    model, nothing = model_artifact(tmp_path / "model"), model_artifact(tmp_path, has_model=0)
    blessing = evaluate(examples, model, nothing, options, tmp_path)
    # Of "yes" against the rest, and of "no" against the rest.
    assert overall_metrics(str(tmp_path / "evaluation"))["auc"] == pytest.approx(5 / 6, abs=1e-3)
    assert blessing.get_int_custom_property("blessed") == 1

    alone = write_examples(tmp_path / "examples", [(0.9, "yes", "a"), (0.2, "yes", "a")])
    blessing = evaluate(alone, model, nothing, options, tmp_path / "alone")
    assert blessing.get_string_custom_property("reason").startswith("auc cannot be measured")


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_areas_of_weighted_rows_are_scikit_learns(classes):
    chance = np.random.default_rng(0)
    labels = chance.integers(0, max(2, classes - 1), 3000)  # of three and more, no row has the last one
    scores = chance.normal(size=(3000, classes)) + 2 * np.eye(classes)[labels] - 3 * (np.arange(classes) == 0)
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    weights = chance.exponential(size=3000)
    expected = np.mean(
        [
            sklearn.metrics.roc_auc_score(labels == one, probabilities[:, one], sample_weight=weights)
            for one in np.unique(labels)
        ]
    )
    summed = _SumRows(metric_types.MetricKey("sums", example_weighted=True), -1, None)
    accumulator = summed.create_accumulator()
    for label, row, weight in zip(labels, probabilities, weights, strict=True):
        accumulator = summed.add_input(
            accumulator, metric_types.StandardMetricInputs(label=label, prediction=row, example_weight=weight)
        )
    (sums,) = summed.extract_output(summed.merge_accumulators([accumulator])).values()
    assert _value("auc", sums) == pytest.approx(expected, abs=1e-4)


def test_labels_are_those_that_are_decided_and_rows_count_as_they_weigh(tmp_path):
    export_model(tmp_path / "model", ["no", "yes"])
    export_model(tmp_path / "served", ["no", "yes"])
    write_decision(str(tmp_path / "model/Format-Serving"), Decision("yes", 0.25))
    weights = [3.0 if group == "b" else 0.5 for _, _, group in GROUPS]
    rows = write_examples(tmp_path / "examples", GROUPS, weights)
    options = EvaluationOptions(at_least={"recall": 0.1}, may_worsen_by={"specificity": 0.0, "ece": 0.0})
    served = model_artifact(tmp_path / "served", has_model=1)
    blessing = evaluate(rows, model_artifact(tmp_path / "model"), served, options, tmp_path, "yes", "w")
    truth, scores = [label == "yes" for _, label, _ in GROUPS], np.array([score for score, _, _ in GROUPS])
    found = overall_metrics(str(tmp_path / "evaluation"))
    nothing_served = model_artifact(tmp_path, has_model=0)
    evaluate(rows, model_artifact(tmp_path / "model"), nothing_served, options, tmp_path / "alone", "yes", "w")
    alone = overall_metrics(str(tmp_path / "alone/evaluation"))
    assert alone == pytest.approx(found, abs=1e-6)
    for name, metric in (("precision", "precision_score"), ("recall", "recall_score"), ("accuracy", "accuracy_score")):
        expected = getattr(sklearn.metrics, metric)(truth, scores >= 0.25, sample_weight=weights)
        assert found[name] == pytest.approx(expected, abs=1e-6), name
    precision = sklearn.metrics.average_precision_score(truth, scores, sample_weight=weights)
    assert found["pr_auc"] == pytest.approx(precision, abs=1e-6)
    assert found["example_count"] == len(GROUPS)
    # The served model answers the most probable label: of those without the label some, the new one none.
    right = sklearn.metrics.recall_score(truth, scores > 0.5, pos_label=False, sample_weight=weights)
    assert blessing.get_string_custom_property("reason").startswith(f"specificity changed by {-right:+.4f} against")


def test_the_verdict_names_slice_figure_interval_and_bound_where_a_slice_misses_one(in_groups):
    blessing, folder = in_groups
    reasons = blessing.get_string_custom_property("reason").split("; ")
    assert [reason.split(" is ")[0] for reason in reasons] == ["precision", "ece", "recall"]
    # Wilson's interval of 25 in 50, so wide that nine intervals hold together.
    low, high = scipy.stats.binomtest(25, 50).proportion_ci(1 - 0.05 / 9, "wilson")
    assert reasons[2] == (
        f"recall is 0.5000 where group=b, with the interval {low:.4f} to {high:.4f} (150 rows, 9 intervals hold "
        "together in 95% of cases), expected at least 0.75"
    )
    bounds = json.loads((folder / "evaluation/slice_bounds.json").read_text())["bounds"]
    verdicts = {(one["metric"], one["slice"][-1]): one["verdict"] for one in bounds}
    assert verdicts["recall", "a"] == "undecided" and verdicts["recall", "b"] == "misses"
    assert verdicts["auc", "a"] == "holds" and verdicts["recall", "c"] == "undecided"


def test_a_slice_that_does_not_tell_stops_a_model_only_where_it_is_to(in_groups):
    for undecided, stopped in (("pass", []), ("fail", ["group=b", "group=c"])):
        bounds = {"columns": ("group",), "at_least": {"recall": 0.4}, "undecided": undecided}
        found = slice_bounds(EvaluationOptions(slices=(bounds,)), str(in_groups[1] / "evaluation"))
        assert [one.slice for one in found if one.fails] == stopped
        assert [one.verdict for one in found] == ["holds", "undecided", "undecided"]
    assert found[2].failure == (
        "recall at least 0.4 where group=c cannot be told: 1.0000 (0.1486 to 1.0000), 3 rows, too few to tell (3 "
        "intervals hold together in 95% of cases), give more rows, or say undecided: pass for this slice"
    )


def test_bounds_of_a_column_that_no_example_has_stop_the_model(in_groups):
    options = EvaluationOptions(slices=({"columns": ("country",), "at_least": {"accuracy": 0.1}},))
    (found,) = slice_bounds(options, str(in_groups[1] / "evaluation"))
    assert found.fails and found.failure.startswith(
        "accuracy at least 0.1 where country=any cannot be told: nothing to"
    )


def test_few_rows_do_not_tell_that_a_model_is_perfect_or_badly_calibrated():
    low, high = interval("auc", 1.0, np.nan, 0.95, np.array([12.0, 1.0]))
    assert low < 0.6 and high == 1
    low, high = interval("pr_auc", 1.0, 2.0, 0.95)
    assert low < 0.4 and high == 1
    assert np.isnan(interval("cross_entropy", 0.1, 0.0, 0.95, 1.0)).all()
    chance = np.random.default_rng(5)
    said = chance.uniform(0.5, 1, 60).astype(np.float32)
    labels = (chance.random(60) < said).astype(np.int64)
    place = 1 + NUMBERS_EACH * MEASURED.index("ece")
    found = slice_statistics(sums_of(labels, np.stack([1 - said, said], axis=1), np.ones(60)))
    value, spread, by_chance = found[place : place + NUMBERS_EACH]
    assert value > 0.05 and interval("ece", value, spread, 0.95, by_chance)[0] < 0.02


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "specificity", "f1", "auc", "pr_auc", "ece"])
def test_intervals_hold_as_often_as_they_say(metric):
    chance = np.random.default_rng(3)

    def drawn(rows: int) -> Any:
        chosen = chance.uniform(0.02, 0.98, rows)
        said = 1 / (1 + np.exp(-1.8 * np.log(chosen / (1 - chosen))))
        labels = (chance.random(rows) < chosen).astype(np.int64)
        sums = sums_of(labels, np.stack([1 - said, said], axis=1).astype(np.float32), np.ones(rows), positive=1)
        if metric == "auc":
            area = sklearn.metrics.roc_auc_score(labels, said)
            return area, np.nan, slice_statistics(sums)[1 + NUMBERS_EACH * len(MEASURED) :]
        place = 1 + NUMBERS_EACH * MEASURED.index(metric)
        return slice_statistics(sums)[place : place + NUMBERS_EACH]

    truth = drawn(400_000)[0]
    measured = [drawn(400) for _ in range(200)]
    intervals = [interval(metric, value, spread, 0.95, further) for value, spread, further in measured]
    assert 0.9 <= np.mean([low <= truth <= high for low, high in intervals]) <= 1.0
    # Not by being too wide.
    assert np.mean([high - low for low, high in intervals]) < 0.16


def test_rows_of_weight_two_count_as_twice_the_rows():
    labels, scores = np.array([1, 1, 0, 0, 1]), np.array([0.9, 0.4, 0.2, 0.6, 0.7], np.float32)
    probabilities = np.stack([1 - scores, scores], axis=1)
    weights = np.array([2.0, 1, 1, 2, 1])
    repeated = np.repeat(np.arange(5), weights.astype(int))
    once = slice_statistics(sums_of(labels, probabilities, weights, 1))
    twice = slice_statistics(sums_of(labels[repeated], probabilities[repeated], np.ones(7), 1))
    values = slice(1, 1 + NUMBERS_EACH * len(MEASURED), NUMBERS_EACH)
    np.testing.assert_allclose(once[values], twice[values], rtol=1e-6)
    # (3 + 2)^2 / (9 + 4) rows tell as much as a row of weight 3 and one of weight 2.
    assert slice_statistics(sums_of(labels[:2], probabilities[:2], np.array([3.0, 2]), 1))[2] == pytest.approx(25 / 13)
