"""How a training went, epoch by epoch."""

from __future__ import annotations

import keras

LEARNING_CURVES_FILE = "learning_curves.json"


def learning_curves(model: keras.Model | None) -> dict[str, list[float]]:
    """What Keras recorded in the last `fit`, as `{"loss": [one an epoch], "val_loss": …}`.

    {} for a model that was not trained here, a frozen or loaded one.
    """
    history = getattr(model, "history", None)
    recorded = history.history if history is not None else {}
    return {name: [float(value) for value in values] for name, values in recorded.items()}
