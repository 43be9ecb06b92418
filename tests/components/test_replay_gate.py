"""Requests that a server has logged, answered again by two models."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_serving.apis import prediction_log_pb2
from tfx.types import standard_artifacts

from components.errors import BrokenInput
from components.evaluator.options import ReplayOptions
from components.replay_gate.component import REPLAY_FILE, Executor
from components.replay_gate.replay import Latency, Replay, Side, SliceChange, beyond, replay_requests
from components.request_logs import find_logs
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.server.app import EmbeddedServer
from serving.server.config import RequestLogOptions
from serving.server.options import ServerOptions
from serving.signatures.common import Labels, ServedModel, export
from tests.browser.small_classifiers import publish_photos, publish_reviews
from tests.serving import colour_photos
from tests.serving.colour_photos import photo

ROWS = 400
AGES = np.random.default_rng(0).integers(20, 90, ROWS)
SEXES = np.random.default_rng(1).choice(["f", "m"], ROWS)


def save_ages(
    path: Path, women: float = 50, men: float = 50, oldest: int = 200, age_input: str = "age", sick: str = "sick"
) -> str:
    """A model that calls people sick above an age, with the signatures of a table; those that are too old get no label.

    Args:
        path: of the version.
        women: the age.
        men: likewise.
        oldest: who is older has no label.
        age_input: what the column is called.
        sick: what those above the age are called.
    """
    vocabulary = path.parent / "labels"
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text(f"fine\n{sick}\n")
    labels = Labels(str(vocabulary))

    def probabilities(age: tf.Tensor, sex: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        limit = tf.where(tf.equal(sex, "f"), float(women), float(men))
        above = tf.sigmoid((tf.cast(age, tf.float32) - limit - 0.5) / 10)
        return tf.stack([1 - above, above], axis=1), tf.where(age > oldest, "too old", "")

    def serving_default(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        found, error = probabilities(tf.reshape(columns[age_input], [-1]), tf.reshape(columns["sex"], [-1]))
        return {"output_0": tf.where(tf.equal(error, ""), labels.answered(found), "")}

    def classify(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        found, error = probabilities(tf.reshape(columns[age_input], [-1]), tf.reshape(columns["sex"], [-1]))
        ranked, of_ranked = labels.ranked(found, 2)
        return {"labels": ranked, "probabilities": of_ranked, "error": error}

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"age": tf.io.FixedLenFeature([], tf.int64), "sex": tf.io.FixedLenFeature([], tf.string)}
        parsed = tf.io.parse_example(examples, spec)
        return {"probabilities": probabilities(parsed["age"], parsed["sex"])[0]}

    inputs = {
        age_input: tf.TensorSpec(None, tf.int64, name=age_input),
        "sex": tf.TensorSpec(None, tf.string, name="sex"),
    }
    examples = {"examples": tf.TensorSpec([None], tf.string, name="examples")}
    signatures = {
        "serving_default": (serving_default, inputs),
        "classify": (classify, inputs),
        "serve_examples": (serve_examples, examples),
    }
    export(ServedModel(signatures, {"labels": labels}), str(path))
    return str(path)


def example(age: int, sex: str) -> tf.train.Example:
    features = {
        "age": tf.train.Feature(int64_list=tf.train.Int64List(value=[age])),
        "sex": tf.train.Feature(bytes_list=tf.train.BytesList(value=[sex.encode()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def served(models) -> str:
    return save_ages(models / "ages/1")


@pytest.fixture(scope="module")
def logs(served, tmp_path_factory) -> list[str]:
    """Every row is asked once: over REST and gRPC, by three signatures in turns, seven rows or one at a time."""
    prefix = tmp_path_factory.mktemp("logs") / "ages"
    options = ServerOptions(rest_port=0, grpc_port=0, request_log=RequestLogOptions(str(prefix), 1.0))
    with (
        EmbeddedServer({"ages": str(Path(served).parent)}, options) as server,
        RestClient(port=server.rest_port) as rest,
        GrpcClient(port=server.grpc_port) as grpc,
    ):
        start = number = 0
        while start < ROWS:
            rows = slice(start, start + (7 if number % 2 else 1))
            columns = {"age": AGES[rows], "sex": SEXES[rows].tolist()}
            signature = ("serving_default", "classify", "serve_examples")[number % 3]
            if signature == "serve_examples":
                made = [
                    example(int(a), str(s)).SerializeToString() for a, s in zip(AGES[rows], SEXES[rows], strict=True)
                ]
                grpc.predict("ages", {"examples": np.array(made, object)}, signature)
            else:
                (rest, grpc)[number // 3 % 2].predict("ages", columns, signature)
            start, number = rows.stop, number + 1
    return find_logs([f"{prefix}-*"])


def test_an_equal_model_changes_nothing_whatever_signature_was_asked(served, logs, models):
    replay = replay_requests(logs, "ages", served, save_ages(models / "equal/1"), [["sex"]])

    assert (replay.whole.rows, replay.whole.changed, replay.failing) == (ROWS, 0, 0)
    assert replay.requests == 100
    assert sum(replay.signatures.values()) == ROWS
    assert set(replay.signatures) == {"serving_default", "classify", "serve_examples"}
    assert {one.name: one.rows for one in replay.slices} == {f"sex = {s}": int((s == SEXES).sum()) for s in "fm"}
    assert replay.latency is not None
    assert replay.latency.requests == 100
    assert 0 < replay.latency.served.p50 <= replay.latency.served.p99
    assert beyond(replay, ReplayOptions(logs="logs", may_flip=0.0, at_most_slower=10.0)) == []
    assert Replay.of_json(replay.as_json()) == replay


def test_a_change_in_one_slice_stops_the_model_and_is_named_with_counts_intervals_and_examples(served, logs, models):
    replay = replay_requests(logs, "ages", served, save_ages(models / "women/1", women=60), [["sex"]])

    hit = (SEXES == "f") & (AGES > 50) & (AGES <= 60)
    (change,) = replay.labels
    assert (change.before, change.after, change.rows) == ("sick", "fine", int(hit.sum()))
    assert len(change.examples) == 3
    for shown in change.examples:
        assert (int(shown["age"]), shown["sex"]) in set(zip(AGES[hit].tolist(), SEXES[hit].tolist(), strict=True))
    worst = replay.slices[0]
    assert (worst.name, worst.rows, worst.changed) == ("sex = f", int((SEXES == "f").sum()), int(hit.sum()))
    expected = stats.binomtest(worst.changed, worst.rows).proportion_ci(method="wilson")
    assert worst.interval() == pytest.approx((expected.low, expected.high))
    share = hit.mean()
    said = beyond(replay, ReplayOptions(logs="logs", may_flip=share + 0.001))
    assert len(said) == 1
    assert said[0].startswith(f"slice sex = f: {int(hit.sum())} of {worst.rows} rows")
    said = beyond(replay, ReplayOptions(logs="logs", may_flip=share - 0.001))
    assert "from 'sick' to 'fine'" in said[0]
    assert "slice sex = f" in said[1]


def test_labels_that_only_one_of_the_models_knows_are_named(served, logs, models):
    replay = replay_requests(logs, "ages", served, save_ages(models / "called/1", sick="ill"))

    assert replay.other_labels == "the candidate has other labels: without 'sick', with 'ill'"
    assert (replay.whole.changed, replay.labels[0].after) == ((AGES > 50).sum(), "ill")
    (said,) = beyond(replay, ReplayOptions(logs="logs"))
    assert said.endswith("from 'sick' to 'ill'; the candidate has other labels: without 'sick', with 'ill'")


def test_rows_that_newly_fail_are_counted_by_their_reason(served, logs, models):
    replay = replay_requests(logs, "ages", served, save_ages(models / "young/1", oldest=80), [])

    # serve_examples has no error output: those rows keep their label.
    (failing,) = [one for one in replay.newly_failing if one.after == "too old"]
    without_label = sum(one.rows for one in replay.newly_failing)
    assert failing.before == "sick"
    assert without_label == replay.whole.changed
    assert 0 < without_label < (AGES > 80).sum()
    assert replay.labels == []
    back = replay_requests(logs, "ages", str(models / "young/1"), served)
    assert (back.newly_answered, back.whole.changed, back.newly_failing) == (without_label, 0, [])


def test_requests_that_the_candidate_refuses_fail_with_what_a_client_would_be_told(served, logs, models):
    replay = replay_requests(logs, "ages", served, save_ages(models / "renamed/1", age_input="years"))

    (failing,) = replay.newly_failing
    assert failing.after.startswith("input tensor alias not found in signature: age.")
    assert failing.rows == replay.signatures["serving_default"] + replay.signatures["classify"]


def test_classifications_are_replayed_by_examples_and_what_cannot_be_is_counted_and_said(served, models, tmp_path):
    classify = prediction_log_pb2.PredictionLog()
    classify.log_metadata.model_spec.name = "ages"
    classify.classify_log.request.input.example_list.examples.extend([example(52, "f"), example(52, "m")])
    regress = prediction_log_pb2.PredictionLog()
    regress.log_metadata.model_spec.name = "ages"
    regress.regress_log.request.input.example_list.examples.append(example(52, "f"))
    ragged = prediction_log_pb2.PredictionLog()
    ragged.log_metadata.model_spec.name = "ages"
    ragged.predict_log.request.inputs["age"].CopyFrom(tf.make_tensor_proto([1, 2]))
    ragged.predict_log.request.inputs["sex"].CopyFrom(tf.make_tensor_proto(["f"]))
    other = prediction_log_pb2.PredictionLog()
    other.log_metadata.model_spec.name = "others"
    with tf.io.TFRecordWriter(str(tmp_path / "log.tfrecord")) as writer:
        for log in (classify, regress, ragged, other):
            writer.write(log.SerializeToString())

    candidate = save_ages(models / "women/2", women=55)
    replay = replay_requests([str(tmp_path / "log.tfrecord")], "ages", served, candidate, [["sex"]])

    assert (replay.requests, replay.whole.rows, replay.whole.changed) == (1, 2, 1)
    assert [(one.name, one.changed) for one in replay.slices] == [("sex = f", 1), ("sex = m", 0)]
    assert sorted(replay.left_out) == [
        "1 request to other models: others",
        "1 request: a regress_log asks for no label",
        "1 request: its inputs do not have one value for each row",
    ]


def write_predictions(path: Path, model: str, requests: list[tuple[str, str, list[bytes]]]) -> list[str]:
    """A request log: signature, input and values of each request."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, name, values in requests:
            log = prediction_log_pb2.PredictionLog()
            log.log_metadata.model_spec.name = model
            log.log_metadata.model_spec.signature_name = signature
            log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            writer.write(log.SerializeToString())
    return [str(path)]


