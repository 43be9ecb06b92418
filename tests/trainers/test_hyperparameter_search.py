"""Searches for hyperparameters: what is tried, what is found, what fails, and how a killed search goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from sklearn.metrics import log_loss, roc_auc_score
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from benchmarks.text.quality import SPEC, write_examples
from pipeline.runners.beam_speedups import apply_beam_speedups
from serving.reference_predictions import example_id
from tests.trainers.test_image_trainer import CLASSES, PIXELS, photos
from trainers.artifacts import write_tensorboard_log
from trainers.errors import TrainingError
from trainers.image.options import FineTuneOptions
from trainers.image.splits import read_image_split
from trainers.image.train import search_for_images
from trainers.options import TunerOptions, tuned_options
from trainers.splits import TransformedSplit
from trainers.tabular.options import TabularTrainerOptions
from trainers.text import train
from trainers.text.options import NgramOptions
from trainers.tuning import (
    TrialOutcome,
    encoded,
    held_out_for_tuning,
    hyperparameter_search,
    trial_values,
    tuning_split,
)
from transform.options import LabelOptions, TextOptions
from transform.text import preprocessing_fn

LABELS = np.array([0, 1] * 20)
NOISE = np.random.default_rng(0).uniform(-0.2, 0.2, size=40)
BEST_RATE = 0.03
RATES = {"learning_rate": {"min": 0.001, "max": 1, "sampling": "log"}}


def outcome(options: TabularTrainerOptions, _: Path | None = None) -> TrialOutcome:
    """As if a model were the worse the further its learning rate is from the best, and the fewer epochs it had."""
    off = abs(np.log10(options.learning_rate / BEST_RATE)) / 3 + 0.2 / options.epochs
    of_label = np.clip(1 - off + NOISE, 0.01, 0.99)
    positive = np.where(LABELS == 1, of_label, 1 - of_label)
    return TrialOutcome({"loss": [1.0, off]}, LABELS, np.stack([1 - positive, positive], axis=1))


Train = Callable[[TabularTrainerOptions, Path], TrialOutcome]


def tuner(folder: Path, train: Train = outcome, **options: Any) -> BaseTuner:
    chosen = TunerOptions.model_validate({"space": RATES, "objective": "cross_entropy", **options})
    return hyperparameter_search(train, TabularTrainerOptions(), chosen, str(folder)).tuner


def searched(folder: Path, train: Train = outcome, **options: Any) -> BaseTuner:
    made = tuner(folder, train, **options)
    made.search(verbose=0)
    return made


def tried(made: BaseTuner) -> list[dict[str, Any]]:
    return [trial_values(trial.hyperparameters.values) for _, trial in sorted(made.oracle.trials.items())]


def best(made: BaseTuner) -> dict[str, Any]:
    return trial_values(made.get_best_hyperparameters()[0].values)


def events(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Tag -> step and value, or what the HParams dashboard reads, of a run in TensorBoard."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for file in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                content = value.metadata.plugin_data.content
                number = tf.make_ndarray(value.tensor).tolist()
                found.setdefault(value.tag, []).append((event.step, content if value.tag.startswith("_") else number))
    return found


@pytest.mark.parametrize(("objective", "better"), [("cross_entropy", min), ("auc", max), ("accuracy", max)])
def test_the_best_values_are_those_of_the_trial_with_the_best_objective(tmp_path, objective, better):
    made = searched(tmp_path, objective=objective, trials=4)
    values = [outcome(tuned_options(TabularTrainerOptions(), chosen)).metrics()[objective] for chosen in tried(made)]
    assert len(set(values)) > 1
    assert best(made) == tried(made)[values.index(better(values))]


def test_metrics_are_scikit_learns():
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 3, size=50)
    probabilities = chance.dirichlet([1, 1, 1], size=50)
    metrics = TrialOutcome({}, labels, probabilities).metrics()
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert metrics["cross_entropy"] == pytest.approx(log_loss(labels, probabilities))
    # Two classes, and equal scores.
    positive = np.round(chance.uniform(size=40), 1)
    two = TrialOutcome({}, LABELS, np.stack([1 - positive, positive], axis=1)).metrics()
    assert two["auc"] == pytest.approx(roc_auc_score(LABELS, positive))


def test_a_seed_decides_about_the_values_that_are_tried(tmp_path):
    first, again, other = (tried(searched(tmp_path / str(n), trials=3, seed=n // 2)) for n in range(3))
    assert first == again
    assert first[0] != other[0]


def test_values_come_from_the_space_and_are_those_of_the_config(tmp_path):
    space = {
        "hidden_units": [[], [8], [16, 4]],
        "early_stopping_patience": [None, 5],
        "batch_size": {"min": 8, "max": 32},
    }
    values = tried(searched(tmp_path, space=space, trials=8))
    assert len(values) == 8
    for chosen in values:
        assert chosen["hidden_units"] in space["hidden_units"]
        assert chosen["early_stopping_patience"] in (None, 5)
        assert isinstance(chosen["batch_size"], int) and 8 <= chosen["batch_size"] <= 32
    options = tuned_options(TabularTrainerOptions(), {"hidden_units": [16, 4], "batch_size": 9})
    assert (options.hidden_units, options.batch_size) == ((16, 4), 9)


@pytest.mark.parametrize(
    "values", [(1, 2), (0.5, 1.0), (True, False), ("auto", "none"), ([], [8]), (None, 3), (0, True)]
)
def test_values_survive_keras_tuner(values):
    (kind,) = {type(value) for value in encoded(values)}
    assert kind in (int, float, bool, str)
    assert [trial_values({"option": value})["option"] for value in encoded(values)] == list(values)


def test_a_space_that_is_smaller_than_the_number_of_trials_ends_the_search(tmp_path):
    values = tried(searched(tmp_path, space={"epochs": [1, 2, 3]}, trials=10))
    assert sorted(chosen["epochs"] for chosen in values) == [1, 2, 3]


def test_bayesian_goes_to_where_it_expects_the_best(tmp_path):
    made = searched(tmp_path, method="bayesian", trials=6)
    off = [abs(np.log10(values["learning_rate"] / BEST_RATE)) for values in tried(made)]
    # The first three are drawn.
    assert np.mean(off[3:]) < np.mean(off[:3])
    assert min(off) < 0.2


def test_hyperband_gives_more_epochs_to_the_best_and_the_trainer_gets_those_of_the_best_trial(tmp_path):
    made = searched(tmp_path, method="hyperband", epochs=3)
    epochs = [values["epochs"] for values in tried(made)]
    assert sorted(epochs) == [1, 1, 1, 3, 3, 3]
    short = [values["learning_rate"] for values in tried(made) if values["epochs"] == 1]
    nearest = min(short, key=lambda rate: abs(np.log10(rate / BEST_RATE)))
    assert nearest in [values["learning_rate"] for values in tried(made) if values["epochs"] == 3]
    assert best(made)["epochs"] == 3
    # TFX's Tuner asks for all results at once.
    assert len(made.oracle.get_best_trials(made.oracle.max_trials)) == 6


def test_a_trial_that_fails_does_not_end_the_search_and_says_why(tmp_path):
    def train(options: TabularTrainerOptions, folder: Path) -> TrialOutcome:
        (number,) = (int(part.removeprefix("trial_")) for part in folder.parts if part.startswith("trial_"))
        if number == 0:
            raise MemoryError("no more room\nand more lines")
        if number in (1, 2, 3):
            return TrialOutcome({"loss": [0.5, float("nan"), float("nan")]}, LABELS, np.full([40, 2], np.nan))
        return outcome(options)

    made = searched(tmp_path, train, trials=5)
    trials = [trial for _, trial in sorted(made.oracle.trials.items())]
    assert [trial.status for trial in trials] == ["FAILED"] * 4 + ["COMPLETED"]
    assert trials[0].message.strip().endswith("FailedTrialError: MemoryError: no more room")
    assert trials[1].message.strip().endswith("FailedTrialError: diverged: no finite numbers from epoch 2 on")
    assert best(made) == tried(made)[4]
    assert events(tmp_path / "tensorboard/1")["_hparams_/session_end_info"] == [(0, bytes.fromhex("22020802"))]


def test_options_that_do_not_go_together_fail_their_trial(tmp_path):
    space = {"trained_blocks": [1, 0], "learning_rate": [0.1, 0.2]}
    chosen = TunerOptions.model_validate({"space": space, "objective": "cross_entropy", "trials": 4})
    options = FineTuneOptions(mode="fine_tune", trained_blocks=1)
    made = hyperparameter_search(outcome, options, chosen, str(tmp_path)).tuner
    made.search(verbose=0)
    failed = [trial for trial in made.oracle.trials.values() if trial.status == "FAILED"]
    assert [trial.hyperparameters.values["trained_blocks"] for trial in failed] == [0, 0]
    sentence = "learning_rate is for blocks that are trained, and trained_blocks is 0; give trained_blocks"
    assert failed[0].message.strip().endswith(f"FailedTrialError: {sentence}")


def test_a_search_that_is_killed_goes_on_with_the_same_trial(tmp_path):
    trained: list[float] = []

    def train(options: TabularTrainerOptions, folder: Path) -> TrialOutcome:
        if len(trained) == 2 and not (folder / "epochs").exists():
            (folder / "epochs").write_text("what a training of photos goes on from")
            raise KeyboardInterrupt
        trained.append(options.learning_rate)
        return outcome(options)

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", train, trials=4)
    resumed = searched(tmp_path / "killed", train, trials=4)
    whole = searched(tmp_path / "whole", trials=4)
    assert trained == [values["learning_rate"] for values in tried(whole)]
    assert tried(resumed) == tried(whole)
    assert best(resumed) == best(whole)


def test_a_search_that_is_killed_in_its_first_trial_goes_on_too(tmp_path):
    def killed(*_: Any) -> TrialOutcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", killed, trials=2)
    assert tried(searched(tmp_path / "killed", trials=2)) == tried(searched(tmp_path / "whole", trials=2))


def test_a_trial_is_a_run_in_tensorboard_with_its_curve_metrics_and_hyperparameters(tmp_path):
    made = searched(tmp_path, trials=2)
    values, logged = tried(made)[1], events(tmp_path / "tensorboard/1")
    expected = outcome(tuned_options(TabularTrainerOptions(), values))
    assert [step for step, _ in logged["epoch/loss"]] == [0, 1]
    assert [loss for _, loss in logged["epoch/loss"]] == pytest.approx(expected.curves["loss"])
    for name, value in expected.metrics().items():
        assert logged[f"held_out/{name}"] == [(0, pytest.approx(value))]
    assert len(logged["_hparams_/session_start_info"]) == 1


def test_what_the_hparams_dashboard_reads_is_what_tensorboards_own_library_writes(tmp_path):
    write_tensorboard_log(str(tmp_path), {}, {"learning_rate": 0.5, "hidden_units": [64, 32], "flip": True}, {})
    # HParamsPluginData of TensorBoard 2.20, serialized.
    assert events(tmp_path) == {
        "_hparams_/session_start_info": [
            (
                0,
                bytes.fromhex(
                    "1a440a0a0a04666c6970120220010a1a0a0c68696464656e5f756e697473120a1a085b36342c2033325d"
                    "0a1a0a0d6c6561726e696e675f72617465120911000000000000e03f"
                ),
            )
        ],
        "_hparams_/session_end_info": [(0, bytes.fromhex("22020801"))],
    }


def test_examples_are_held_out_by_what_they_are_and_equal_ones_together():
    ids = [example_id(str(number).encode()) for number in range(2000)]
    options = TunerOptions(space={"epochs": [1, 2]}, held_out_share=0.25)
    held_out = held_out_for_tuning(ids, options).numpy()
    assert held_out.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(held_out_for_tuning(ids[::-1], options).numpy(), held_out[::-1])
    other = held_out_for_tuning(ids, options.model_copy(update={"seed": 1})).numpy()
    assert 0 < (other & held_out).sum() < held_out.sum()

    labels = np.arange(2000) % 2
    features = {"numbers": labels[:, None] * 1.0, "words": tf.ragged.constant([[n] * (n % 3) for n in range(2000)])}
    train, rest = tuning_split(TransformedSplit(ids, features, labels, left_out=0, fingerprint=""), options)
    assert rest.ids == [id_ for id_, chosen in zip(ids, held_out, strict=True) if chosen]
    assert sorted(train.ids + rest.ids) == sorted(ids)
    (number,) = np.flatnonzero([id_ == rest.ids[7] for id_ in ids])
    assert rest.labels[7] == rest.features["numbers"][7, 0] == number % 2
    assert rest.features["words"][7].numpy().tolist() == [number] * (number % 3)


def test_too_few_held_out_examples_are_said_with_their_number():
    options = TunerOptions(space={"epochs": [1, 2]}, held_out_share=0.01)
    ids = [str(number) for number in range(30)]
    split = TransformedSplit(ids, {}, np.arange(30) % 2, left_out=0, fingerprint="")
    with pytest.raises(TrainingError, match=r"tuner.held_out_share is 0.01: of 30 examples, \d are held out of the tr"):
        tuning_split(split, options)


def test_texts_are_searched_by_the_models_that_the_trainer_makes(tmp_path):
    chance = np.random.default_rng(0)
    positive = np.arange(80) % 2 == 1
    texts = np.array([f"{'good' if one else 'bad'} film {chance.integers(20)}" for one in positive], object)
    file = write_examples(f"{tmp_path}/train.gz", texts, positive)
    preprocessing = TextOptions(label=LabelOptions(column="label"), character_ngrams=None).completed("terms")
    config = {"preprocessing": preprocessing.model_dump_json()}
    apply_beam_speedups()
    transform_graph(preprocessing_fn, config, SPEC, file, str(tmp_path))
    options = NgramOptions(epochs=4, embedding_width=4, hidden_units=4)
    search = TunerOptions(space={"learning_rate": [1e-6, 0.05]}, objective="cross_entropy")
    arguments = FnArgs(
        train_files=[file],
        transform_graph_path=f"{tmp_path}/graph",
        working_dir=str(tmp_path),
        custom_config=config | {"trainer": options.model_dump_json(), "tuner": search.model_dump_json()},
    )
    made = train.tuner_fn(arguments)
    made.tuner.search(**made.fit_kwargs)
    assert len(tried(made.tuner)) == 2
    assert best(made.tuner) == {"learning_rate": 0.05}
    (untrained, trained) = sorted(
        trial.metrics.get_best_value("cross_entropy") for trial in made.tuner.oracle.trials.values()
    )[::-1]
    assert untrained == pytest.approx(np.log(2), abs=0.1)
    assert trained < 0.6


def test_photos_are_searched_and_those_held_out_are_not_learned_from(tmp_path):
    some, _ = photos(24, bad=(3,), unlabelled=(4,))
    options = FineTuneOptions(
        mode="fine_tune", backbone="MobileNet", weights="none", blocks=("conv_dw_1",), epochs=1, batch_size=16
    )
    search = TunerOptions(space={"batch_norm_momentum": [0.99, 0.5]}, objective="accuracy", held_out_share=0.3)
    made = search_for_images(some, CLASSES, PIXELS, options, search, str(tmp_path))
    made.tuner.search(**made.fit_kwargs)
    records = [record.numpy() for record in some.records]
    held_out = sum(
        bool(held_out_for_tuning(record, search).numpy())
        for number, record in enumerate(records)
        if number not in (3, 4)
    )
    trials = made.tuner.oracle.trials.values()
    assert [trial.status for trial in trials] == ["COMPLETED", "COMPLETED"]
    for trial in trials:
        correct = trial.metrics.get_best_value("accuracy") * held_out
        assert correct == pytest.approx(round(correct))
    assert len(read_image_split(some).labels) == 22
    # What a killed training would go on from.
    assert list(tmp_path.glob("search/trial_*/training")) == []
