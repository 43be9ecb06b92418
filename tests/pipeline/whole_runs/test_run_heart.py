"""The demo from its CSV file to a served label: what a newcomer sees, and that every way to ask gives one answer."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from pipeline import demo_data
from pipeline.exit_status import ExitStatus
from pipeline.history import read_past_run
from serving.missing_values import MISSING_FLOAT, MISSING_INTEGER, MISSING_STRING
from serving.model_store import list_versions, served_version, verify
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.pipeline.conftest import PROJECT, HeartRun, ingraph, strings, training_graphs_answers

FLOATS, STRINGS = {"oldpeak"}, {"thal"}
LABELS = ["disease", "healthy"]


def typed(row: dict[str, str]) -> dict[str, Any]:
    return {
        name: value if name in STRINGS else float(value) if name in FLOATS else int(value)
        for name, value in row.items()
        if name != "target"
    }


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """All 303 patients, and one of them with each column missing, each category unseen, each number far out."""
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        patients = [typed(row) for row in csv.DictReader(file)]
    assert len(patients) == 303
    missing = dict.fromkeys(patients[0], MISSING_INTEGER) | {"oldpeak": MISSING_FLOAT, "thal": MISSING_STRING}
    variants = [{**patients[0], name: value} for name, value in missing.items()]
    variants += [{**patients[0], name: 99} for name in patients[0] if name not in STRINGS]
    variants += [{**patients[0], "thal": "never seen"}, {**patients[0], "oldpeak": float("nan")}, missing]
    return patients + variants


@pytest.fixture(scope="module")
def columns(rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def serialized(rows) -> list[bytes]:
    """The rows as examples; what is missing is left out of them, as TableExampleGen does."""
    return [example(row) for row in rows]


def example(row: dict[str, Any]) -> bytes:
    result = tf.train.Example()
    for name, value in row.items():
        if value in (MISSING_INTEGER, MISSING_FLOAT, MISSING_STRING):
            continue
        feature = result.features.feature[name]
        if name in STRINGS:
            feature.bytes_list.value.append(value.encode())
        elif name in FLOATS:
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return result.SerializeToString()


@pytest.fixture(scope="module")
def training_graph(heart_run: HeartRun, serialized) -> np.ndarray:
    """What the members say after Transform's graph, blended: probabilities in the order of LABELS."""
    (graph,) = (heart_run.artifacts / "Transform/transform_graph").iterdir()
    (model,) = (heart_run.artifacts / "Trainer/model").iterdir()
    transform = tft.TFTransformOutput(str(graph))
    assert [label.decode() for label in transform.vocabulary_by_name("labels")] == LABELS
    spec = {name: feature for name, feature in transform.raw_feature_spec().items() if name != "target"}
    features = transform.transform_features_layer()(tf.io.parse_example(serialized, spec))
    return training_graphs_answers(model, features)


@pytest.fixture(scope="module")
def server(heart_run: HeartRun) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"heart": str(heart_run.base_path)}, ServerOptions(rest_port=0, grpc_port=0)) as running:
        yield running


def test_a_newcomer_reads_the_verdicts_the_labels_and_what_to_type_next(heart_run: HeartRun):
    output = heart_run.finished.output
    assert heart_run.finished.status == 0, output + heart_run.finished.errors
    for component in (
        "TableExampleGen",
        "DataGate",
        "Transform",
        "Trainer",
        "Evaluator",
        "ServingCheck",
        "ServingPusher",
    ):
        assert component in output
    assert "'thal': '2' (1 row)" in output or "'thal': '1' (1 row)" in output
    assert "Correct them, or list them in configs/schemas/hearts.pbtxt." in output
    assert f"published as version 1: {heart_run.base_path}/1" in output
    assert f"ingraph serve --model heart={heart_run.base_path}" in output
    answers = [line.rpartition("-> ")[2] for line in output.splitlines() if line.startswith(("REST", "gRPC"))]
    assert len(answers) == 2 and answers[0] == answers[1] and answers[0] in LABELS
    assert heart_run.finished.errors == ""


def test_the_label_of_serving_default_is_the_training_graphs(client, columns, training_graph):
    answer = client.predict("heart", columns)
    assert list(answer) == ["output_0"]
    assert strings(answer["output_0"]) == [LABELS[best] for best in training_graph.argmax(axis=1)]


