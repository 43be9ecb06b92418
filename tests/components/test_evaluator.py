"""The Evaluator: metrics, thresholds, and the comparison with the served model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.types import standard_artifacts

from components.evaluator.eval_config import overall_metrics
from components.evaluator.executor import Executor
from components.evaluator.options import EvaluationOptions
from components.evaluator.predictions import aligned
from pipeline.runners.local import BEAM_PIPELINE_ARGS
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
        return {"label": number, "name": lookup.best(tf.cast(matches, tf.float32))}

    model = ServedModel(
        {
            SERVE_EXAMPLES: (serve_examples, {"examples": EXAMPLES}),
            TRANSFORM_FEATURES: (transform_features, {"examples": EXAMPLES}),
        },
        {"labels": lookup},
    )
    export(model, str(path / "Format-Serving"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> standard_artifacts.Examples:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "Split-eval").mkdir()
    with tf.io.TFRecordWriter(str(folder / "Split-eval/data.gz"), "GZIP") as writer:
        for score, label in ROWS:
            example = tf.train.Example()
            example.features.feature["score"].float_list.value.append(score)
            if label:
                example.features.feature["label"].bytes_list.value.append(label.encode())
            writer.write(example.SerializeToString())
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(folder), '["eval"]'
    return artifact


def model_artifact(path: Path, has_model: int | None = None) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri = str(path)
    if has_model is not None:
        artifact.set_int_custom_property("has_model", has_model)
    return artifact


def evaluate(examples, model, baseline, options: EvaluationOptions, folder: Path) -> standard_artifacts.ModelBlessing:
    blessing, evaluation = standard_artifacts.ModelBlessing(), standard_artifacts.ModelEvaluation()
    blessing.uri, evaluation.uri = str(folder / "blessing"), str(folder / "evaluation")
    context = Executor.Context(beam_pipeline_args=BEAM_PIPELINE_ARGS, tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(
        {"examples": [examples], "model": [model], "baseline_model": [baseline]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"options": options.model_dump_json(), "split": "eval"},
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
