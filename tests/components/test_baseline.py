from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.baseline.component import Baseline, Executor
from components.errors import NotPublished
from components.serving_pusher.component import ServingPusher
from serving.model_store import list_versions, publish, withdraw
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


@pytest.fixture
def run_pipeline(trained, tmp_path):
    model = trained()
    database = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def run(run_id: str) -> dict[str, list]:
        """Run with caching on; answers what all runs so far came to."""
        importer = Importer(source_uri=model.uri, artifact_type=standard_artifacts.Model).with_id("Trained")
        base_path = str(tmp_path / "models")
        baseline = Baseline(base_path, run_id)
        pusher = ServingPusher(importer.outputs["result"], base_path, run_id, "colours")
        pusher.add_upstream_node(baseline)
        LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="colours",
                pipeline_root=str(tmp_path / "root"),
                components=[importer, baseline, pusher],
                enable_cache=True,
                metadata_connection_config=database,
            )
        )
        return _outcomes(ml_metadata.MetadataStore(database))

    run.models = tmp_path / "models"
    return run


def _outcomes(store: ml_metadata.MetadataStore) -> dict[str, list]:
    executions = [*store.get_executions_by_type(_name(Baseline)), *store.get_executions_by_type(_name(ServingPusher))]
    states = [metadata_store_pb2.Execution.State.Name(execution.last_known_state) for execution in executions]
    baselines = [model for model in store.get_artifacts_by_type("Model") if "has_model" in model.custom_properties]
    pushes = store.get_artifacts_by_type("PushedModel")
    return {
        "states": sorted(states),
        "baselines": [model.custom_properties["has_model"].int_value for model in baselines],
        "reasons": [push.custom_properties["reason"].string_value for push in pushes],
    }


def _name(component: type) -> str:
    return f"{component.__module__}.{component.__name__}"


def test_each_run_looks_at_what_is_served(run_pipeline):
    first, second = "published as version 1", "already published as version 1"
    assert run_pipeline("run-1") == {"states": ["COMPLETE"] * 2, "baselines": [0], "reasons": [first]}
    assert run_pipeline("run-2") == {"states": ["COMPLETE"] * 4, "baselines": [0, 1], "reasons": [first, second]}
    run_pipeline.models.rename(Path(f"{run_pipeline.models}-wiped"))
    assert run_pipeline("run-3") == {
        "states": ["COMPLETE"] * 6,
        "baselines": [0, 1, 0],
        "reasons": [first, second, first],
    }
    (version,) = list_versions(str(run_pipeline.models))
    assert version.provenance["run_id"] == "run-3"


def test_the_cache_would_answer_without_a_fresh_run_id(run_pipeline):
    run_pipeline("run-1")
    assert run_pipeline("run-1")["states"] == ["CACHED", "CACHED", "COMPLETE", "COMPLETE"]
