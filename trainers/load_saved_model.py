"""SavedModels that exist."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainers.first_line import first_line
from trainers.training_error import TrainingError


def load_saved_model(handle: str, key: str) -> Any:
    """A SavedModel from a directory or from TF-Hub.

    Args:
        handle: a TF-Hub handle, an object store's path or a directory.
        key: the key of the config that names it, for messages.

    Raises:
        TrainingError: it cannot be loaded.
    """
    try:
        if "://" in handle and not handle.startswith("gs://"):
            # Not at the top: an old version of it, which plain pip installs, cannot be imported.
            import tensorflow_hub

            return tensorflow_hub.load(handle)
        return tf.saved_model.load(handle)
    except ImportError as error:
        raise TrainingError(
            f"{handle}: TensorFlow Hub cannot be imported ({error}); install tensorflow-hub 0.16.1 or later, or "
            f"download the model and set {key} to its directory"
        ) from error
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        advice = (
            f"download it elsewhere, and set {key} to its directory"
            if "://" in handle
            else "expected a directory with saved_model.pb, as tf.saved_model.save, model.export or TF-Hub makes it"
        )
        raise TrainingError(f"{handle}: the model cannot be loaded: {first_line(error)}; {advice}") from error
