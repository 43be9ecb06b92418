"""A compiled pipeline, a container command at a time, against the same pipeline run here."""

from __future__ import annotations

import csv

import pytest

from pipeline import demo_data
from serving.model_store import list_versions, verify
from serving.session_model import SessionModel
from tests.pipeline.conftest import ingraph
from tests.pipeline.report_page import page_of, table, words


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """The compiled heart pipeline, with everything below one folder of this machine."""
    folder = tmp_path_factory.mktemp("rehearsal")
    compiled = ingraph(
        "compile",
        "configs/heart.yaml",
        *("--target", "kubeflow", "-o", f"{folder}/heart.yaml", "--stage", "--workdir", str(folder)),
        *("--set", "cluster.image=unused", "--set", f"cluster.pipeline_root={folder}/shared"),
    )
    assert compiled.status == 0, compiled.errors
    assert compiled.output.splitlines()[:2] == [
        f"{folder}/heart.yaml: 12 steps, for kubeflow",
        f"publishes into {folder}/shared/models/heart",
    ]
    return folder / "heart.yaml"


def served_examples(base_path) -> SessionModel:
    (version,) = list_versions(str(base_path))
    assert verify(version) == []
    return SessionModel(version.path)


def test_every_step_s_command_runs_and_the_published_model_answers_as_that_of_a_local_run(spec, heart_run):
    rehearsed = ingraph("rehearse", str(spec), "--root", str(spec.parent / "shared"))
    assert rehearsed.status == 0, rehearsed.output
    steps = [line.split()[0] for line in rehearsed.output.splitlines() if line.startswith("  ")]
    assert (
        steps.index("CsvExampleGen") < steps.index("Transform") < steps.index("Trainer") < steps.index("ServingPusher")
    )
    assert "ServingPusher: published as version 1" in rehearsed.output
    page = page_of(rehearsed.output.splitlines()[-1].removeprefix("report     "))
    assert "The new model may go live. All 4 gates passed. Published as version 1." in words(page)
    assert table(page, "Metrics, with")["accuracy"][0].startswith("0.")
    lineage = table(page, "The model served when this report was made")
    assert (lineage["version"], lineage["lies in"]) == (["1"], [f"{spec.parent}/shared/models/heart/1"])

    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    local, compiled = served_examples(heart_run.base_path), served_examples(spec.parent / "shared/models/heart")
    columns = {
        name: [value if name == "thal" else float(value) if name == "oldpeak" else int(value) for value in values]
        for name in rows[0]
        if name != "target"
        for values in [[row[name] for row in rows]]
    }
    here, there = local.run("classify", columns), compiled.run("classify", columns)
    assert here["labels"].tolist() == there["labels"].tolist()
    assert here["probabilities"] == pytest.approx(there["probabilities"], abs=1e-6)


def test_a_step_that_cannot_go_on_is_named_with_its_reason_and_log(spec, tmp_path):
    failed = ingraph("rehearse", str(spec), "--root", str(tmp_path), "--parameter", f"data={tmp_path}/nothing")
    assert failed.status != 0
    assert "stopped    CsvExampleGen failed:" in failed.output
    assert f"{tmp_path}" in failed.output and "log.txt" in failed.output


def test_what_is_no_compiled_pipeline_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("- a list\n")
    refused = ingraph("rehearse", str(tmp_path / "other.yaml"), "--root", str(tmp_path))
    assert refused.status == 2
    assert "other.yaml: not a compiled pipeline; `ingraph compile` writes one" in refused.output
