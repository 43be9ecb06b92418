"""Requests of different callers that run as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server.app import EmbeddedServer
from serving.server.config import BatchingParameters, ConfigFileError, read_batching_parameters
from tests.serving.server.conftest import QUICK_OPTIONS, Rest
from tests.serving.server.small_models import save_decoder, save_model

FULL = (
    "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
    "max_enqueued_batches is 2"
)
LONG = 100_000  # steps of a graph that takes half a second or so
PATIENT = 30_000_000  # microseconds: a batch that is not full never starts by itself


@pytest.fixture(scope="module")
def base_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("batching")

    class Observed(tf.Module):
        """Answers each row with itself and with the number of rows that ran together."""

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            rows = tf.fill([tf.shape(x)[0]], tf.shape(x)[0])
            return {"sum": tf.reduce_sum(x, axis=1), "rows": rows, "width": tf.fill([tf.shape(x)[0]], tf.shape(x)[1])}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
        def mean(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"mean": tf.reduce_mean(x)}

        @tf.function(
            input_signature=[tf.TensorSpec(None, tf.float32, name="x"), tf.TensorSpec(None, tf.float32, name="y")]
        )
        def add(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"z": x + y}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="n")])
        def busy(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
            most = tf.reduce_max(n)
            count = tf.while_loop(
                lambda count: count < most, lambda count: [count + 1], [tf.constant(0, tf.int64)], parallel_iterations=1
            )
            return {"count": tf.minimum(n, count[0])}

    observed = Observed()
    for version in ("1", "2"):
        save_model(observed, root / "observed" / version, "predict", "mean", "add", "busy")
    save_decoder(root / "decoder" / "1")
    return {path.name: str(path) for path in root.iterdir()}


@contextmanager
def serving(base_paths: dict[str, str], **parameters: Any) -> Iterator[Rest]:
    options = replace(QUICK_OPTIONS, batching=BatchingParameters(**parameters))
    with EmbeddedServer(base_paths, options) as server:
        yield Rest(server.rest_port)


def at_once(requests: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(requests)) as threads:
        return [answer.result() for answer in [threads.submit(request) for request in requests]]


def ask(rest: Rest, rows: Sequence[Sequence[float]], model: str = "observed", **document: Any) -> Any:
    answer = rest.predict(model, {"inputs": rows, **document})
    return answer.json["outputs"] if answer.status == 200 else (answer.status, answer.error)


def test_requests_that_come_together_run_as_one_batch_and_each_gets_its_own_rows(base_paths):
    with serving(base_paths, max_batch_size=6, batch_timeout_micros=PATIENT) as rest:
        requests = [[[float(number), 1.0]] * rows for number, rows in ((10, 1), (20, 2), (30, 3))]
        answers = at_once([lambda rows=rows: ask(rest, rows) for rows in requests])

    assert [answer["rows"] for answer in answers] == [[6], [6, 6], [6, 6, 6]]
    assert [answer["sum"] for answer in answers] == [[11.0], [21.0, 21.0], [31.0, 31.0, 31.0]]


def test_requests_over_grpc_and_rest_are_merged_with_one_another(base_paths):
    options = replace(QUICK_OPTIONS, batching=BatchingParameters(max_batch_size=2, batch_timeout_micros=PATIENT))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "observed"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
    with (
        EmbeddedServer(base_paths, options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        rest = Rest(server.rest_port)
        by_grpc, by_rest = at_once([lambda: stub.Predict(request), lambda: ask(rest, [[5.0, 6.0]])])

    assert (list(by_grpc.outputs["rows"].int_val), list(by_grpc.outputs["sum"].float_val)) == ([2], [3.0])
    assert (by_rest["rows"], by_rest["sum"]) == ([2], [11.0])


def test_a_batch_that_is_not_full_starts_after_the_timeout(base_paths):
    with serving(base_paths, max_batch_size=100, batch_timeout_micros=300_000) as rest:
        answers = at_once([lambda: ask(rest, [[1.0]])] * 3)

    assert {answer["rows"][0] for answer in answers} <= {1, 2, 3}
    assert max(answer["rows"][0] for answer in answers) > 1


def test_without_a_timeout_a_lone_request_runs_alone_at_once(base_paths):
    with serving(base_paths) as rest:
        assert ask(rest, [[1.0, 2.0]]) == {"rows": [1], "sum": [3.0], "width": [2]}


def test_a_batch_is_filled_up_to_the_next_allowed_size(base_paths):
    with serving(base_paths, max_batch_size=8, allowed_batch_sizes=(4, 8)) as rest:
        assert ask(rest, [[1.0], [2.0], [3.0]]) == {"rows": [4, 4, 4], "sum": [1.0, 2.0, 3.0], "width": [1, 1, 1]}
        assert ask(rest, [[1.0]] * 5)["rows"] == [8] * 5


def test_a_request_larger_than_a_batch_is_refused(base_paths):
    with serving(base_paths, max_batch_size=4) as rest:
        assert ask(rest, [[1.0]] * 5) == (400, "Task size 5 is larger than maximum input batch size 4")
        assert ask(rest, [[1.0]] * 4)["rows"] == [4] * 4


def test_a_large_request_is_spread_over_batches_where_that_is_allowed(base_paths):
    with serving(base_paths, max_batch_size=100, max_execution_batch_size=4, enable_large_batch_splitting=True) as rest:
        answer = ask(rest, [[float(row)] for row in range(10)])

    assert answer["sum"] == [float(row) for row in range(10)]
    assert answer["rows"] == [4] * 8 + [2] * 2


def test_inputs_of_different_shapes_have_batches_of_their_own(base_paths):
    with serving(base_paths, max_batch_size=2, batch_timeout_micros=PATIENT) as rest:
        shapes = [[[1.0]], [[1.0, 2.0]], [[3.0]], [[3.0, 4.0]]]
        answers = at_once([lambda rows=rows: ask(rest, rows) for rows in shapes])

    assert [(answer["sum"], answer["rows"], answer["width"]) for answer in answers] == [
        ([1.0], [2], [1]), ([3.0], [2], [2]), ([3.0], [2], [1]), ([7.0], [2], [2])
    ]  # fmt: skip


def test_inputs_of_different_lengths_are_padded_with_their_first_value_where_that_is_asked_for(base_paths):
    with serving(base_paths, max_batch_size=2, batch_timeout_micros=PATIENT, pad_variable_length_inputs=True) as rest:
        short, long = at_once([lambda: ask(rest, [[1.0, 5.0]]), lambda: ask(rest, [[1.0, 2.0, 3.0, 4.0]])])

    assert (short["sum"], short["width"]) == ([8.0], [4])
    assert (long["sum"], long["width"]) == ([10.0], [4])


def test_versions_and_output_filters_have_batches_of_their_own(base_paths, tmp_path):
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base_paths["observed"]}" model_platform: "tensorflow" '
        "model_version_policy { all { } } } }"
    )
    parameters = BatchingParameters(max_batch_size=2, batch_timeout_micros=PATIENT)
    options = replace(QUICK_OPTIONS, batching=parameters, model_config_file=str(config))

    def predict(version: int, *output_filter: str) -> tuple[list[str], list[int]]:
        request = predict_pb2.PredictRequest(output_filter=output_filter)
        request.model_spec.name = "m"
        request.model_spec.version.value = version
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0]]))
        outputs = stub.Predict(request).outputs
        return sorted(outputs), list(outputs["rows"].int_val)

    with EmbeddedServer({}, options) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        kinds = [(1,), (2,), (2, "rows"), (2, "sum", "rows"), (2, "rows", "sum")]
        # Each waits for one of its kind: had others been merged, some would wait for ever.
        answers = at_once([lambda kind=kind: predict(*kind) for kind in [*kinds[:3], *kinds]])

    everything = (["rows", "sum", "width"], [2])
    first = [everything, everything, (["rows"], [2])]
    assert answers == [*first, *first, (["rows", "sum"], [2]), (["rows", "sum"], [2])]


def test_inputs_without_common_rows_are_refused(base_paths):
    with serving(base_paths) as rest:
        document = {"signature_name": "add", "inputs": {"x": [1.0, 2.0], "y": [1.0]}}
        scalars = {"signature_name": "add", "inputs": {"x": 1.0, "y": 1.0}}

        refused = rest.predict("observed", document)
        assert (refused.status, refused.error) == (
            400, "Batching Run() input tensors must have equal 0th-dimension size"
        )  # fmt: skip
        assert (
            rest.predict("observed", scalars).error == "Batching Run() input tensors must have at least one dimension"
        )


def test_outputs_without_a_row_for_each_input_are_refused(base_paths):
    with serving(base_paths) as rest:
        assert ask(rest, [[1.0]], signature_name="mean") == (400, "Batched output tensor has 0 dimensions")


def test_a_request_without_rows_is_answered_without_rows(base_paths):
    with serving(base_paths, allowed_batch_sizes=(8,), max_batch_size=8) as rest:
        answer = rest.predict("decoder", {"inputs": []})

    assert (answer.status, answer.json) == (200, {"outputs": []})


def test_an_item_that_the_graph_refuses_fails_its_batch_with_the_op_s_message(base_paths):
    with serving(base_paths, max_batch_size=2, batch_timeout_micros=PATIENT) as rest:
        image = {"b64": "bm8gaW1hZ2U="}
        answers = at_once([lambda: rest.predict("decoder", {"instances": [image]})] * 2)

    assert [answer.status for answer in answers] == [400, 400]
    assert all("Unknown image file format" in answer.error or "JPEG" in answer.error for answer in answers)


def test_a_full_queue_answers_unavailable_and_serves_again_afterwards(base_paths):
    def busy(n: int) -> tuple[int, Any]:
        answer = rest.predict("observed", {"signature_name": "busy", "inputs": [n]})
        return answer.status, answer.json

    with serving(base_paths, max_batch_size=1, max_enqueued_batches=2, num_batch_threads=1) as rest:
        # One runs, two wait; which one is too many is a matter of luck.
        answers = at_once([lambda: busy(LONG)] * 4)
        assert sorted(status for status, _ in answers) == [200, 200, 200, 503]
        assert (503, {"error": FULL}) in answers
        assert busy(1) == (200, {"outputs": [1]})


def test_a_full_queue_of_one_model_leaves_room_for_others(base_paths):
    def busy() -> int:
        return rest.predict("observed", {"signature_name": "busy", "inputs": [LONG]}).status

    with serving(base_paths, max_batch_size=1, max_enqueued_batches=1, num_batch_threads=1) as rest:
        with ThreadPoolExecutor(3) as threads:
            statuses = [threads.submit(busy) for _ in range(3)]
            # One runs and one waits once the third is refused: before, this request could be the one that runs.
            wait(statuses, return_when=FIRST_COMPLETED)
            assert ask(rest, [[1.0]])["sum"] == [1.0]
        assert sorted(status.result() for status in statuses) == [200, 200, 503]


def test_files_of_parameters_are_read_as_tensorflow_serving_reads_them(tmp_path):
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 1000000 }\n"
        "num_batch_threads { value: 8 } allowed_batch_sizes: 32 allowed_batch_sizes: 128 # and no more\n"
        'pad_variable_length_inputs: true thread_pool_name { value: "pool" }'
    )

    assert read_batching_parameters(str(file)) == BatchingParameters(
        max_batch_size=128,
        batch_timeout_micros=0,
        max_enqueued_batches=1_000_000,
        num_batch_threads=8,
        allowed_batch_sizes=(32, 128),
        pad_variable_length_inputs=True,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 128", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        ("max_batch_sizes { value: 1 }", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size must be at least 1; was 0"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be at least 1; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be at least 0; was -1"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 4]", "must be positive and increasing; were [8, 4]"),
    ],
)
def test_parameters_that_cannot_be_are_named(tmp_path, text, message):
    file = tmp_path / "batching.config"
    file.write_text(text)

    with pytest.raises(ConfigFileError) as refused:
        read_batching_parameters(str(file))
    assert str(file) in str(refused.value)
    assert message in str(refused.value)
