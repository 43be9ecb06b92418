"""What a Trainer leaves beside its export for the steps that follow."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from serving import reference_predictions
from serving.reference_predictions import ReferencePredictions
from trainers.learning_curves import LEARNING_CURVES_FILE, learning_curves
from trainers.tensorboard_log import write_tensorboard_log

MODEL_FILE = "model.keras"
PROVENANCE_FILE = "provenance.json"
LIBRARIES = ("tensorflow", "keras", "tensorflow-transform", "tfx")


def leave_beside_export(
    export_path: str,
    model_run: str,
    model: keras.Model | None,
    predictions: ReferencePredictions,
    data_fingerprint: str,
    code_fingerprint: str,
    left_out: int,
    hyperparameters: Mapping[str, Any],
    precision: Mapping[str, Any] | None = None,
    warm_start: str = "",
) -> None:
    """Write what later steps need into the export's parent directory, and the TensorBoard log.

    That is `model.keras`, `learning_curves.json`, `reference_predictions.parquet` and `provenance.json`.

    Args:
        export_path: the SavedModel's directory.
        model_run: the directory of TFX's ModelRun artifact, which the TensorBoard log is written into.
        model: the trained model; a frozen export has no variables to start another training from. None where no Keras
            model was made, and so no model.keras is.
        predictions: what the training graph says of the eval split.
        data_fingerprint: of the examples trained and evaluated on.
        code_fingerprint: of the config and the code that made the model.
        left_out: how many examples of both splits had no usable label.
        hyperparameters: the options that a search found, by name; {} where none was made.
        precision: what the provenance says of the numbers that the export computes with, if anything.
        warm_start: from where the training began, see trainers/warm_start.py, if it was to begin with a served model.
    """
    folder = os.path.dirname(export_path.rstrip("/"))  # noqa: PTH120 (may be an object store's path)
    if model is not None:
        _save(model, f"{folder}/{MODEL_FILE}")
    curves = learning_curves(model)
    if curves:
        _write_json(f"{folder}/{LEARNING_CURVES_FILE}", curves)
        write_tensorboard_log(model_run, curves, hyperparameters, metrics={})
    reference_predictions.write(f"{folder}/{reference_predictions.FILE_NAME}", predictions)
    provenance = {
        "data_fingerprint": data_fingerprint,
        "code_fingerprint": code_fingerprint,
        "examples_left_out": left_out,
        **(precision or {}),
        **({"warm_start": warm_start} if warm_start else {}),
        **({"hyperparameters": hyperparameters} if hyperparameters else {}),
        "libraries": {library: version(library) for library in LIBRARIES},
    }
    _write_json(f"{folder}/{PROVENANCE_FILE}", provenance)


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(content, indent=2))


def _save(model: keras.Model, path: str) -> None:
    with tempfile.TemporaryDirectory() as local:
        # Keras writes its zip file with seeks, which an object store does not offer.
        file = Path(local) / MODEL_FILE
        model.save(file)
        tf.io.gfile.copy(str(file), path, overwrite=True)
