"""Baseline and ServingPusher in a cached pipeline: what is served decides, never what an earlier run did."""

from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts

from components.baseline.component import Baseline
from components.serving_pusher.component import ServingPusher
from serving.model_store import list_versions


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