def test_classify_gives_the_training_graphs_labels_and_probabilities_best_first(client, columns, training_graph):
    answer = client.predict("heart", columns, signature="classify")
    order = np.argsort(-training_graph, axis=1, kind="stable")
    labels = np.array(strings(answer["labels"])).reshape(-1, 2)
    np.testing.assert_array_equal(labels, np.array(LABELS)[order])
    expected = np.take_along_axis(training_graph, order, axis=1)
    np.testing.assert_allclose(np.asarray(answer["probabilities"], np.float32), expected, atol=1e-6)
    assert set(strings(answer["error"])) == {""}


def test_serve_examples_gives_the_training_graphs_probabilities(client, serialized, training_graph):
    answer = client.predict("heart", {"examples": serialized}, signature="serve_examples")
    np.testing.assert_allclose(np.asarray(answer["probabilities"], np.float32), training_graph, atol=1e-6)


def test_a_row_gets_the_same_answer_alone_and_as_a_column_of_one(client, columns, training_graph):
    for row in (0, 150, 302):
        alone = {name: [values[row]] for name, values in columns.items()}
        nested = {name: [[values[row]]] for name, values in columns.items()}
        expected = [LABELS[training_graph[row].argmax()]]
        assert strings(client.predict("heart", alone)["output_0"]) == expected
        assert strings(client.predict("heart", nested)["output_0"]) == expected


def test_the_model_beats_chance_on_the_patients(rows, training_graph):
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        truth = ["disease" if row["target"] == "1" else "healthy" for row in csv.DictReader(file)]
    predicted = [LABELS[best] for best in training_graph[:303].argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(truth, predicted, strict=True)]) > 0.8


def test_the_export_runs_in_a_session_where_only_tensorflow_is_imported(heart_run: HeartRun, columns, training_graph):
    script = (
        "import json, sys\n"
        "import tensorflow as tf\n"
        "columns = json.load(sys.stdin)\n"
        "with tf.compat.v1.Session(graph=tf.Graph()) as session:\n"
        f"    meta = tf.compat.v1.saved_model.loader.load(session, ['serve'], {str(heart_run.base_path / '1')!r})\n"
        "    signature = meta.signature_def['serving_default']\n"
        "    feeds = {signature.inputs[name].name: values for name, values in columns.items()}\n"
        "    labels = session.run(signature.outputs['output_0'].name, feeds)\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in "
        "('tfx', 'tensorflow_transform', 'serving', 'trainers', 'tfx_bsl')]\n"
        "print(json.dumps([[label.decode() for label in labels], loaded]))\n"
    )
    finite = {name: values[:303] for name, values in columns.items()}
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(finite), capture_output=True, text=True, check=True
    )
    labels, loaded = json.loads(done.stdout)
    assert loaded == []
    assert labels == [LABELS[best] for best in training_graph[:303].argmax(axis=1)]


def test_the_published_version_carries_its_provenance_and_checksums(heart_run: HeartRun):
    version = served_version(str(heart_run.base_path))
    assert version is not None and version.number == 1
    assert verify(version) == []
    assert {"data_fingerprint", "code_fingerprint", "run_id", "metrics", "checksums"} <= set(version.provenance)
    assert version.provenance["metrics"]["auc"] > 0.8


def test_the_report_and_the_provenance_say_what_was_tried_and_what_is_kept(heart_run: HeartRun):
    version = served_version(str(heart_run.base_path))
    tried = version.provenance["members"]
    assert list(tried["members"]) == ["linear", "trees", "forest"] and tried["folds"] == 5 and tried["left_out"] == []
    assert sum(one["weight"] for one in tried["members"].values()) == pytest.approx(1)
    page = min((heart_run.workdir / "runs/heart/reports").glob("*.html")).read_text()  # of the first run
    assert f"Kept: <strong>{tried['kept']}</strong>" in page
    for one in [*tried["members"].values(), tried["blend"]]:
        value, low, high = one["cross_entropy"]
        assert low < value < high and f"{value:.4f} ({low:.4f} to {high:.4f})" in page
    for before_and_after in (tried["calibration"][name] for name in ("cross_entropy", "ece")):
        assert all(f'<td class="number">{value:.4f}</td>' in page for value in before_and_after)


