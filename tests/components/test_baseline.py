from pathlib import Path

import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.baseline.executor import Executor
from components.errors import NotPublished
from serving.model_store import publish, withdraw
from serving.session_model import SessionModel

FIRST = {"data_fingerprint": "data-1", "code_fingerprint": "code-1"}
SECOND = {"data_fingerprint": "data-2", "code_fingerprint": "code-1"}


@pytest.fixture
def baseline(artifact, tmp_path):
    """Runs the executor; answers its Model artifact."""

    def run(base_path=None):
        model = artifact(standard_artifacts.Model, "baseline")
        Executor().Do({}, {"model": [model]}, {"base_path": base_path or str(tmp_path / "models"), "run_id": "run-1"})
        return model

    return run


def properties(model) -> tuple[int, int]:
    return model.get_int_custom_property("has_model"), model.get_int_custom_property("served_version")


def test_nothing_served_leaves_the_artifact_empty(baseline):
    model = baseline()
    assert properties(model) == (0, 0)
    assert list(Path(model.uri).iterdir()) == []


def test_the_served_model_is_copied_where_tfx_looks_for_a_model(baseline, trained, tmp_path):
    exported = Path(trained().uri, "Format-Serving")
    publish(str(tmp_path / "models"), str(exported), FIRST)
    publish(str(tmp_path / "models"), str(exported), SECOND)
    model = baseline()
    assert properties(model) == (1, 2)
    copied = Path(path_utils.serving_model_path(model.uri))
    assert (copied / "saved_model.pb").read_bytes() == (exported / "saved_model.pb").read_bytes()
    assert b"data-2" in (copied / "assets.extra" / "provenance.json").read_bytes()
    SessionModel(str(copied)).close()


def test_a_withdrawn_model_is_never_the_baseline(baseline, trained, tmp_path):
    exported = f"{trained().uri}/Format-Serving"
    base_path = str(tmp_path / "models")
    publish(base_path, exported, FIRST)
    publish(base_path, exported, SECOND)
    withdraw(base_path)
    model = baseline()
    assert properties(model) == (1, 1)
    assert b"data-1" in Path(model.uri, "Format-Serving", "assets.extra", "provenance.json").read_bytes()
    withdraw(base_path)
    assert properties(baseline()) == (0, 0)


def test_a_base_path_that_cannot_be_read_stops_the_run_with_a_sentence(baseline, tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(NotPublished, match="file"):
        baseline(str(tmp_path / "file"))