def test_texts_are_replayed_and_the_text_whose_label_changes_is_shown(tmp_path):
    served, candidate = (
        f"{publish_reviews(tmp_path / name, praise)}/1" for name, praise in (("old", "good"), ("new", "fine"))
    )
    asked = [b"A good film.", b"Fine, and good.", b"fine", b"D\xc3\xa9j\xc3\xa0 vu.", b""]
    requests = [(signature, "text", asked) for signature in ("serving_default", "classify")]
    logs = write_predictions(tmp_path / "log.tfrecord", "reviews", requests)

    same, replay = (replay_requests(logs, "reviews", served, other) for other in (served, candidate))
    assert (same.whole.rows, same.whole.changed, same.failing) == (10, 0, 0)
    assert replay.signatures == {"serving_default": 5, "classify": 5}
    changes = {(one.before, one.after): one for one in replay.labels}
    assert {kind: one.rows for kind, one in changes.items()} == {("fresh", "rotten"): 4, ("rotten", "fresh"): 2}
    assert changes["rotten", "fresh"].examples == [{"text": "fine"}, {"text": "fine"}]
    (said,) = beyond(replay, ReplayOptions(logs="logs", may_flip=0.5))
    assert said.startswith("6 of 10 logged rows (60.00%")


def test_photos_are_replayed_as_files_and_as_base64_and_one_that_cannot_be_read_has_no_label_from_either(tmp_path):
    def without_red(images: tf.Tensor) -> tf.Tensor:
        return colour_photos.nearest_colour(images) * tf.constant([float(one != "red") for one in colour_photos.LABELS])

    served, candidate = (
        f"{publish_photos(tmp_path / name, predict, explain=None)}/1"
        for name, predict in (("old", colour_photos.nearest_colour), ("new", without_red))
    )
    files = [photo("red"), photo("blue", "JPEG"), photo("red", "BMP"), b"no photo"]
    encoded = [urlsafe_b64encode(file) for file in files]
    requests = [("classify", "image_bytes", files), ("serving_default", "image", encoded)]
    logs = write_predictions(tmp_path / "log.tfrecord", "photos", requests)

    replay = replay_requests(logs, "photos", served, candidate)
    assert (replay.whole.rows, replay.whole.changed, replay.failing, replay.newly_failing) == (8, 4, 2, [])
    assert sum(one.rows for one in replay.labels) == 4
    assert {one.before for one in replay.labels} == {"red"}
    assert not {one.after for one in replay.labels} & {"red", "blue", ""}


