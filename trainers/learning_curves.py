"""How a training went, epoch by epoch."""

from __future__ import annotations

import json

import keras
import tensorflow as tf

LEARNING_CURVES_FILE = "learning_curves.json"


def leave_learning_curves(folder: str, model: keras.Model) -> None:
    """Write what Keras recorded in the last `fit`, as `{"loss": [one an epoch], "val_loss": …}`.

    A model that was not trained here, a frozen or loaded one, leaves no file.
    """
    history = getattr(model, "history", None)
    if history is None or not history.history:
        return
    curves = {name: [float(value) for value in values] for name, values in history.history.items()}
    with tf.io.gfile.GFile(f"{folder}/{LEARNING_CURVES_FILE}", "w") as file:
        file.write(json.dumps(curves, indent=2))
