"""`tuner` in a config: the search, the model that is trained with what it found, and what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.components.trainer.fn_args_utils import FnArgs

from components.errors import BrokenInput
from components.tuner import FinishedTrial, Trials, read_trials, write_trials
from pipeline.config import load_config
from pipeline.exit_status import ExitStatus
from pipeline.history import run_ids
from pipeline.run import run, tune
from pipeline.runners.compile import cluster_pipeline
from serving.model_store import list_versions
from tests.pipeline.conftest import PROJECT
from trainers.tuning import BestHyperparameters

CONFIG = """
name: mine
task: tabular
data: {path: data.csv, minimum_examples: 5}
preprocessing: {label: {column: bought}}
trainer: {model: network, epochs: 20}
tuner: {trials: 3, space: {hidden_units: [[5], [7, 3]], learning_rate: {min: 0.01, max: 0.1}}}
evaluation: {at_least: {auc: 0.6}}
"""


def table(rows: int = 160) -> str:
    """Two numbers; who has a large sum buys."""
    ages, incomes = np.random.default_rng(0).normal(50, 9, size=[2, rows])
    lines = [f"{age:.2f},{income:.2f},{int(age + income > 100)}" for age, income in zip(ages, incomes, strict=True)]
    return "\n".join(["age,income,bought", *lines])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """Where a config and its data are; what one test has made of them, another need not make again."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "data.csv").write_text(table())
    (folder / "mine.yaml").write_text(CONFIG)
    return folder


def one(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


def test_the_trainer_takes_over_what_ingraph_tune_has_found(workdir, capfd):
    config = load_config(f"{workdir}/mine.yaml")
    artifacts, models = workdir / "runs/mine/artifacts", str(workdir / "models/mine")
    assert tune(config, str(workdir)) == ExitStatus.PUBLISHED
    shown = capfd.readouterr().out
    results = one(artifacts, "Tuner/tuner_results/*")
    trials = read_trials(str(results))
    assert trials.best.metrics["auc"] == max(trial.metrics["auc"] for trial in trials.trials)
    assert [trial.number for trial in trials.trials] == ["0", "1", "2"]
    (heading,) = [line.split() for line in shown.splitlines() if line.startswith("trial ")]
    assert any(f"{trials.best.metrics['auc']:.4f}" in line for line in shown.splitlines())
    assert heading == ["trial", "auc", "accuracy", "cross_entropy", "hidden_units", "learning_rate"]
    pasted, _, rest = shown[shown.index("trainer:\n") :].partition("\n\n")
    assert yaml.safe_load(pasted) == {"trainer": trials.best.values}
    assert f"tensorboard --logdir {results}/tensorboard" in rest
    assert sorted(path.name for path in (results / "tensorboard").iterdir()) == ["0", "1", "2"]
    # No model was made, and no run of one.
    assert list_versions(models) == [] and run_ids(workdir / "runs/mine") == []

    assert run(config, str(workdir)) == ExitStatus.PUBLISHED
    steps = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines() if line.startswith("  "))
    assert steps["Tuner"] == steps["Transform"] == "unchanged"
    model = keras.models.load_model(one(artifacts, "Trainer/model/*/model.keras"))
    widths = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.units != 2]
    assert widths == trials.best.values["hidden_units"]
    (version,) = list_versions(models)
    assert version.provenance["hyperparameters"] == trials.best.values
    assert f"hidden_units: {widths}" in one(workdir, "runs/mine/reports/*.html").read_text()
    # The learning curve of the Trainer, for TensorBoard.
    assert len(list(artifacts.glob("Trainer/model_run/*/events.out.tfevents.*"))) == 1


def test_a_search_without_any_trained_model_stops_with_the_reasons(workdir, capfd):
    config = load_config(f"{workdir}/mine.yaml", ["tuner={trials: 2, space: {hidden_units: [[0], [-1]]}}"])
    assert tune(config, str(workdir)) == ExitStatus.BROKEN_INPUT
    shown = capfd.readouterr().out
    assert "none of the tuner's 2 trials came to an end: trial 0: ValueError: " in shown
    assert "or give tuner.space other values" in shown
    # The next search begins anew.
    assert list((workdir / "runs/mine/artifacts/Tuner/unfinished").iterdir()) == []


def test_other_values_are_another_model_for_the_model_store():
    def best(**values: Any) -> BestHyperparameters:
        found = {"space": [], "values": values} if values else None
        return BestHyperparameters.of(FnArgs(custom_config={"code_fingerprint": "code"}, hyperparameters=found))

    assert best() == BestHyperparameters("code", {})
    assert best(l2=0.1) == best(l2=0.1)
    assert len({best().code_fingerprint, best(l2=0.1).code_fingerprint, best(l2=0.2).code_fingerprint}) == 3
    assert best(hidden_units="[7, 3]").values == {"hidden_units": [7, 3]}