def test_the_newest_requests_count_where_there_are_more_than_may_be(served, logs):
    replay = replay_requests(logs, "ages", served, served, maximum_rows=50)

    assert 50 <= replay.whole.rows < 57
    assert "requests older than the newest 50 rows" in replay.left_out


def test_logs_without_a_request_stop_the_model(served, tmp_path):
    (tmp_path / "log.tfrecord").write_bytes(b"")
    replay = replay_requests([str(tmp_path / "log.tfrecord")], "ages", served, served)

    (said,) = beyond(replay, ReplayOptions(logs="logs/ages-*"))
    assert said.startswith("no logged request could be replayed in logs/ages-*")


@pytest.mark.parametrize(
    ("ratio", "stops"), [((1.5, 1.3, 1.7), True), ((1.3, 1.1, 1.5), False), ((0.9, 0.8, 1), False)]
)
def test_a_model_is_too_slow_where_the_whole_interval_is_beyond_the_bound(ratio, stops):
    latency = Latency(100, served=Side(1.0, 2.0), candidate=Side(ratio[0], 2.0), ratio=ratio)
    replay = Replay(whole=SliceChange("all rows", 100, 0), latency=latency)

    said = beyond(replay, ReplayOptions(logs="logs", at_most_slower=1.2))
    assert bool(said) == stops
    assert beyond(replay, ReplayOptions(logs="logs")) == []


