"""An existing classifier of photos, ready to be exported."""

from __future__ import annotations

from trainers.image_classifier import ImageClassifier
from trainers.training_error import TrainingError
from trainers.wrap_options import WrapOptions
from transform.image_options import ImageOptions


def wrapped_classifier(options: WrapOptions, preprocessing: ImageOptions, classes: int) -> ImageClassifier:
    """The classifier that the options name.

    Args:
        options: where it is, and its conventions.
        preprocessing: the pixels that it gets.
        classes: how many labels there are.

    Raises:
        TrainingError: it cannot be loaded, or does not fit.
    """
    raise TrainingError("trainer.mode: expected fine_tune, received wrap")
