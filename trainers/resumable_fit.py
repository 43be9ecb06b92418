"""Keep what an epoch has learned, for a training that is killed and for one that gets worse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

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
        validation: batches of photos that are not trained on; the best weights by their loss are kept, those before
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
    """Writes each epoch's state into a folder of its own, which appears under its name when it is complete."""

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
        state = {"best_loss": self._best_loss, "epochs_without_gain": self._epochs_without_gain}
        (unfinished / _STATE).write_text(json.dumps(state))
        unfinished.rename(self._folder / str(epochs))
        if previous is not None:
            shutil.rmtree(previous)


def _loss(model: keras.Model, batches: tf.data.Dataset) -> float:
    return float(model.evaluate(batches, return_dict=True, verbose=0)["loss"])