def test_many_slices_do_not_stop_an_equal_model_by_chance():
    source = np.random.default_rng(0)
    stopped = 0
    for _ in range(100):
        slices = [SliceChange(str(n), 200, int(source.binomial(200, 0.02))) for n in range(50)]
        stopped += bool(beyond(Replay(whole=SliceChange("all", 10_000, 0), slices=slices), ReplayOptions(logs="l")))
    assert stopped <= 5


# The component.


def artifact(kind, path: Path, **flags: int):
    made = kind()
    made.uri = str(path)
    for name, value in flags.items():
        made.set_int_custom_property(name, value)
    return made


def gate(served: str, candidate: str, logs: list[str], tmp_path: Path, blessed: int = 1, has_model: int = 1):
    """What the gate makes of models: its blessing."""
    for model, name in ((served, "baseline"), (candidate, "model")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Format-Serving").symlink_to(model)
    blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    (tmp_path / "blessing").mkdir()
    Executor().Do(
        {
            "model": [artifact(standard_artifacts.Model, tmp_path / "model")],
            "baseline_model": [artifact(standard_artifacts.Model, tmp_path / "baseline", has_model=has_model)],
            "model_blessing": [artifact(standard_artifacts.ModelBlessing, tmp_path, blessed=blessed)],
            "infra_blessing": [artifact(standard_artifacts.InfraBlessing, tmp_path, blessed=1)],
        },
        {"blessing": [blessing]},
        {
            "options": ReplayOptions(logs=logs, may_flip=0.02).model_dump_json(),
            "slices": '[["sex"]]',
            "feature_of_input": "{}",
            "model_name": "ages",
            "run_id": "1",
        },
    )
    return blessing


def test_the_gate_blesses_an_equal_model_and_refuses_one_that_answers_otherwise(served, logs, models, tmp_path):
    for folder in ("same", "other"):
        (tmp_path / folder).mkdir()
    same = gate(served, served, logs, tmp_path / "same")
    assert same.get_int_custom_property("blessed") == 1
    assert same.get_string_custom_property("remark") == f"{ROWS} logged rows replayed"
    assert (tmp_path / "same/blessing/BLESSED").exists()

    other = gate(served, save_ages(models / "women/3", women=60), logs, tmp_path / "other")
    assert other.get_int_custom_property("blessed") == 0
    assert "slice sex = f: " in other.get_string_custom_property("reason")
    assert (tmp_path / "other/blessing/NOT_BLESSED").exists()
    assert (tmp_path / "other/blessing" / REPLAY_FILE).exists()


def test_the_gate_leaves_alone_what_is_refused_already_and_the_first_model(served, logs, tmp_path):
    for number, (flags, remark) in enumerate(
        [
            ({"blessed": 0}, "not replayed: the Evaluator did not bless the model"),
            ({"has_model": 0}, "not replayed: nothing was served before"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        blessing = gate(served, served, ["/no/such/log"], tmp_path / str(number), **flags)
        assert blessing.get_int_custom_property("blessed") == 1
        assert blessing.get_string_custom_property("remark") == remark
    (tmp_path / "2").mkdir()
    with pytest.raises(BrokenInput, match="/no/such/log: no such file"):
        gate(served, served, ["/no/such/log"], tmp_path / "2")
