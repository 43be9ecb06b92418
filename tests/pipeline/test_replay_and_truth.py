"""`ingraph replay` and `ingraph truth`, and the runs that they decide about, on what a server has logged."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from base64 import urlsafe_b64encode
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from scipy import stats
from tensorflow_serving.apis import prediction_log_pb2

from components.errors import BrokenInput
from components.request_logs import AnswerReader, file_key, photo_file, version_of
from components.run_report.statistics import fall_limits, find_fall, wilson_interval
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.history import run_ids
from pipeline.reports import write_report
from pipeline.scoring.truth import key_text, read_labels_file
from pipeline.spans import find_spans, next_span_file
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.model_store import list_versions, publish
from serving.server.app import EmbeddedServer
from serving.server.config import RequestLogOptions
from serving.server.options import ServerOptions
from serving.signatures.common import CLASSIFY, SERVING_DEFAULT
from tests.browser.small_classifiers import publish_photos
from tests.pipeline.conftest import Finished, ingraph, page_of, table, words
from tests.serving.colour_photos import photo

COLUMNS = ("age", "income", "city")


def customers(rows: int, seed: int, contrary: str = "") -> list[dict[str, str]]:
    """People who buy where their income is high; those of a contrary city where it is low."""
    source = random.Random(seed)
    found = []
    for _ in range(rows):
        city, income = source.choice(["Oslo", "Rome", "Lima", "Bern"]), source.uniform(10, 90)
        buys = (income + source.gauss(0, 5) > 50) != (city == contrary)
        row = {"age": str(source.randint(18, 80)), "income": f"{income:.2f}", "city": city}
        found.append({**row, "bought": "yes" if buys else "no"})
    return found


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class Field:
    """A model in the field: what it was asked, what it answered, and the run that was to follow it."""

    workdir: Path
    config: str
    asked: list[dict[str, str]]
    answers: list[str]
    second: Finished

    def logs(self) -> str:
        return str(self.workdir / "logs/mine-*")

    def ingraph(self, command: str, *arguments: str):
        return CliRunner().invoke(main, [command, self.config, "--workdir", str(self.workdir), *arguments])


def example(row: dict[str, str]) -> bytes:
    features = tf.train.Features()
    features.feature["age"].int64_list.value.append(int(row["age"]))
    features.feature["income"].float_list.value.append(float(row["income"]))
    features.feature["city"].bytes_list.value.append(row["city"].encode())
    return tf.train.Example(features=features).SerializeToString()


@pytest.fixture(scope="module")
def field(tmp_path_factory) -> Field:
    workdir = tmp_path_factory.mktemp("field")
    config = workdir / "mine.yaml"
    config.write_text(
        "name: mine\ntask: tabular\n"
        'data: {spans: {path: "spans/{SPAN}/*.csv", window: 1, maximum_drift: null}, minimum_examples: 5}\n'
        "preprocessing: {label: {column: bought}, crosses: [[city, income]], columns: "
        "{income: {kind: boundaries, boundaries: [30, 50, 70]}}}\n"
        "trainer: {model: linear, epochs: 40, learning_rate: 0.05}\n"
        "evaluation: {at_least: {auc: 0.6}, slices: [[city]], replay: {logs: logs/mine-*, may_flip: 0.1}}\n"
    )
    write_rows(workdir / "spans/1/data.csv", customers(600, 0))
    first = ingraph("retrain", str(config), "--workdir", str(workdir))
    assert first.status == 0, first.output
    assert "not replayed: nothing was served before" in first.output

    asked, answers = customers(400, 1), []
    options = ServerOptions(rest_port=0, grpc_port=0, request_log=RequestLogOptions(str(workdir / "logs/mine"), 1.0))
    with (
        EmbeddedServer({"mine": str(workdir / "models/mine")}, options) as server,
        RestClient(port=server.rest_port) as rest,
        GrpcClient(port=server.grpc_port) as grpc,
    ):
        for number, start in enumerate(range(0, 400, 8)):
            rows = asked[start : start + 8]
            columns = {
                "age": np.array([int(row["age"]) for row in rows]),
                "income": np.array([float(row["income"]) for row in rows], np.float32),
                "city": [row["city"] for row in rows],
            }
            client = (rest, grpc)[number // 3 % 2]
            if number % 3 == 2:
                found = grpc.predict("mine", {"examples": np.array([*map(example, rows)], object)}, "serve_examples")
                answers += [("no", "yes")[best] for best in found["probabilities"].argmax(axis=1)]
                continue
            found = client.predict("mine", columns, (SERVING_DEFAULT, CLASSIFY)[number % 3])
            labels = np.array(found["labels"] if number % 3 else found["output_0"], object)
            best = labels[:, 0] if labels.ndim == 2 else labels
            answers += [label.decode() if isinstance(label, bytes) else label for label in best]

    write_rows(workdir / "spans/2/data.csv", customers(600, 2, contrary="Rome"))
    second = ingraph("retrain", str(config), "--workdir", str(workdir))
    return Field(workdir, str(config), asked, answers, second)


def test_a_model_that_answers_a_slice_otherwise_is_not_published_and_the_run_names_the_slice(field):
    said = " ".join(field.second.output.split())
    assert field.second.status == ExitStatus.ANSWERS_CHANGED, said
    assert "slice city = Rome: " in said
    assert "slice city = Oslo" not in said
    assert [version.number for version in list_versions(str(field.workdir / "models/mine"))] == [1]

    page = page_of(max((field.workdir / "runs/mine/reports").glob("*.html")))
    assert "The new model may not go live: ReplayGate says no." in words(page)
    demands = table(page, "What ReplayGate demands")
    assert demands["at most 10.00% of all rows answered otherwise"][1] == "no"
    assert demands["likewise of city = Rome"][1] == "no"
    assert next(iter(table(page, "Slices, the surest change first"))) == "city = Rome"
    changed = table(page, "Labels that change")
    assert {"yes", "no"} == {changed[key][0] for key in changed}
    assert "city=Rome" in words(page)


def test_replay_by_hand_counts_the_same_and_an_equal_model_passes(field):
    done = field.ingraph("replay")
    assert done.exit_code == ExitStatus.ANSWERS_CHANGED, done.output
    (gate,) = field.workdir.glob("runs/mine/artifacts/ReplayGate/blessing/*/replay.json")
    recorded = json.loads(gate.read_text())
    assert recorded["whole"]["rows"] == 400
    assert f"changed    {recorded['whole']['changed']} rows, " in done.output
    asked = "requests   50 with 400 rows, "
    assert asked in done.output
    assert "serving_default 136, classify 136, serve_examples 128" in done.output

    same = field.ingraph("replay", "--logs", field.logs(), "--candidate", "1", "--against", "1")
    assert same.exit_code == 0, same.output
    assert "changed    0 rows, 0.00% (0.00% to 0.95%); 0 fail with both, 0 no more" in same.output
    assert "fine       at most 10.00% of all rows" in same.output

    missing = field.ingraph("replay", "--candidate", "7")
    assert missing.exit_code == ExitStatus.BROKEN_INPUT
    assert "no version 7 there" in missing.output
    nowhere = field.ingraph("replay", "--logs", field.logs(), "--candidate", "elsewhere")
    assert nowhere.exit_code == ExitStatus.BROKEN_INPUT
    assert (
        "--candidate elsewhere: no SavedModel lies there; expected the number of a published version" in nowhere.output
    )


# Truth.


@pytest.fixture(scope="module")
def late(field) -> Path:
    return write_rows(field.workdir / "late.csv", field.asked[:380])


def test_late_labels_give_the_live_figures_of_versions_days_and_slices(field, late, tmp_path):
    metrics, page = tmp_path / "mine.prom", tmp_path / "truth.html"
    done = field.ingraph(
        "truth", "--logs", field.logs(), "--labels", str(late), "--metrics", str(metrics), "--report", str(page)
    )

    assert done.exit_code == 0, done.output
    assert "joined     380 answered rows by age, city, income; 20 have no label yet" in done.output
    right = [answer == row["bought"] for answer, row in zip(field.answers, field.asked[:380], strict=False)]
    interval = wilson_interval(sum(right), 380)
    whole = f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
    assert re.search(rf"1 +all +380 +{re.escape(whole)} +0\.9\d+ \(", done.output), done.output
    of_rome = [hit for hit, row in zip(right, field.asked, strict=False) if row["city"] == "Rome"]
    rome = f"{sum(of_rome) / len(of_rome):.4f} ("
    assert re.search(rf"1 +city = Rome +{len(of_rome)} +{re.escape(rome)}", done.output)

    lines = metrics.read_text().splitlines()
    assert f'ingraph_live_accuracy{{model="mine",version="1",slice=""}} {sum(right) / 380:.6g}' in lines
    assert f'ingraph_live_rows{{model="mine",version="1",slice="city = Rome"}} {len(of_rome)}' in lines
    assert 'ingraph_live_pending_rows{model="mine"} 20' in lines
    assert not list(tmp_path.glob("*.part"))
    shown = table(page_of(page), "Versions")
    assert shown["1"][:3] == ["all", "380", whole]
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page.read_text())

    # The reports of runs show what was found last.
    runs = field.workdir / "runs/mine"
    report = page_of(write_report(runs, run_ids(runs)[0]))
    assert table(report, "Versions")["1"][:3] == ["all", "380", whole]
    assert table(report, "Slices in the field")["1"][0].startswith("city = ")
    assert f"version 1 was by labels that came later, as ingraph truth found on {date.today().year}" in words(report)
    (runs / "truth.json").write_text("{")
    assert "In the field" not in words(page_of(write_report(runs, run_ids(runs)[0])))


def test_probabilities_are_those_of_the_answers_that_hold_them(field, late):
    from pipeline.config import load_config
    from pipeline.scoring.truth import join_truth

    found = join_truth(load_config(field.config), str(field.workdir), [field.logs()], [str(late)])
    whole = next(one for one in found.figures if not one.day and not one.slice)
    assert found.calibration is not None
    # Of each three requests of eight rows one is of serving_default, which answers no probability.
    assert sum(one.examples for one in found.calibration.bins) == 380 - 8 * 16
    assert 0 <= whole.ece.value < 0.2
    assert whole.ece.value == pytest.approx(found.calibration.expected_error, abs=0.05)


@pytest.mark.parametrize("processes", [None, 1], ids=["each-its-share", "one-takes-every-share"])
def test_logs_in_several_files_are_joined_by_several_processes_with_the_same_figures(
    field, late, tmp_path, monkeypatch, processes
):
    from pipeline.config import load_config
    from pipeline.scoring import truth
    from pipeline.scoring.truth import join_truth

    if processes:
        monkeypatch.setattr(truth, "ProcessPoolExecutor", lambda _, *others: ProcessPoolExecutor(processes, *others))

    (log,) = (field.workdir / "logs").iterdir()
    records = list(tf.data.TFRecordDataset(str(log)).as_numpy_iterator())
    for number in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"{number}.tfrecord")) as writer:
            for record in records[number::3]:
                writer.write(record)
    config = load_config(field.config)
    whole, parts = (
        join_truth(config, str(field.workdir), [place], [str(late)], fail_below=0.999)
        for place in (field.logs(), str(tmp_path))
    )
    assert parts.figures == whole.figures
    assert (parts.joined, parts.pending, parts.fell_after) == (380, 20, whole.fell_after)


def test_a_fall_ends_with_a_status_of_its_own(field, late, tmp_path):
    done = field.ingraph("truth", "--logs", field.logs(), "--labels", str(late), "--fail-below", "0.999")
    assert done.exit_code == ExitStatus.FELL
    assert re.search(r"fell +version 1 is right less often than 0\.999: known after \d+ rows", done.output)

    page = tmp_path / "truth.html"
    fine = field.ingraph(
        "truth", "--logs", field.logs(), "--labels", str(late), "--fail-below", "0.5", "--report", str(page)
    )
    assert "No fall of version 1 below 0.5 is known." in words(page_of(page))
    assert fine.exit_code == 0
    assert "no fall    of version 1 below 0.5 is known" in fine.output


def test_joined_rows_become_the_next_span(field, late):
    done = field.ingraph("truth", "--logs", field.logs(), "--labels", str(late), "--to-training")

    path = field.workdir / "spans/3/truth.csv"
    assert done.exit_code == 0, done.output
    assert f"380 rows written to {path}" in done.output
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path.unlink()
    as_numbers = [{**row, "income": str(float(row["income"]))} for row in field.asked[:380]]
    assert sorted(tuple(sorted({**row, "income": str(float(row["income"]))}.items())) for row in rows) == sorted(
        tuple(sorted(row.items())) for row in as_numbers
    )


def test_labels_by_another_key_and_labels_that_fit_nothing(field, late, tmp_path):
    by_income = [{"income": row["income"], "bought": row["bought"]} for row in field.asked[:40]]
    file = write_rows(tmp_path / "by_income.csv", [*by_income, {"income": "1000000", "bought": "no"}])
    done = field.ingraph("truth", "--logs", field.logs(), "--labels", str(file), "--key", "income")
    assert "answered rows by income; " in done.output
    assert "left out   1 labels of which no answer is logged" in done.output

    alien = write_rows(tmp_path / "alien.csv", [{"age": "1", "income": "1", "city": "Rome", "bought": "no"}])
    nothing = field.ingraph("truth", "--logs", field.logs(), "--labels", str(alien))
    assert nothing.exit_code == ExitStatus.BROKEN_INPUT
    assert "none of 400 answered rows has one of 1 labels by age, city, income" in nothing.output
    # A model is not blamed for labels of another spelling; of some that it does not know it is told.
    shouted = [{**row, "bought": row["bought"].upper()} for row in field.asked[:40]]
    loud = field.ingraph("truth", "--logs", field.logs(), "--labels", str(write_rows(tmp_path / "loud.csv", shouted)))
    assert loud.exit_code == ExitStatus.BROKEN_INPUT
    assert "none of 40 joined labels is one that the model knows: found '" in loud.output
    assert "expected 'no', 'yes'; preprocessing.label.names" in loud.output
    some = write_rows(tmp_path / "some.csv", [*field.asked[:30], *shouted[30:]])
    told = field.ingraph("truth", "--logs", field.logs(), "--labels", str(some))
    assert "unlike     10 rows have a label that no published version knows: '" in told.output
    no_label = write_rows(tmp_path / "no_label.csv", [{"age": "1", "city": "Rome"}])
    refused = field.ingraph("truth", "--logs", field.logs(), "--labels", str(no_label))
    assert refused.exit_code == ExitStatus.BROKEN_INPUT
    assert "expected a column 'bought', found age, city" in refused.output


def test_retrain_trains_only_where_the_live_figure_fell_or_withdraws_what_fell(field, late):
    truth = f"evaluation.truth={{logs: '{field.logs()}', labels: '{late}', at_least: %s, when_below: %s}}"
    holds = field.ingraph("retrain", "--set", truth % (0.5, "retrain"))
    assert holds.exit_code == ExitStatus.NO_NEW_DATA, holds.output

    base_path = str(field.workdir / "models/mine")
    (first,) = list_versions(base_path)
    other = {"data_fingerprint": "other", "code_fingerprint": "other", "run_id": "other"}
    publish(base_path, first.path, {**first.provenance, **other})
    from pipeline.config import load_config
    from pipeline.scoring.truth import retrains

    # The served version 2 has no labels; of the newest one that has, the figure counts.
    wanted, said = retrains(load_config(field.config, [truth % (0.999, "withdraw")]), str(field.workdir))
    assert wanted
    assert said.endswith("; it is withdrawn")
    assert sorted((one.number, one.withdrawn) for one in list_versions(base_path)) == [(1, True), (2, False)]
    assert retrains(load_config(field.config, [truth % (0.999, "retrain")]), str(field.workdir))[0]


# What needs no run.


def share_that_reaches_a_limit(bound: float, accuracy: float) -> float:
    """Of blocks of rows, exactly: the distribution of the wrong ones is followed row by row."""
    limits = fall_limits(bound)
    wrong = np.zeros(len(limits) + 1)
    wrong[0] = 1.0
    for limit in limits:
        wrong[1:], wrong[0] = wrong[1:] * accuracy + wrong[:-1] * (1 - accuracy), wrong[0] * accuracy
        wrong[limit:] = 0.0
    return 1 - wrong.sum()


@pytest.mark.parametrize(("bound", "found"), [(0.95, 0.995), (0.90, 0.958), (0.85, 0.904), (0.80, 0.845)])
def test_a_fall_of_five_points_is_found_within_500_rows_and_false_alarms_are_few(bound, found):
    assert 0.04 < share_that_reaches_a_limit(bound, bound) <= 0.05
    share = share_that_reaches_a_limit(bound, bound - 0.05)
    assert share >= found
    # The most powerful test of the share of right rows: one look at all of them, and a coin where it is undecided.
    beyond = int(stats.binom.isf(0.05, 500, 1 - bound))
    level, at = stats.binom.sf(beyond, 500, 1 - bound), stats.binom.pmf(beyond, 500, 1 - bound)
    of_fallen = 500, 1 - bound + 0.05
    most = stats.binom.sf(beyond, *of_fallen) + (0.05 - level) / at * stats.binom.pmf(beyond, *of_fallen)
    assert most - 0.007 < share <= most


def test_of_100_seeded_falls_at_least_90_are_found_and_of_100_models_at_the_bound_at_most_5_raise_an_alarm():
    def alarms(accuracy: float) -> int:
        tries = (np.random.default_rng(seed).random(500) < accuracy for seed in range(100))
        return sum(find_fall(right, 0.9) is not None for right in tries)

    assert alarms(0.85) >= 90
    assert alarms(0.90) <= 5


def test_a_fall_stays_found_when_more_labels_come_and_is_forgotten_after_better_blocks():
    right = np.ones(2000, bool)
    right[::5] = False
    found = find_fall(right[:300], 0.9)
    assert found is not None
    assert all(find_fall(right[:rows], 0.9) == found for rows in range(found, 1000, 50))
    right[500:] = True
    assert find_fall(right[:900], 0.9) == found
    assert find_fall(right[:1600], 0.9) is None


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        (63, "63.0"),
        (float(np.float32(0.1)), "0.10"),
        (-(2**31), ""),
        (float(np.float32(-1e38)), " "),
        (float("nan"), ""),
        (b" fixed", "fixed"),
        (b"02", "2"),
        (None, ""),
        (12345678, "12345678"),
    ],
)
def test_values_of_requests_are_those_of_files(sent, written):
    assert key_text(sent) == key_text(written)


def test_photos_are_known_by_their_files_however_they_were_sent():
    for kind in ("JPEG", "PNG", "GIF", "BMP"):
        file = photo("red", kind)
        assert file_key(photo_file(file)) == hashlib.sha256(file).hexdigest()
        assert file_key(photo_file(urlsafe_b64encode(file).rstrip(b"="))) == hashlib.sha256(file).hexdigest()


def test_photos_of_requests_are_read_as_what_they_are_known_by():
    files = [photo("red", "PNG"), photo("blue", "JPEG")]
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["image"].CopyFrom(tf.make_tensor_proto([urlsafe_b64encode(one) for one in files]))
    log.predict_log.response.outputs["output_0"].CopyFrom(tf.make_tensor_proto(["red", ""]))
    rows = AnswerReader(["sha256"], {"image": "sha256", "image_bytes": "sha256"}, {}).rows(log, 1)
    assert [row.features["sha256"] for row in rows] == [hashlib.sha256(one).hexdigest() for one in files]
    assert [(row.answered, row.probabilities) for row in rows] == [("red", None), ("", None)]
    whole = AnswerReader(None, {"image": "sha256"}, {}).rows(log, 1)
    assert [row.features["file"] for row in whole] == files


def test_photos_whose_labels_came_become_a_span_of_class_folders(tmp_path):
    publish_photos(tmp_path / "models/colours", explain=None)
    files = [photo("red", "PNG"), photo("blue", "JPEG"), photo("green", "PNG")]
    with tf.io.TFRecordWriter(str(tmp_path / "logs")) as writer:
        for name, values in (("image", [urlsafe_b64encode(files[0])]), ("image_bytes", files[1:])):
            log = prediction_log_pb2.PredictionLog()
            log.log_metadata.model_spec.name = "colours"
            log.log_metadata.model_spec.version.value = 1
            log.predict_log.request.model_spec.name = "colours"
            log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            log.predict_log.response.outputs["output_0"].CopyFrom(tf.make_tensor_proto(["red"] * len(values)))
            writer.write(log.SerializeToString())
    (tmp_path / "photos/7/red").mkdir(parents=True)
    (tmp_path / "photos/7/red/a.png").write_bytes(files[0])
    keys = [hashlib.sha256(file).hexdigest() for file in files]
    (tmp_path / "late.csv").write_text(f"sha256,label\n{keys[0]},red\n{keys[1]},blue\n")

    def asked(pattern: str):
        (tmp_path / "colours.yaml").write_text(
            f"name: colours\ntask: image\ndata: {{spans: {{path: '{pattern}', window: 2}}}}\n"
            "trainer: {mode: fine_tune, weights: none}\nevaluation: {at_least: {accuracy: 0.5}}\n"
        )
        places = ["--logs", str(tmp_path / "logs"), "--labels", str(tmp_path / "late.csv"), "--to-training"]
        return CliRunner().invoke(main, ["truth", str(tmp_path / "colours.yaml"), "--workdir", str(tmp_path), *places])

    done = asked("photos/{SPAN}/*/*")
    assert done.exit_code == 0, done.output
    assert "joined     2 answered rows by sha256; 1 have no label yet" in done.output
    assert f"2 rows written to {tmp_path}/photos/8" in done.output
    found = {str(path.relative_to(tmp_path / "photos/8")): path for path in (tmp_path / "photos/8").rglob("*.*")}
    assert found.keys() == {f"red/{keys[0]}.png", f"blue/{keys[1]}.jpeg"}
    assert [found[f"red/{keys[0]}.png"].read_bytes(), found[f"blue/{keys[1]}.jpeg"].read_bytes()] == files[:2]
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["7", "8"]
    (_, newest) = find_spans(f"{tmp_path}/photos/{{SPAN}}/*/*")
    assert (newest.name, len(newest.files)) == ("8", 2)

    refused = asked("photos/{SPAN}.csv")
    assert refused.exit_code == ExitStatus.BROKEN_INPUT
    assert "photos/{SPAN}.csv: expected spans of photos here, such as photos/{SPAN}/*/*" in refused.output
    (tmp_path / "late.csv").write_text(f"sha256,label\n{keys[0]},a/b\n")
    no_folder = asked("photos/{SPAN}/*/*")
    assert "the label 'a/b' can be no folder" in no_folder.output
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["7", "8"]


def test_classifications_and_answers_of_versions_that_are_gone():
    log = prediction_log_pb2.PredictionLog()
    request = log.classify_log.request.input.example_list.examples.add()
    request.features.feature["id"].int64_list.value.append(7)
    classes = log.classify_log.response.result.classifications.add().classes
    for label, score in (("no", 0.25), ("yes", 0.75)):
        classes.add(label=label, score=score)
    (row,) = AnswerReader(["id"], {}, {}).rows(log, 1)
    assert (row.features, row.answered, row.probabilities) == ({"id": 7}, "yes", [0.25, 0.75])

    gone = prediction_log_pb2.PredictionLog()
    gone.log_metadata.model_spec.version.value = 3
    gone.predict_log.request.inputs["id"].CopyFrom(tf.make_tensor_proto([1]))
    gone.predict_log.response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto([[0.5, 0.5]]))
    with pytest.raises(ValueError, match="version 3 is not there any more"):
        AnswerReader(["id"], {}, {1: ["a", "b"]}).rows(gone, version_of(gone))
    (row,) = AnswerReader(["id"], {}, {3: ["a", "b"]}).rows(gone, version_of(gone))
    assert row.answered == "a"


def test_the_last_label_of_a_key_counts_and_files_may_be_gzipped_or_parquet(tmp_path):
    import gzip

    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(b"id,kind\n1,cat\n2,dog\n3,\n"))
    pa.parquet.write_table(pa.table({"kind": ["dog", "cat"], "id": [1, 4]}), tmp_path / "2.parquet")
    late = read_labels_file([str(tmp_path)], "kind", {"cat": "Cat"}, ["id", "other"], ())

    assert late.columns == ("id",)
    assert {key: late.labels[number] for key, number in late.numbers.items()} == {"1": "dog", "2": "dog", "4": "Cat"}
    assert late.twice == 1


def test_labels_are_read_as_what_the_model_knows_them_by_and_others_stay_as_they_are(tmp_path):
    file = tmp_path / "late.csv"
    file.write_text("id,ill\n1,1.0\n2, yes \n3,YES\n4,0\n5,  \n6,\n7,2.0\n")
    late = read_labels_file([str(file)], "ill", {"0": "no", "1": "yes"}, ["id"], (), {"no", "yes"})
    found = {key: (late.labels[number], late.raw[number]) for key, number in late.numbers.items()}
    assert found == {
        "1": ("yes", "1"),
        "2": ("yes", "yes"),
        "3": ("YES", "YES"),
        "4": ("no", "0"),
        "7": ("2.0", "2.0"),
    }
    exact = read_labels_file([str(file)], "ill", {}, ["id"], (), {"1", "1.0"})
    assert (exact.labels[exact.numbers["1"]], exact.labels[exact.numbers["4"]]) == ("1.0", "0")
    for content, said in (("id,ill\n1,\n", "no row has a label in the column 'ill'"), ("id,id,ill\n1,1,0\n", "twice")):
        file.write_text(content)
        with pytest.raises(BrokenInput, match=said):
            read_labels_file([str(file)], "ill", {}, ["id"], ())


def test_the_next_span_comes_after_those_that_are_there(tmp_path):
    for number in (2, 10):
        write_rows(tmp_path / f"{number}/a.csv", [{"a": "1"}])
    write_rows(tmp_path / "days/2999-12-31.csv", [{"a": "1"}])

    assert next_span_file(f"{tmp_path}/{{SPAN}}/*.csv") == f"{tmp_path}/11/truth.csv"
    assert next_span_file(f"{tmp_path}/days/{{YYYY}}-{{MM}}-{{DD}}.csv") == f"{tmp_path}/days/3000-01-01.csv"
    assert next_span_file(f"{tmp_path}/none/{{SPAN}}.csv") == f"{tmp_path}/none/1.csv"
