import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator.results import overall_metrics

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
