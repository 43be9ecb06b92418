"""The training of a model of texts."""

from __future__ import annotations

import keras

from trainers.shuffled_batches import shuffled_batches
from trainers.steps_per_execution import steps_per_execution
from trainers.text_classifier import TextClassifier
from trainers.text_options import EncoderOptions, HubOptions, NgramOptions
from trainers.transformed_split import TransformedSplit


def fit_text(
    classifier: TextClassifier, train: TransformedSplit, options: NgramOptions | EncoderOptions | HubOptions
) -> None:
    """Train the members side by side, in place, by Adam with a cosine-decayed step size.

    Args:
        classifier: the model and its members.
        train: the training split, with the model's inputs as features.
        options: for how long, and how fast.
    """
    batch_size = min(options.batch_size, len(train.labels))
    steps = -(-len(train.labels) // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    together = keras.Model(classifier.model.input, keras.ops.stack(classifier.members, axis=1))
    together.compile(
        optimizer=keras.optimizers.Adam(step_size),
        loss=_sum_of_losses,
        jit_compile=False,
        steps_per_execution=steps_per_execution(steps),
    )
    classifier.model.history = together.fit(
        shuffled_batches((train.features, train.labels), batch_size, options.seed),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )


def _sum_of_losses(labels: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    of_each = keras.ops.tile(keras.ops.reshape(labels, [-1, 1]), [1, probabilities.shape[1]])
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(of_each, probabilities), axis=1)
