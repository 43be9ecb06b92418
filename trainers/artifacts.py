"""Artifacts beside the export: the Keras model, reference predictions, learning curves, TensorBoard's log."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, text_format, wrappers_pb2
from google.protobuf.message import Message

from serving import reference_predictions
from serving.answers import (
    HALF_OF_EVAL,
    OUT_OF_FOLD,
    UnknownRule,
    calibrates,
    rule_of_coverage,
)
from serving.reference_predictions import ReferencePredictions
from serving.signatures.common import freeze
from trainers.errors import TrainingError, first_line
from trainers.options import ServingOptions
from trainers.row_store import RowStore
from trainers.splits import Column, TransformedSplit, dense_batch

LEARNING_CURVES_FILE = "learning_curves.json"


def learning_curves(model: keras.Model | None) -> dict[str, list[float]]:
    """What Keras recorded in the last `fit`, as `{"loss": [one an epoch], "val_loss": …}`.

    {} for a model that was not trained here, a frozen or loaded one.
    """
    history = getattr(model, "history", None)
    recorded = history.history if history is not None else {}
    return {name: [float(value) for value in values] for name, values in recorded.items()}


_SUCCESS, _FAILURE = 1, 2
# TensorBoard's HParamsPluginData (tensorboard/plugins/hparams/plugin_data.proto), as far as it is written here: a
# SessionStartInfo with hyperparameters alone has the wire format of a Struct, a SessionEndInfo with a status alone
# that of a number.
_SCHEMA = """
    name: "trainers/tensorboard_log.proto" package: "ingraph" syntax: "proto3"
    dependency: "google/protobuf/struct.proto" dependency: "google/protobuf/wrappers.proto"
    message_type {
        name: "HParamsPluginData"
        field { name: "session_start_info" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" }
        field { name: "session_end_info" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Int32Value" }
    }
"""
_POOL = descriptor_pool.Default()
_POOL.AddSerializedFile(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()).SerializeToString())
_PluginData = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("ingraph.HParamsPluginData"))


def write_tensorboard_log(
    folder: str,
    curves: Mapping[str, Sequence[float]],
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    failed: bool = False,
) -> None:
    """Write an event file: curves and metrics as scalars, hyperparameters for the HParams dashboard.

    TensorBoard itself is not needed for it, and is not among the packages that TensorFlow brings: what it reads is
    written by TensorFlow's core ops.

    Args:
        folder: a run in TensorBoard; local or in an object store.
        curves: name -> a value an epoch, under `epoch/`.
        hyperparameters: name -> value; none where nothing was tuned.
        metrics: name -> value at the end, under `held_out/`.
        failed: whether the training came to nothing.
    """
    with tf.summary.create_file_writer(folder).as_default():
        if hyperparameters:
            values = {name: _value(value) for name, value in hyperparameters.items()}
            _write_hparams(session_start_info=struct_pb2.Struct(fields=values))
        for name, curve in curves.items():
            for epoch, value in enumerate(curve):
                _write_scalar(f"epoch/{name}", value, epoch)
        for name, value in metrics.items():
            _write_scalar(f"held_out/{name}", value, 0)
        if hyperparameters:
            _write_hparams(session_end_info=wrappers_pb2.Int32Value(value=_FAILURE if failed else _SUCCESS))


def _write_scalar(tag: str, value: float, step: int) -> None:
    metadata = tf.compat.v1.SummaryMetadata(data_class=1)  # DATA_CLASS_SCALAR
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(tag, tf.constant(value, tf.float32), step, metadata)


def _write_hparams(**content: Message) -> None:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "hparams"
    metadata.plugin_data.content = _PluginData(**content).SerializeToString(deterministic=True)
    (kind,) = content
    tf.summary.write(f"_hparams_/{kind}", tf.zeros([0]), 0, metadata)


def _value(value: Any) -> struct_pb2.Value:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=value if isinstance(value, str) else json.dumps(value))


def frozen_model(model: keras.Model) -> Callable[[Mapping[str, tf.Tensor]], tf.Tensor]:
    """Features by name -> the model's output; its weights are constants, its inputs a dict by feature name."""
    names = list(model.input)
    frozen = freeze(
        lambda *values: model(dict(zip(names, values, strict=True)), training=False),
        *(tf.TensorSpec([None, *model.input[name].shape[1:]], model.input[name].dtype) for name in names),
    )
    return lambda features: frozen(*(features[name] for name in names))


def predict_split(
    model: keras.Model, split: TransformedSplit, labels: Sequence[str], batch_size: int | None = None
) -> ReferencePredictions:
    """The Keras model's own probabilities and best labels for each example of the split."""
    probabilities = predict_columns(model, split.features, batch_size)
    return reference_predictions.predictions_of(split.ids, labels, probabilities, split.labels)


def predict_columns(model: keras.Model, columns: Mapping[str, Column], batch_size: int | None = None) -> np.ndarray:
    """What a Keras model makes of rows, float32 [n, ...].

    Args:
        model: takes a dict of columns.
        columns: of n rows; rows of like length come into one batch, where they have one.
        batch_size: how many rows at a time; None for many.
    """
    count = int(tf.shape(next(iter(columns.values())))[0])
    lengths = [column.row_lengths() for column in columns.values() if isinstance(column, tf.RaggedTensor)]
    order = np.argsort(tf.add_n(lengths), kind="stable") if lengths else np.arange(count)
    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size or _ROWS_AT_ONCE)
    plain = tf.autograph.experimental.do_not_convert(lambda rows: dense_batch(columns, rows))
    found = model.predict(batches.map(plain), verbose=0)
    return np.asarray(found[np.argsort(order)])


_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class StoredPredictions:
    """Predictions of a store, on disk.

    Attributes:
        store: the rows.
        labels: in the order of the probabilities.
        path: float32 [n, classes], one row after the other.
    """

    store: RowStore
    labels: Sequence[str]
    path: Path

    @classmethod
    def of(
        cls, store: RowStore, labels: Sequence[str], predict: Callable[[TransformedSplit], np.ndarray]
    ) -> StoredPredictions:
        """Ask a model part by part."""
        path = store.folder / "predictions"
        with path.open("wb") as file:
            for part in store.parts():
                file.write(np.ascontiguousarray(predict(part), np.float32).tobytes())
        return cls(store, labels, path)

    def __iter__(self) -> Iterator[ReferencePredictions]:
        return (predictions for predictions, _ in self._parts())

    def calibrating(self) -> tuple[ReferencePredictions, dict[str, int]]:
        """Rows on which a coverage may be calibrated, and the number of each one's label; so many at most."""
        ids, found = [], []
        truth: dict[str, int] = {}
        for predictions, part in self._parts():
            rows = [row for row, id_ in enumerate(predictions.ids) if calibrates(id_)]
            chosen = predictions.rows(rows)
            ids += chosen.ids
            found.append(chosen.probabilities)
            truth |= dict(zip(chosen.ids, part.labels[rows].tolist(), strict=True))
            if len(ids) > _MOST_CALIBRATING:
                break
        return reference_predictions.predictions_of(ids, self.labels, np.concatenate(found)), truth

    def _parts(self) -> Iterator[tuple[ReferencePredictions, TransformedSplit]]:
        classes = len(self.labels)
        with self.path.open("rb") as file:
            for part in self.store.parts():
                values = np.fromfile(file, np.float32, len(part.labels) * classes).reshape(-1, classes)
                yield reference_predictions.predictions_of(part.ids, self.labels, values, part.labels), part


# Of more rows a quantile is hardly known better.
_MOST_CALIBRATING = 200_000


def predict_rows(
    rows: TransformedSplit | RowStore, labels: Sequence[str], predict: Callable[[TransformedSplit], np.ndarray]
) -> Iterable[ReferencePredictions]:
    """What a model says of a split: all of it, or part by part, of a store, each time that it is gone through.

    Args:
        rows: the split.
        labels: in the order of the probabilities.
        predict: rows in memory -> float32 [n, classes].
    """
    if isinstance(rows, RowStore):
        return StoredPredictions.of(rows, labels, predict)
    return [reference_predictions.predictions_of(rows.ids, labels, predict(rows), rows.labels)]


def calibration(
    rows: TransformedSplit | RowStore, predictions: Iterable[ReferencePredictions]
) -> tuple[ReferencePredictions, dict[str, int]]:
    """The predictions that unknown_rule takes, and the number of the label of each id."""
    if isinstance(predictions, StoredPredictions):
        return predictions.calibrating()
    assert isinstance(rows, TransformedSplit), "predictions of a store are stored"
    (all_of_them,) = predictions
    return all_of_them, rows.truth


def unknown_rule(
    options: ServingOptions,
    labels: Sequence[str],
    predictions: ReferencePredictions,
    truth: Mapping[str, int],
    out_of_fold: tuple[np.ndarray, np.ndarray] | None = None,
) -> UnknownRule | None:
    """When serving_default answers a label of its own; None for never.

    A coverage is calibrated on predictions out of folds where there are such, else on half of the eval split.

    Args:
        options: of the config.
        labels: the label vocabulary.
        predictions: of the eval split.
        truth: id -> number of the label, of the examples of the eval split that have a usable one.
        out_of_fold: probabilities, float [n, classes], of rows by models that did not see them, and int64 [n], the
            numbers of their labels.

    Raises:
        TrainingError: the label is one of the model's, or the coverage needs more rows than there are.
    """
    unknown = options.unknown
    if unknown is None:
        return None
    try:
        unknown.check(labels)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    if unknown.coverage is None:
        return UnknownRule(unknown.label, float(unknown.confidence or 0))
    if out_of_fold is not None:
        probabilities, numbers = out_of_fold
        of_truth, source = probabilities[np.arange(len(numbers)), numbers], OUT_OF_FOLD
    else:
        rows = [row for row, id_ in enumerate(predictions.ids) if id_ in truth and calibrates(id_)]
        numbers = np.array([truth[predictions.ids[row]] for row in rows], np.int64)
        of_truth, source = predictions.probabilities[rows, numbers], HALF_OF_EVAL
    try:
        return rule_of_coverage(unknown.label, unknown.coverage, of_truth, source)
    except ValueError as error:
        raise TrainingError(
            f"serving.unknown.coverage is {unknown.coverage:g}, which {error}; give more data, lower it, or name a "
            "confidence instead"
        ) from error


MODEL_FILE = "model.keras"
PROVENANCE_FILE = "provenance.json"
LIBRARIES = ("tensorflow", "keras", "tensorflow-transform", "tfx")


def write_artifacts(
    export_path: str,
    model_run: str,
    model: keras.Model | None,
    predictions: ReferencePredictions | Iterable[ReferencePredictions],
    data_fingerprint: str,
    code_fingerprint: str,
    left_out: int,
    hyperparameters: Mapping[str, Any],
    details: Mapping[str, Any] = {},
    warm_start: str = "",
    curves: Mapping[str, Sequence[float]] | None = None,
    members: Mapping[str, Any] = {},
    decision: Mapping[str, Any] = {},
    unknown: UnknownRule | None = None,
    streamed: Mapping[str, Any] = {},
    texts: Mapping[str, Any] = {},
) -> None:
    """Write what later steps need into the export's parent directory, and the TensorBoard log.

    That is `model.keras`, `learning_curves.json`, `reference_predictions.parquet` and `provenance.json`.

    Args:
        export_path: the SavedModel's directory.
        model_run: the directory of TFX's ModelRun artifact, which the TensorBoard log is written into.
        model: the trained model; a frozen export has no variables to start another training from. None where no Keras
            model was made, and so no model.keras is.
        predictions: what the training graph says of the eval split, and what serving_default is to answer; or parts
            of it.
        data_fingerprint: of the examples trained and evaluated on.
        code_fingerprint: of the config and the code that made the model.
        left_out: how many examples of both splits had no usable label.
        hyperparameters: the options that a search found, by name; {} where none was made.
        details: what else the provenance says, by its own keys: of the numbers that the export computes with, and of
            what was wrapped or chosen.
        warm_start: from where the training began, see trainers/warm_start.py, if it was to begin with a served model.
        curves: name -> a value an epoch, where it is not what Keras recorded of the model.
        members: what was tried on folds, by which figures, and what was kept of it; {} where nothing was.
        decision: from which probability on a label is answered, and by which figures; {} for the most probable label.
        unknown: when serving_default answers a label of its own.
        streamed: how many rows were learned from on disk, and how many of them in memory; {} where all were there.
        texts: into which terms texts were cut, and how they were learned from; {} for other data.
    """
    folder = os.path.dirname(export_path.rstrip("/"))  # noqa: PTH120 (may be an object store's path)
    if model is not None:
        _save(model, f"{folder}/{MODEL_FILE}")
    curves = learning_curves(model) if curves is None else curves
    if curves:
        _write_json(f"{folder}/{LEARNING_CURVES_FILE}", curves)
        write_tensorboard_log(model_run, curves, hyperparameters, metrics={})
    reference_predictions.write(f"{folder}/{reference_predictions.FILE_NAME}", predictions)
    provenance = {
        "data_fingerprint": data_fingerprint,
        "code_fingerprint": code_fingerprint,
        "examples_left_out": left_out,
        **details,
        **({"warm_start": warm_start} if warm_start else {}),
        **({"streamed": streamed} if streamed else {}),
        **({"texts": texts} if texts else {}),
        **({"members": members} if members else {}),
        **({"decision": decision} if decision else {}),
        **(unknown.as_provenance() if unknown else {}),
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


MEMBERS_FOLDER = "members"


def write_members(export_path: str, save: Callable[[Path], None]) -> None:
    """Write the models of a blend into the folder `members` of the export's parent directory.

    Args:
        export_path: the SavedModel's directory.
        save: writes them into a new local folder.
    """
    target = f"{os.path.dirname(export_path.rstrip('/'))}/{MEMBERS_FOLDER}"  # noqa: PTH120 (may be an object store's)
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / MEMBERS_FOLDER
        save(local)
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            copy = f"{target}/{file.relative_to(local)}"
            tf.io.gfile.makedirs(os.path.dirname(copy))  # noqa: PTH120
            tf.io.gfile.copy(str(file), copy, overwrite=True)


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
