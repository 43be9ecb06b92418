"""Fitting a Keras model: the optimizer, steps per execution, and the progress of a training kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf

from trainers.devices import assign_to_devices

# Of small models: what goes on between Python and the graph costs as much as some of their steps.
MOST = 32


def steps_per_execution(steps: int) -> int:
    """A divisor of an epoch's steps, or nearly, so that the last execution of an epoch does few steps too many.

    Keras only ever takes whole executions: 81 steps, 32 at a time, would be 96.
    """
    executions = -(-steps // MOST)
    return -(-steps // executions)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam, its step computed by TensorFlow's kernel: one pass over each weight and its moments, not a dozen.

    On a CPU those passes take a large part of the step of a network such as InceptionV3, which has 22 million weights.
    Gradients are dense; `amsgrad` is not there.

    Source: Kingma and Ba, Adam, https://arxiv.org/abs/1412.6980, in the order of the end of section 2, as Keras has it;
        https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change a weight and its moments."""
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )


@contextmanager
def training_folder(model_run: str, *fingerprints: str) -> Iterator[Path]:
    """A folder that the next training of the same fingerprints finds again, until one has come to its end.

    Args:
        model_run: the Trainer's `<pipeline root>/Trainer/model_run/<execution>`; the folder is beside those of all
            executions. In an object store, a temporary local folder is made, which is not found again.
        fingerprints: of the data, of the config and the code, and of the weights that the training begins with.
    """
    if "://" in model_run:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = Path(model_run).parents[1] / "unfinished" / hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    # Not where an exception ends it.
    shutil.rmtree(folder)


Result = TypeVar("Result")


@dataclass(frozen=True)
class FinishedParts:
    """Parts of a training that were finished before it was killed.

    Attributes:
        folder: where they are; None where nothing is kept.
    """

    folder: Path | None = None

    def result(
        self,
        name: str,
        make: Callable[[], Result],
        save: Callable[[Path, Result], None],
        load: Callable[[Path], Result],
    ) -> Result:
        """What was kept under the name, or else what is made now, and kept."""
        if self.folder is None:
            return make()
        path = self.folder / name
        if path.exists():
            return load(path)
        made = make()
        unfinished = self.folder / f"{name}.unfinished"
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        self.folder.mkdir(parents=True, exist_ok=True)
        save(unfinished, made)
        unfinished.rename(path)
        return made

    def folder_of(self, name: str) -> Path:
        """A folder of a part that keeps its own progress."""
        assert self.folder is not None, "nothing is kept"
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def arrays(self, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """The same of arrays by their names."""
        found = self.found(name)
        if found is None:
            found = make()
            self.replace(name, found)
        return found

    def found(self, name: str) -> Mapping[str, np.ndarray] | None:
        """Arrays that were kept under the name."""
        if self.folder is None or not (self.folder / name).exists():
            return None
        with np.load(self.folder / name) as found:
            return dict(found)

    def replace(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays, in the place of those that were kept under the name."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{name}.unfinished"
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        unfinished.rename(self.folder / name)


_STATE, _WEIGHTS, _BEST = "state.json", "latest.weights.h5", "best.weights.h5"


def resumable_fit(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    steps: int,
    epochs: int,
    folder: Path,
    validation: tf.data.Dataset | None = None,
    patience: int | None = None,
) -> None:
    """Train a compiled model in place; a training that was killed goes on behind the last epoch it had finished.

    Args:
        model: its weights and its optimizer's are those of that epoch, where there is one.
        batches: the first epoch -> the batches of that epoch and all that follow, without end.
        steps: batches in an epoch.
        epochs: how many at most.
        folder: where the states of epochs are.
        validation: batches that are not trained on; the best weights by their loss are kept, those before
            the first epoch among them.
        patience: stop after so many epochs without a better loss.
    """
    memory = _Memory(folder, validation, patience)
    first = memory.restore(model)
    if first < epochs and not memory.is_out_of_patience:
        model.fit(
            batches(first),
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=epochs,
            callbacks=[memory],
            shuffle=False,  # the batches are
            verbose=0,
        )
    memory.restore_best(model)


class _Memory(keras.callbacks.Callback):
    """Writes each epoch's state into a folder of its own, which appears under its name when it is complete.

    Keras's BackupAndRestore (3.15) keeps the weights and the epoch, but not what EarlyStopping and ModelCheckpoint
    know: after a kill the best epoch and the patience would be lost. It writes in place: a kill can leave half a file.
    """

    def __init__(self, folder: Path, validation: tf.data.Dataset | None, patience: int | None) -> None:
        super().__init__()
        self._folder = folder
        self._validation = validation
        self._patience = patience
        self._best_loss = float("inf")
        self._epochs_without_gain = 0

    @property
    def is_out_of_patience(self) -> bool:
        return self._patience is not None and self._epochs_without_gain >= self._patience

    def restore(self, model: keras.Model) -> int:
        """The number of epochs that are done, their state restored."""
        found = self._newest()
        model.optimizer.build(model.trainable_variables)
        if found is None:
            if self._validation is not None:
                self._best_loss = _loss(model, self._validation)
                self._write(model, epochs=0, is_best=True)
            return 0
        state = json.loads((found / _STATE).read_text())
        self._best_loss, self._epochs_without_gain = state["best_loss"], state["epochs_without_gain"]
        model.load_weights(found / _WEIGHTS)
        for variable, value in zip(_random_states(model), state["random_states"], strict=True):
            assign_to_devices(variable, np.asarray(value))
        return int(found.name)

    def restore_best(self, model: keras.Model) -> None:
        found = self._newest()
        if self._validation is not None and found is not None:
            model.load_weights(found / _BEST)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        is_best = False
        if self._validation is not None:
            loss = _loss(self.model, self._validation)
            is_best = loss < self._best_loss
            self._best_loss = min(loss, self._best_loss)
            self._epochs_without_gain = 0 if is_best else self._epochs_without_gain + 1
        self._write(self.model, epoch + 1, is_best)
        self.model.stop_training = self.is_out_of_patience

    def _newest(self) -> Path | None:
        states = [path for path in self._folder.glob("[0-9]*") if path.name.isdigit()]
        return max(states, key=lambda path: int(path.name), default=None)

    def _write(self, model: keras.Model, epochs: int, is_best: bool) -> None:
        previous = self._newest()
        unfinished = self._folder / f"{epochs}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        model.save_weights(unfinished / _WEIGHTS)
        if is_best:
            shutil.copy(unfinished / _WEIGHTS, unfinished / _BEST)
        elif previous is not None and (previous / _BEST).exists():
            shutil.copy(previous / _BEST, unfinished / _BEST)
        random_states = [np.asarray(variable).tolist() for variable in _random_states(model)]
        state = {
            "best_loss": self._best_loss,
            "epochs_without_gain": self._epochs_without_gain,
            "random_states": random_states,
        }
        (unfinished / _STATE).write_text(json.dumps(state))
        unfinished.rename(self._folder / str(epochs))
        if previous is not None:
            shutil.rmtree(previous)


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """Those of its dropout, which are no weights."""
    return [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]


def _loss(model: keras.Model, batches: tf.data.Dataset) -> float:
    return float(model.evaluate(batches, return_dict=True, verbose=0)["loss"])
