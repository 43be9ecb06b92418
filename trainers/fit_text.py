"""The training of a model of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from trainers.shuffled_batches import shuffled_batches
from trainers.steps_per_execution import steps_per_execution
from trainers.text_options import EncoderOptions, HubOptions, NgramOptions
from trainers.transformed_split import TransformedSplit


def fit_text(
    inputs: Mapping[str, keras.KerasTensor],
    members: Sequence[keras.KerasTensor],
    train: TransformedSplit,
    options: NgramOptions | EncoderOptions | HubOptions,
) -> keras.Model:
    """Train models side by side, by Adam with a cosine-decayed step size; the model that answers with their mean.

    Args:
        inputs: what they take, by name.
        members: the probabilities of each, [batch, classes].
        train: the training split, with features of these names.
        options: for how long, and how fast.
    """
    batch_size = min(options.batch_size, len(train.labels))
    steps = -(-len(train.labels) // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    together = keras.Model(inputs, keras.ops.stack(members, axis=1))
    together.compile(
        optimizer=keras.optimizers.Adam(step_size),
        loss=_sum_of_losses,
        jit_compile=False,
        steps_per_execution=steps_per_execution(steps),
    )
    history = together.fit(
        shuffled_batches((train.features, train.labels), batch_size, options.seed),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )
    # Without the loss, which is no part of what is saved.
    model = keras.Model(inputs, members[0] if len(members) == 1 else keras.layers.average(members))
    model.history = history
    return model


def _sum_of_losses(labels: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    of_each = keras.ops.tile(keras.ops.reshape(labels, [-1, 1]), [1, probabilities.shape[1]])
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(of_each, probabilities), axis=1)
