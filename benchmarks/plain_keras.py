"""The hearts as a plain Keras script has them: no pipeline, no checks, no store."""

from __future__ import annotations

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pandas as pd
import tensorflow as tf

LABEL = "target"
CATEGORIES = ("sex", "cp", "fbs", "restecg", "exang", "slope", "ca", "thal")
EPOCHS, BATCH_SIZE, STEP_SIZE, L2 = 200, 256, 0.05, 0.002  # those of configs/heart.yaml


def plain_keras(csv_file: str, folder: str) -> tuple[float, float]:
    """Seconds from the CSV file to an exported model, and its ROC AUC on a fifth of the rows."""
    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    rows = pd.read_csv(csv_file).sample(frac=1, random_state=0).astype({"thal": str})
    labels, held_out = rows.pop(LABEL), len(rows) // 5
    space = keras.utils.FeatureSpace({name: _kind(name) for name in rows}, output_mode="concat")
    train = tf.data.Dataset.from_tensor_slices((dict(rows[held_out:]), labels[held_out:])).batch(BATCH_SIZE)
    test = tf.data.Dataset.from_tensor_slices((dict(rows[:held_out]), labels[:held_out])).batch(BATCH_SIZE)
    space.adapt(train.map(lambda features, _: features))

    encoded = space.get_encoded_features()
    probability = keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(L2))(encoded)
    model = keras.Model(encoded, probability)
    model.compile(keras.optimizers.Adam(STEP_SIZE), "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    model.fit(_encoded(space, train), epochs=EPOCHS, verbose=0)
    auc = model.evaluate(_encoded(space, test), verbose=0, return_dict=True)["auc"]
    keras.Model(space.get_inputs(), probability).export(f"{folder}/model", verbose=False)
    return time.perf_counter() - started, auc


def _kind(name: str) -> str:
    if name not in CATEGORIES:
        return "float_normalized"
    return "string_categorical" if name == "thal" else "integer_categorical"


def _encoded(space: keras.utils.FeatureSpace, rows: tf.data.Dataset) -> tf.data.Dataset:
    return rows.map(lambda features, labels: (space(features), labels)).cache()
