"""The model that is served now, and what keeps a new one from those who ask it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import ml_metadata
import pytest
import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.baseline import Baseline, Executor
from components.compatibility_check import CompatibilityCheck, class_changes
from components.errors import IncompatibleModel, NotPublished
from components.serving_pusher import ServingPusher
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


COLUMNS = {"age": tf.int64, "city": tf.string}


def model(folder, columns=COLUMNS, labels=("no", "yes"), signatures=("classify", "serving_default"), output=tf.string):
    """An artifact with a model of these columns, whose signatures differ in nothing but their names."""

    @tf.function(input_signature=[{name: tf.TensorSpec([None], dtype, name=name) for name, dtype in columns.items()}])
    def answer(columns):
        return {
            "output_0": tf.fill([tf.size(next(iter(columns.values())))], tf.constant(0 if output != tf.string else ""))
        }

    def flat(**values):
        return answer(values)

    specs = {name: tf.TensorSpec([None], dtype, name=name) for name, dtype in columns.items()}
    concrete = tf.function(flat).get_concrete_function(**specs)
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    saved = folder / "Format-Serving"
    tf.saved_model.save(tf.Module(), str(saved), signatures=dict.fromkeys(signatures, concrete))
    (saved / "assets").mkdir(exist_ok=True)
    (saved / "assets/labels").write_text("".join(f"{label}\n" for label in labels))
    artifact.set_int_custom_property("has_model", 1)
    artifact.set_int_custom_property("served_version", 7)
    return artifact


def check(tmp_path, class_changes="stop", **changed):
    served, candidate = model(tmp_path / "served"), model(tmp_path / "candidate", **changed)
    CompatibilityCheck.EXECUTOR_SPEC.executor_class().Do(
        {"model": [candidate], "baseline_model": [served]}, {}, {"class_changes": class_changes}
    )


def test_a_model_that_answers_the_same_requests_passes(tmp_path):
    check(tmp_path)


def test_another_signature_harms_nobody(tmp_path):
    check(tmp_path, signatures=("classify", "explain", "serving_default"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": COLUMNS | {"income": tf.float32}}, r"classify: new input 'income', float32 \[-1\]"),
        ({"columns": {"age": tf.int64}}, "classify: the input 'city' is gone"),
        ({"columns": {"age": tf.float32, "city": tf.string}}, r"input 'age' is float32 \[-1\], before int64 \[-1\]"),
        ({"signatures": ("serving_default",)}, "the signature 'classify' is gone"),
        ({"output": tf.int32}, "serving_default: output 'output_0' is int32, before string"),
        ({"labels": ("maybe", "no", "yes")}, "compared with version 7, served now: new class 'maybe'"),
        ({"labels": ("no",)}, "class 'yes' is gone"),
    ],
)
def test_what_a_client_would_notice_stops_the_run(tmp_path, changed, said):
    with pytest.raises(IncompatibleModel, match=said):
        check(tmp_path, **changed)


UNKNOWN = {"unknown": {"label": "unsure", "threshold": 0.7}}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (UNKNOWN, UNKNOWN, ""),
        ({}, UNKNOWN, "serving_default may answer 'unsure' for unknown, which the served model never does"),
        (UNKNOWN, {}, "the answer 'unsure' for unknown is gone"),
        ({"unknown": {"label": "?", "threshold": 0.7}}, UNKNOWN, r"may answer 'unsure' for unknown, before '\?'"),
    ],
)
def test_an_answer_for_unknown_that_is_new_or_gone_stops_the_run_unless_classes_may_change(
    tmp_path, before, after, said
):
    served, candidate = model(tmp_path / "served"), model(tmp_path / "candidate")
    published = tmp_path / "served/Format-Serving/assets.extra/provenance.json"
    published.parent.mkdir()
    for file, provenance in ((published, before), (tmp_path / "candidate/provenance.json", after)):
        file.write_text(json.dumps(provenance))
    inputs = {"model": [candidate], "baseline_model": [served]}
    CompatibilityCheck.EXECUTOR_SPEC.executor_class().Do(inputs, {}, {"class_changes": "allow"})
    with pytest.raises(IncompatibleModel, match=said) if said else nullcontext():
        CompatibilityCheck.EXECUTOR_SPEC.executor_class().Do(inputs, {}, {"class_changes": "stop"})


def test_classes_may_change_where_the_config_allows_it_and_inputs_still_may_not(tmp_path):
    check(tmp_path / "classes", class_changes="allow", labels=("maybe", "yes"))
    with pytest.raises(IncompatibleModel, match="the input 'city' is gone"):
        check(tmp_path / "inputs", class_changes="allow", labels=("maybe", "yes"), columns={"age": tf.int64})


def test_without_a_served_model_everything_is_compatible(tmp_path):
    nothing = standard_artifacts.Model()
    nothing.set_int_custom_property("has_model", 0)
    inputs = {"model": [model(tmp_path / "candidate")], "baseline_model": [nothing]}
    CompatibilityCheck.EXECUTOR_SPEC.executor_class().Do(inputs, {}, {"class_changes": "stop"})


def test_classes_in_another_order_are_said():
    (said,) = class_changes(["no", "yes"], ["yes", "no"])
    assert said.startswith("the classes are in another order, 'yes', 'no', before 'no', 'yes'")
