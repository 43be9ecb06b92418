"""An existing classifier of photos, ready to be exported."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainers.image_classifier import ImageClassifier
from trainers.training_error import TrainingError
from trainers.wrap_options import WrapOptions
from trainers.wrapped_keras_model import wrapped_keras_model
from trainers.wrapped_saved_model import wrapped_saved_model
from transform.image_options import ImageOptions

Function = Callable[[tf.Tensor], tf.Tensor]


def wrapped_classifier(options: WrapOptions, preprocessing: ImageOptions, classes: int) -> ImageClassifier:
    """The classifier that the options name, whose answers are probabilities of the labels.

    Args:
        options: where it is, and its conventions.
        preprocessing: the pixels that it gets.
        classes: how many labels there are.

    Raises:
        TrainingError: it cannot be loaded, or does not fit the pixels or the labels.
    """
    outputs = classes + 1 if options.background_first else classes
    if options.is_keras_model:
        model = wrapped_keras_model(options, preprocessing, outputs)
        return ImageClassifier(_probabilities(lambda pixels: model(pixels, training=False), outputs, options), model)
    function = wrapped_saved_model(options, preprocessing)
    return ImageClassifier(_probabilities(function, outputs, options), model=None)


def _probabilities(function: Function, outputs: int, options: WrapOptions) -> Function:
    """Pixels -> probabilities, float32 [batch, classes], of what answers with so many `outputs`."""

    def predict(pixels: tf.Tensor) -> tf.Tensor:
        answers = function(pixels)
        if answers.shape.rank != 2 or answers.shape[1] != outputs:
            background = ", one of them the background (trainer.background_first)" if options.background_first else ""
            raise TrainingError(
                f"{options.classifier} answers with {answers.shape}, expected [batch, {outputs}]: there are {outputs} "
                f"outputs for the labels of {options.labels}{background}; give the labels of this classifier, and say "
                "whether its first output is the background"
            )
        if options.background_first:
            answers = answers[:, 1:]
        if options.outputs == "logits":
            return tf.nn.softmax(answers)
        # Without the background, what is left of the probabilities is shared among the labels.
        return answers / tf.reduce_sum(answers, axis=1, keepdims=True) if options.background_first else answers

    return predict