def test_trials_are_ranked_by_their_objective_and_failed_ones_come_last(tmp_path):
    trials = (
        FinishedTrial("0", {"epochs": 1}, {}, "diverged"),
        FinishedTrial("1", {"epochs": 2}, {"auc": 0.8, "cross_entropy": 0.4}, ""),
        FinishedTrial("2", {"epochs": 3}, {"auc": 0.9, "cross_entropy": 0.5}, ""),
    )
    write_trials(str(tmp_path), Trials("auc", "max", trials))
    assert read_trials(str(tmp_path)) == Trials("auc", "max", trials)
    assert [trial.number for trial in read_trials(str(tmp_path)).ranked] == ["2", "1", "0"]
    assert [trial.number for trial in Trials("cross_entropy", "min", trials).ranked] == ["1", "2", "0"]
    assert Trials("auc", "max", trials[:1]).best is None


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_compiled_pipeline_searches_too(tmp_path, target):
    cluster = ["cluster.image=registry/ingraph:1", "cluster.pipeline_root=gs://bucket/ingraph"]
    config = load_config(f"{PROJECT}/configs/heart.yaml", [*cluster, "tuner.space={l2: [0.1, 0.01]}"])
    job = cluster_pipeline(config, target, tmp_path).job
    spec = json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    found = spec.root.dag.tasks["Trainer"].inputs.artifacts["hyperparameters"].task_output_artifact
    assert (found.producer_task, found.output_artifact_key) == ("Tuner", "best_hyperparameters")
    assert spec.root.dag.tasks["Tuner"].inputs.artifacts["transform_graph"].task_output_artifact.producer_task == (
        "Transform"
    )
    executors = job["pipelineSpec"]["deploymentSpec"]["executors"]
    assert "components.tuner.Executor" in json.dumps(executors["Tuner_executor"])


@pytest.mark.parametrize(
    ("demo", "override", "sentence"),
    [
        ("heart", "tuner.space={learning_rat: [1, 2]}", "tuner.space.learning_rat: trainer has no such option; did "),
        ("heart", "tuner.space={l2: [0, -1]}", "tuner.space.l2: trainer.l2 refuses -1: Input should be greater than"),
        ("heart", "tuner.space={batch_size: {min: 8, max: 9.5}}", "trainer.batch_size refuses 9.5: Input should be a "),
        ("heart", "tuner.space={hidden_units: {min: 1, max: 2}}", "trainer.hidden_units is no number; list its values"),
        ("heart", "tuner.space={l2: 3}", "tuner.space.l2: expected a list of values or a range"),
        ("heart", "tuner.space={l2: [3]}", "tuner.space.l2: expected two values at least"),
        ("heart", "tuner.space={l2: {min: 2, max: 1}}", "tuner.space.l2: expected min and a larger max"),
        ("heart", "tuner.space={l2: {min: 0, max: 1, sampling: log}}", "sampling: log takes a min above 0 and no step"),
        ("heart", "tuner.space={l2: {mn: 0, max: 1}}", "unknown key 'tuner.space.l2.mn'; did you mean 'min'?"),
        ("heart", "tuner.space={seed: [1, 2]}", "seed is no hyperparameter: the best of several seeds is the luckiest"),
        ("heart", "tuner.space={warm_start: [true, false]}", "other steps follow trainer.warm_start"),
        ("heart", "tuner.methd=random", "unknown key 'tuner.methd'; did you mean 'method'?"),
        ("heart", "tuner={method: grid, space: {l2: [0, 1]}}", "tuner.method: Input should be 'random', 'bayesian'"),
        ("heart", "tuner={epochs: 9, space: {l2: [0, 1]}}", "epochs is for method: hyperband"),
        ("heart", "tuner={method: hyperband, trials: 9, space: {l2: [0, 1]}}", "number of trials follows from epochs"),
        ("heart", "tuner={method: hyperband, space: {epochs: [1, 2]}}", "take epochs out of the space"),
        ("reviews", "tuner.space={model: [ngrams, encoder]}", "other steps follow trainer.model; make a run for each"),
        ("digits", "tuner.space={backbone: [MobileNet, VGG16]}", "other steps follow trainer.backbone"),
        ("digits", "tuner.space={augmentation.crp: [0, 0.1]}", "trainer has no such option; did you mean 'crop'?"),
        ("imagenet", "tuner.space={labels: [a, b]}", "a classifier that is wrapped is not trained, and has nothing"),
        ("flowers", "tuner.space={learning_rate: [0.1, 0.2]}", "learning_rate is for blocks that are trained"),
        ("flowers", "tuner={method: hyperband, space: {blocks: [auto, [a]]}}", "method: hyperband: trainer.epochs"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_said_before_anything_runs(demo, override, sentence):
    with pytest.raises(BrokenInput) as refused:
        load_config(f"{PROJECT}/configs/{demo}.yaml", [override])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("demo", "objective"), [("heart", "auc"), ("reviews", "auc"), ("digits", "accuracy")])
def test_each_task_has_an_objective_and_a_nested_option_can_be_searched(demo, objective):
    space = {"digits": "{augmentation.crop: [0, 0.1]}"}.get(demo, "{dropout: {min: 0, max: 0.5}}")
    tuner = load_config(f"{PROJECT}/configs/{demo}.yaml", [f"tuner.space={space}"]).tuner
    assert tuner.objective == objective


def test_tune_without_a_tuner_says_what_to_write():
    with pytest.raises(BrokenInput, match=r"tuner is missing: .* `tuner: {space: {learning_rate: {min: 0.001"):
        tune(load_config(f"{PROJECT}/configs/heart.yaml"), ".")