def test_the_next_run_repeats_nothing_and_publishes_nothing_twice_until_the_base_path_is_wiped(
    heart_run: HeartRun, monkeypatch
):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    again = ingraph("run", "configs/heart.yaml", "--workdir", str(heart_run.workdir), fresh=True)
    monkeypatch.delenv("PYTHONPROFILEIMPORTTIME")
    assert again.status == 0, again.output
    imported = {line.rpartition("|")[2].strip() for line in again.errors.splitlines()}
    assert {"pyarrow", "pipeline.run"} <= imported
    assert not {"tensorflow", "tfx", "apache_beam", "pandas", "sklearn", "scipy"} & imported
    first = heart_run.finished.output
    first_id, run_id = (re.search(r"heart: run (\S+)", output)[1] for output in (first, again.output))
    assert f"nothing has changed since run {first_id}" in again.output and "loading TFX" not in again.output
    steps = [line.split() for line in again.output.splitlines() if line.startswith("  ") and "ingraph" not in line]
    assert [name for name, *state in steps if state == ["unchanged"]] == [
        line.split()[0] for line in first.splitlines() if line.startswith("  ") and line.endswith(" s")
    ][:-1]
    assert "already published as version 1" in again.output
    # The verdicts, the label and what to type next, word for word.
    kept = [
        line for line in first.splitlines() if line.startswith(("metrics", "evaluation", "serving", "REST", "gRPC"))
    ]
    assert len(kept) == 5 and set(kept) <= set(again.output.splitlines())
    assert [version.number for version in list_versions(str(heart_run.base_path))] == [1]

    past = read_past_run(heart_run.workdir / "runs/heart", run_id)
    assert (past.verdict, past.version) == ("published", "1")
    assert past.reason == "already published as version 1"
    assert {step.state for step in past.steps} == {"unchanged"} and len(past.steps) == len(steps) - 1
    assert past.report.endswith(f"{first_id}.html")

    elsewhere = heart_run.workdir / "elsewhere"
    moved = ingraph("run", "configs/heart.yaml", "--workdir", str(heart_run.workdir), "--set", f"models={elsewhere}")
    assert moved.status == 0, moved.output
    assert "Trainer           unchanged" in moved.output.replace("  Trainer", "Trainer")
    assert f"published as version 1: {elsewhere}/heart/1" in moved.output

    withdrawn = ingraph("models", "withdraw", f"{elsewhere}/heart")
    assert withdrawn.status == 0, withdrawn.errors
    refused = ingraph("run", "configs/heart.yaml", "--workdir", str(heart_run.workdir), "--set", f"models={elsewhere}")
    assert refused.status == ExitStatus.NOT_PUBLISHED, refused.output
    assert "this model was withdrawn" in refused.output


def test_a_full_disk_under_the_base_path_ends_in_a_sentence_and_leaves_no_version(heart_run: HeartRun, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        full = ingraph("run", "configs/heart.yaml", "--workdir", str(heart_run.workdir), "--set", f"models={tmp_path}")
        versions = [path.name for path in (tmp_path / "heart").iterdir() if path.name.isdigit()]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert full.status == 6, full.output
    assert "No space left" in full.output or "disk is full" in full.output
    assert "Traceback" not in full.output
    assert versions == []


def test_a_change_deep_in_what_transform_imports_runs_it_again_and_one_outside_does_not(heart_run: HeartRun, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(
        PROJECT, project, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "models", "__pycache__", "*.egg-info")
    )

    def run_with_changed(*sources: str) -> dict[str, str]:
        for source in sources:
            with (project / source).open("a") as file:
                file.write("\n# A changed line.\n")
        changed = ingraph("run", "configs/heart.yaml", "--workdir", str(heart_run.workdir), project=project)
        assert changed.status == 0, changed.output
        states = {line.split()[0]: line.split()[1] for line in changed.output.splitlines() if line.startswith("  ")}
        return states | {
            "published": str(f"published as version 2: {heart_run.base_path}/2" in changed.output),
            "repeats": str("nothing has changed since run" in changed.output),
        }

    outside = run_with_changed("serving/server/rest.py", "trainers/text/train.py", "components/errors.py")
    assert outside["Transform"] == outside["Trainer"] == "unchanged"
    assert outside["published"] == outside["repeats"] == "False"
    # Also where the version that is served is of a run before that one.
    assert run_with_changed()["repeats"] == "True"

    # transform.tabular -> transform.labels -> serving.signatures.common -> this
    deep = run_with_changed("serving/missing_values.py")
    assert deep["TableExampleGen"] == deep["StatisticsGen"] == "unchanged"
    assert deep["Transform"] != "unchanged" and deep["Trainer"] != "unchanged"
    assert deep["published"] == "True"
