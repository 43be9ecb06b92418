"""Metrics for Prometheus, as an operator's scraper sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving import model_store
from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters, ConfigFileError, read_metrics_path
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.small_models import save_model

PATH = "/monitoring/prometheus/metrics"
MEASURED = replace(QUICK_OPTIONS, metrics_path=PATH, batching=BatchingParameters(max_batch_size=8))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Answers "even" or "odd", and what is wrong with negative numbers."""

    class Parity(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="number")])
        def predict(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output_0": tf.where(number < 0, "", tf.where(number % 2 == 0, "even", "odd"))}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="number")])
        def classify(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
            label = tf.where(number < 0, "", tf.where(number % 2 == 0, "even", "odd"))
            error = tf.where(number < 0, "number is negative", "")
            return {
                "labels": label[:, None],
                "probabilities": tf.ones_like(number, tf.float32)[:, None],
                "error": error,
            }

    base_path = tmp_path_factory.mktemp("parity")
    save_model(Parity(), base_path / "1", "predict", "classify")
    return str(base_path)


@pytest.fixture
def server(classifier: str) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"parity": classifier}, MEASURED) as server:
        yield server


@pytest.fixture
def rest(server: EmbeddedServer) -> Rest:
    return Rest(server.rest_port)


@pytest.fixture
def samples(rest: Rest) -> Callable[[], dict[str, float]]:
    def read() -> dict[str, float]:
        """Every sample, by its name and labels as Prometheus reads them."""
        answer = rest.call("GET", PATH)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return {
            _key(sample): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    return read


def _key(sample: Sample) -> str:
    # The parser, unlike Prometheus itself, adds _total to the names of all counters.
    name = sample.name.removesuffix("_total") if sample.name.startswith(":") else sample.name
    return f"{name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}"


def predict_by_grpc(server: EmbeddedServer) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "parity"
    request.inputs["number"].CopyFrom(tf.make_tensor_proto([7], tf.int64))
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)


def test_requests_are_counted_by_the_code_they_ended_with_under_tensorflow_serving_s_name(rest, server, samples):
    for inputs in ([1], [2, 3], ["no number"]):
        rest.predict("parity", {"inputs": inputs})
    predict_by_grpc(server)
    rest.predict("nobody", {"inputs": [1]})
    rest.call("GET", "/v1/models/parity")

    seen = samples()
    counted = {name: value for name, value in seen.items() if name.startswith(":tensorflow:serving:request_count")}
    assert counted == {
        ":tensorflow:serving:request_count{model_name=parity,status=OK}": 3.0,
        ":tensorflow:serving:request_count{model_name=parity,status=INVALID_ARGUMENT}": 1.0,
        ":tensorflow:serving:request_count{model_name=,status=NOT_FOUND}": 1.0,
    }


def test_the_text_is_that_of_tensorflow_serving(rest):
    rest.predict("parity", {"inputs": [1]})

    lines = rest.call("GET", PATH).text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert ':tensorflow:serving:request_count{model_name="parity",status="OK"} 1' in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    labels = 'model_name="parity",API="Predict",entrypoint="REST"'
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} 1' in lines
    buckets = [line for line in lines if line.startswith(f":tensorflow:serving:request_latency_bucket{{{labels}")]
    assert [line.split('le="')[1].split('"')[0] for line in buckets[:3]] == ["10", "18", "32.4"]
    assert len(buckets) == 34


def test_latencies_are_told_apart_by_entry_point(rest, server, samples):
    rest.predict("parity", {"inputs": [1]})
    predict_by_grpc(server)
    predict_by_grpc(server)

    seen = samples()
    name = ":tensorflow:serving:request_latency_count{API=Predict,entrypoint=%s,model_name=parity}"
    assert (seen[name % "REST"], seen[name % "GRPC"]) == (1.0, 2.0)
    total = ":tensorflow:serving:request_latency_sum{API=Predict,entrypoint=REST,model_name=parity}"
    runtime = ":tensorflow:serving:runtime_latency_sum{API=Predict,model_name=parity,runtime=TF1}"
    assert 10 < seen[total] < 60e6  # microseconds
    assert seen[runtime] > 10


def test_labels_and_input_errors_are_counted_row_by_row(rest, samples):
    rest.predict("parity", {"inputs": [1, 3, 4]})
    rest.predict("parity", {"signature_name": "classify", "inputs": [2, -1, -5]})

    seen = samples()
    model = "model_name=parity,signature=%s,version=1"
    assert seen[f"ingraph_predicted_labels_total{{label=odd,{model % 'serving_default'}}}"] == 2.0
    assert seen[f"ingraph_predicted_labels_total{{label=even,{model % 'serving_default'}}}"] == 1.0
    assert seen[f"ingraph_predicted_labels_total{{label=even,{model % 'classify'}}}"] == 1.0
    assert seen[f"ingraph_input_errors_total{{error=number is negative,{model % 'classify'}}}"] == 2.0
    assert not [name for name in seen if "label=," in name]


def test_batches_are_counted_with_their_rows(rest, samples):
    rest.predict("parity", {"inputs": [1, 2, 3]})
    rest.predict("parity", {"inputs": [1]})

    seen = samples()
    model = "model_name=parity,signature=serving_default,version=1"
    assert seen[f"ingraph_batch_rows_count{{{model}}}"] == 2.0
    assert seen[f"ingraph_batch_rows_sum{{{model}}}"] == 4.0
    assert seen[":tensorflow:serving:batching_session:wrapped_run_count{}"] == 2.0
    queued = ":tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name=model_server_batch_threads}"
    assert seen[queued] == 2.0


def test_states_of_versions_and_labels_are_shown(classifier, samples):
    model_store.label(classifier, "stable", 1)
    seen = samples()
    while "ingraph_label_version{label=stable,model_name=parity}" not in seen:
        seen = samples()

    assert seen["ingraph_label_version{label=stable,model_name=parity}"] == 1.0
    assert seen["ingraph_version_state{model_name=parity,state=AVAILABLE,version=1}"] == 1.0
    assert seen["ingraph_requests_in_flight{model_name=parity,version=1}"] == 0.0


def test_without_a_monitoring_config_there_are_no_metrics(rest, classifier):
    with EmbeddedServer({"parity": classifier}, QUICK_OPTIONS) as server:
        assert Rest(server.rest_port).call("GET", PATH).status == 404
    assert rest.call("POST", PATH).status != 200


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", PATH),
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ('prometheus_config { path: "/metrics" }', None),
        ("", None),
    ],
)
def test_the_monitoring_config_enables_metrics_and_names_their_path(tmp_path, text, path):
    (tmp_path / "monitoring.config").write_text(text)

    assert read_metrics_path(str(tmp_path / "monitoring.config")) == path


@pytest.mark.parametrize("text", ['prometheus_config { enable: true path: "metrics" }', "prometheus { enable: true }"])
def test_a_wrong_monitoring_config_is_named(tmp_path: Path, text: str):
    file = tmp_path / "monitoring.config"
    file.write_text(text)

    with pytest.raises(ConfigFileError, match=str(file)):
        read_metrics_path(str(file))
