"""The training of a model of texts."""

from __future__ import annotations

import keras

from trainers.shuffled_batches import shuffled_batches
from trainers.text_options import EncoderOptions, HubOptions, NgramOptions
from trainers.transformed_split import TransformedSplit


def fit_text(model: keras.Model, train: TransformedSplit, options: NgramOptions | EncoderOptions | HubOptions) -> None:
    """Train in place, by Adam with a cosine-decayed step size.

    Args:
        model: from the features of `train` to probabilities, [batch, classes], or of several models that are trained
            side by side, [batch, models, classes]; their losses are added up.
        train: the training split.
        options: for how long, and how fast.
    """
    batch_size = min(options.batch_size, len(train.labels))
    steps = -(-len(train.labels) // batch_size)
    step_size = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
    model.compile(
        optimizer=keras.optimizers.Adam(step_size),
        loss=_loss_of_each,
        jit_compile=False,
        steps_per_execution=min(steps, 32),
    )
    model.fit(
        shuffled_batches((train.features, train.labels), batch_size, options.seed),
        steps_per_epoch=steps,
        epochs=options.epochs,
        shuffle=False,  # the dataset is
        verbose=0,
    )


def _loss_of_each(labels: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    if len(probabilities.shape) == 2:
        probabilities = probabilities[:, None]
    models = probabilities.shape[1]
    of_each = keras.ops.tile(keras.ops.reshape(labels, [-1, 1]), [1, models])
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(of_each, probabilities), axis=1)
