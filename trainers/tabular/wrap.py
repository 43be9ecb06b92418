"""Wrapping of a model of tables that exists: Keras, YDF, XGBoost, LightGBM and scikit-learn, from raw columns on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from serving.answers import Decision, write_decision
from serving.reference_predictions import predictions_of, with_answers
from serving.signatures.common import VOCABULARY, Features, Labels, export
from serving.signatures.tabular import served_model
from trainers.artifacts import unknown_rule, write_artifacts
from trainers.errors import TrainingError, first_line
from trainers.options import ServingOptions
from trainers.splits import TransformGraph, data_fingerprint, read_transformed_split
from trainers.tabular.background import explanation
from trainers.tabular.options import WrapTableOptions
from trainers.tabular.sklearn_pipelines import SklearnModel, sklearn_model
from trainers.tabular.tree_models import (
    TreeModel,
    forest_of_lightgbm,
    forest_of_xgboost,
    forest_of_ydf,
    number_column,
    sigmoid_of_scores,
    text_column,
    xgboost_iterations,
)
from transform.options import TabularOptions
from transform.tabular import RAW

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

Kind = Literal["number", "category"]


@dataclass(frozen=True)
class WrappedTable:
    """A model of another library, carried over.

    Attributes:
        columns: what the model takes, in its order -> whether these are numbers or categories.
        labels: in the order of the probabilities.
        predict: columns as a table has them, [batch] each -> float32 [batch, classes], by core operations.
        original: rows as pandas has them -> [n, classes], by the library itself.
        tables: lookup tables that an export must hold.
    """

    columns: Mapping[str, Kind]
    labels: tuple[str, ...]
    predict: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
    original: Callable[[pd.DataFrame], np.ndarray]
    tables: Sequence[Any] = ()

    def answers(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [n, classes]: what the library itself says of rows.

        Args:
            columns: as a table has them, [n] each, see serving/missing_values.py.
        """
        frame = pd.DataFrame({name: _as_pandas(columns[name], kind) for name, kind in self.columns.items()})
        found = np.asarray(self.original(frame), np.float64)
        return (np.stack([1 - found, found], axis=1) if found.ndim == 1 else found).astype(np.float32)


def _as_pandas(values: np.ndarray, kind: Kind) -> np.ndarray:
    """What pandas makes of a column: numbers, NaN where missing; or text, NaN where missing."""
    if kind == "category":
        texts = [text.decode() for text in text_column(tf.constant(values)).numpy()]
        return np.array([text or np.nan for text in texts], object)
    numbers: np.ndarray = number_column(tf.constant(values), tf.float64).numpy()
    whole = np.issubdtype(values.dtype, np.integer) and not np.isnan(numbers).any()
    return values if whole else numbers


def wrapped_table(options: WrapTableOptions, order: Sequence[str] = ()) -> WrappedTable:
    """The model that the options name, carried over; whether that can be done is found without any row.

    Args:
        options: where it is, and what it does not know itself.
        order: of the labels, where neither the model nor the options know it: preprocessing.label.order.

    Raises:
        TrainingError: it cannot be read or carried over; the message says what, and what to do.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _local(options.model, Path(folder))
        read = next((read for suffixes, read in _READERS.items() if path.endswith(suffixes)), None)
        if read is None and not Path(path).is_dir():
            raise TrainingError(
                f"{options.model}: expected the directory of a YDF model, or a file that ends in "
                f"{', '.join(suffix for suffixes in _READERS for suffix in suffixes)}"
            )
        try:
            return (read or _read_ydf)(path, options, tuple(order))
        except ImportError as error:
            raise TrainingError(
                f"{options.model}: {error.name} is needed to read this model; `pip install ingraph[wrap]` brings it"
            ) from error
        except TrainingError as error:
            raise TrainingError(f"{options.model}: {error}") from error


def _local(path: str, folder: Path) -> str:
    """A path that every library reads: what lies in an object store is copied."""
    if not tf.io.gfile.exists(path):
        raise TrainingError(f"{path}: there is no such file or directory; set trainer.model to where the model is")
    if "://" not in path:
        return path
    copy = folder / os.path.basename(path.rstrip("/"))  # noqa: PTH119 (an object store's path is no pathlib path)
    if not tf.io.gfile.isdir(path):
        tf.io.gfile.copy(path, str(copy))
        return str(copy)
    for below, _, names in tf.io.gfile.walk(path):
        place = copy / below.removeprefix(path).strip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            tf.io.gfile.copy(f"{below}/{name}", str(place / name))
    return str(copy)


def _labels(
    found: Sequence[str], options: WrapTableOptions, order: Sequence[str], classes: int, what: str
) -> tuple[str, ...]:
    """The labels: those of the model, else those of the config."""
    if found:
        if options.labels and options.labels != tuple(found):
            raise TrainingError(
                f"the {what} model has the labels {', '.join(found)} in this order, trainer.labels are "
                f"{', '.join(options.labels)}; leave trainer.labels out"
            )
        return tuple(found)
    given = options.labels or tuple(order)
    if len(given) != classes:
        received = f"received {len(given)}: {', '.join(given)}" if given else "none is given"
        raise TrainingError(
            f"the {what} model knows its {classes} classes by number only, and {received}; give trainer.labels, the "
            "label of each class in the order of their numbers, `labels: [good, bad]` where 0 is good"
        )
    return given


def _named(model: TreeModel, known: Sequence[str], options: WrapTableOptions, what: str) -> dict[str, str]:
    """The column of the table behind each column of a forest.

    Args:
        model: the forest.
        known: its columns in their order; where the library made the names up, the config gives them.
        options: of the config.
        what: the library.
    """
    made_up = all(name in (str(place), f"Column_{place}") for place, name in enumerate(known))
    if not made_up:
        if options.columns and [*options.columns] != [*known]:
            raise TrainingError(
                f"the {what} model takes the columns {', '.join(known)}, trainer.columns are "
                f"{', '.join(options.columns)}; leave trainer.columns out"
            )
        return {name: name for name in known}
    if len(options.columns) != len(known):
        raise TrainingError(
            f"the {what} model knows its {len(known)} columns by number only; give trainer.columns, their names in its "
            "order"
        )
    return dict(zip(known, options.columns, strict=True))


def _forest(
    model: TreeModel,
    known: Sequence[str],
    order: tuple[str, ...],
    options: WrapTableOptions,
    what: str,
    original: Callable[[pd.DataFrame], np.ndarray],
) -> WrappedTable:
    """A wrapped forest.

    Args:
        model: the forest.
        known: its columns in the library's order.
        order: of the labels, see wrapped_table.
        options: of the config.
        what: the library.
        original: rows with the library's names of columns -> its own probabilities.
    """
    places = _named(model, known, options, what)
    classes = max(2, len(model.forest.bias))
    kinds: dict[str, Kind] = {places[name]: "category" if name in model.categories else "number" for name in known}
    return WrappedTable(
        columns=kinds,
        labels=_labels(model.labels, options, order, classes, what),
        predict=lambda columns: model.predict_columns({name: columns[column] for name, column in places.items()}),
        original=lambda frame: original(frame.set_axis([*known], axis=1)),
    )


def _read_ydf(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    import ydf

    ydf.verbose(0)
    try:
        model = ydf.load_model(path)
    except Exception as error:  # of many classes, some of them its own
        raise TrainingError(f"no YDF model can be loaded: {first_line(error)}; save it by model.save") from error
    forest = forest_of_ydf(model)

    def original(frame: pd.DataFrame) -> np.ndarray:
        texts = {name: frame[name].fillna("") for name in forest.categories}
        return np.asarray(model.predict(frame.assign(**texts)))

    return _forest(forest, [*model.input_feature_names()], order, options, "YDF", original)


def _read_xgboost(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    import xgboost

    try:
        model = xgboost.Booster(model_file=path)
    except xgboost.core.XGBoostError as error:
        raise TrainingError(f"no XGBoost model can be loaded: {first_line(error)}; save it by save_model") from error
    forest = forest_of_xgboost(model)
    known = model.feature_names or [str(place) for place in range(model.num_features())]

    def original(frame: pd.DataFrame) -> np.ndarray:
        rows = _with_categories(frame, forest)
        matrix = xgboost.DMatrix(rows, enable_categorical=True, feature_names=[*known])
        rounds = (0, xgboost_iterations(model))
        if len(forest.forest.bias) == 1:
            return np.asarray(model.predict(matrix, iteration_range=rounds))
        margins = np.asarray(model.predict(matrix, iteration_range=rounds, output_margin=True), np.float64)
        exponents = np.exp(margins - margins.max(axis=1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))

    return _forest(forest, [*known], order, options, "XGBoost", original)


def _read_lightgbm(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    import lightgbm

    try:
        model = lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise TrainingError(f"no LightGBM model can be loaded: {first_line(error)}; save it by save_model") from error
    forest = forest_of_lightgbm(model)

    def original(frame: pd.DataFrame) -> np.ndarray:
        if model.pandas_categorical:
            return np.asarray(model.predict(_with_categories(frame, forest)))
        return np.asarray(model.predict(frame.apply(pd.to_numeric).to_numpy(np.float64)))

    return _forest(forest, model.feature_name(), order, options, "LightGBM", original)


def _with_categories(frame: pd.DataFrame, forest: TreeModel) -> pd.DataFrame:
    """Columns of categories as pandas has them; a value that the model does not know is missing."""
    return frame.assign(**{name: pd.Categorical(frame[name], known) for name, known in forest.categories.items()})


def _read_skops(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    import skops.io

    unknown = skops.io.get_untrusted_types(file=path)
    foreign = sorted(name for name in unknown if not name.startswith("sklearn.") and name != "numpy.dtype")
    if foreign and not options.trusted:
        raise TrainingError(
            f"the file holds {', '.join(foreign)}, which run code of their own when they are loaded; set "
            "trainer.trusted: true if you trust where it comes from"
        )
    return _sklearn(skops.io.load(path, trusted=unknown), options, order)


def _read_pickle(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    if not options.trusted:
        raise TrainingError(
            "a pickle runs any code when it is loaded; save the pipeline by skops.io.dump, or set trainer.trusted: "
            "true if you trust where it comes from"
        )
    import joblib

    return _sklearn(joblib.load(path), options, order)


def _sklearn(model: Any, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    carried: SklearnModel = sklearn_model(model, options.columns)
    known = hasattr(model, "feature_names_in_")
    return WrappedTable(
        columns=carried.columns,  # type: ignore[arg-type]
        labels=_labels(carried.labels, options, order, len(carried.labels), "scikit-learn"),
        predict=carried.predict,
        original=lambda frame: np.asarray(model.predict_proba(frame if known else frame.to_numpy())),
    )


def _read_keras(path: str, options: WrapTableOptions, order: tuple[str, ...]) -> WrappedTable:
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"the model cannot be loaded: {first_line(error)}; save it by model.save with Keras 3, without classes of "
            "your own in it"
        ) from error
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise TrainingError(
            f"the model answers with {[tuple(output.shape) for output in model.outputs]}, expected one output of the "
            "shape [batch, classes]; save a model from columns to the classes"
        )
    names, feed = _keras_inputs(model, options)
    width = model.outputs[0].shape[1]
    predict, tables = _frozen_with_tables(model, names, feed)

    def shares(answers: tf.Tensor) -> tf.Tensor:
        if options.outputs == "logits":
            return sigmoid_of_scores(answers) if width == 1 else tf.nn.softmax(answers)
        return tf.concat([1 - answers, answers], axis=1) if width == 1 else answers

    def original(frame: pd.DataFrame) -> np.ndarray:
        columns = {name: tf.constant(_as_table(frame[name])) for name in names}
        answers = model.predict(feed(columns), batch_size=4096, verbose=0)
        return np.asarray(shares(tf.cast(answers, tf.float64)))

    return WrappedTable(
        columns=names,
        labels=_labels((), options, order, max(2, width), "Keras"),
        predict=lambda columns: tf.cast(shares(predict(columns)), tf.float32),
        original=original,
        tables=tables,
    )


_Table = Mapping[str, tf.Tensor]


def _keras_inputs(model: Any, options: WrapTableOptions) -> tuple[dict[str, Kind], Callable[[_Table], Any]]:
    """The columns that a Keras model takes, and how it gets them of columns as a table has them."""
    if len(model.inputs) == 1 and not isinstance(model.input, dict):
        (tensor,) = model.inputs
        if len(options.columns) != (tensor.shape[1] if len(tensor.shape) == 2 else 1):
            raise TrainingError(
                f"the Keras model has one input of the shape {tuple(tensor.shape)}; give trainer.columns, the names of "
                "the columns that it is made of, in their order"
            )
        kind: Kind = "category" if tensor.dtype == "string" else "number"
        return dict.fromkeys(options.columns, kind), lambda table: tf.stack(
            [_keras_column(table[name], tensor.dtype) for name in options.columns], axis=1
        )
    by_name = isinstance(model.input, dict)
    tensors = dict(model.input) if by_name else {tensor.name: tensor for tensor in model.inputs}
    if options.columns:
        raise TrainingError(f"the Keras model has the inputs {', '.join(tensors)}; leave trainer.columns out")
    for name, tensor in tensors.items():
        if tuple(tensor.shape[1:]) not in ((), (1,)):
            raise TrainingError(
                f"the Keras model takes {name!r} with the shape {tuple(tensor.shape)}, expected [batch] or [batch, 1]; "
                "give it an input for each column"
            )

    def feed(table: _Table) -> Any:
        columns = {
            name: tf.reshape(_keras_column(table[name], tensor.dtype), [-1, *tensor.shape[1:]])
            for name, tensor in tensors.items()
        }
        return columns if by_name else [*columns.values()]

    return {name: "category" if tensor.dtype == "string" else "number" for name, tensor in tensors.items()}, feed


def _keras_column(values: tf.Tensor, dtype: str) -> tf.Tensor:
    """A column as Keras gets it: text "" where missing, floats NaN; integers as a table has them."""
    if dtype == "string":
        return text_column(values)
    wanted = tf.as_dtype(dtype)
    return number_column(values, wanted) if wanted.is_floating else tf.cast(values, wanted)


def _as_table(values: pd.Series) -> np.ndarray:
    if values.dtype == object:
        return np.array([value.encode() if isinstance(value, str) else b"" for value in values], object)
    return values.to_numpy()


def _frozen_with_tables(
    model: Any, names: Mapping[str, Kind], feed: Callable[[_Table], Any]
) -> tuple[Callable[[_Table], tf.Tensor], list[Any]]:
    """The model with its variables as constants, and the lookup tables of its layers, which an export must hold."""
    order = [*names]
    # A column of the table may be of another type than the model's input; here it is of the one that feed casts to.
    specs = [
        tf.TensorSpec([None], tf.string if names[name] == "category" else tf.float64, name=f"column_{place}")
        for place, name in enumerate(order)
    ]
    traced = tf.function(
        lambda *values: model(feed(dict(zip(order, values, strict=True))), training=False), autograph=False
    ).get_concrete_function(*specs)
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it warns of each lookup table, which the session loader does without
    frozen = convert_variables_to_constants_v2(traced)
    logger.setLevel(level)
    handles = {inner.op.name: outer for outer, inner in traced.graph.captures if outer.dtype == tf.resource}
    captured = [handles[tensor.op.name] for tensor in frozen.inputs[len(order) :]]
    tables = [
        layer.lookup_table for layer in model._flatten_layers() if getattr(layer, "lookup_table", None) is not None
    ]

    def predict(columns: _Table) -> tf.Tensor:
        values = [
            text_column(columns[name]) if names[name] == "category" else number_column(columns[name], tf.float64)
            for name in order
        ]
        (answers,) = frozen(*values, *captured)
        return answers

    return predict, tables


_ROWS_AT_ONCE = 4096

_Reader = Callable[[str, WrapTableOptions, tuple[str, ...]], WrappedTable]
_READERS: dict[tuple[str, ...], _Reader] = {
    (".keras",): _read_keras,
    (".json", ".ubj"): _read_xgboost,
    (".txt",): _read_lightgbm,
    (".skops",): _read_skops,
    (".joblib", ".pkl", ".pickle"): _read_pickle,
}


def raw_preprocessing(options: WrapTableOptions, preprocessing: TabularOptions) -> TabularOptions:
    """The preprocessing for a model that exists: its columns as they are, its labels in their order.

    Raises:
        ValueError: the model cannot be read or carried over, or preprocessing says what the model decides about.
    """
    idle = sorted({"columns", "crosses", "minimum_category_count"} & preprocessing.model_fields_set)
    # Not those that come out of the JSON of a config, which name every field.
    idle = [name for name in idle if getattr(preprocessing, name) != type(preprocessing).model_fields[name].default]
    if idle:
        raise ValueError(f"preprocessing.{idle[0]} is for models that are trained here; a wrapped one brings its own")
    label = preprocessing.label
    try:
        model = wrapped_table(options, label.order)
    except TrainingError as error:
        raise ValueError(str(error)) from error
    order = tuple(label.names.get(name, name) for name in model.labels)
    if label.order and label.order != order:
        raise ValueError(
            f"preprocessing.label.order is {', '.join(label.order)}, the labels of the model are {', '.join(order)} in "
            "this order; leave preprocessing.label.order out"
        )
    if label.column in model.columns:
        raise ValueError(f"{options.model} takes the column {label.column!r}, which is preprocessing.label.column")
    completed = label.model_copy(update={"order": order})
    return preprocessing.model_copy(update={"raw": dict(model.columns), "label": completed})


def wrap(fn_args: FnArgs, options: WrapTableOptions, code_fingerprint: str) -> None:
    """What run_fn does with a model that exists: export it, and leave what its own library says of the eval split."""
    preprocessing = TabularOptions.model_validate_json(fn_args.custom_config["preprocessing"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    transform = TransformGraph(transform_output)
    model = wrapped_table(options, labels)
    features = {name: f"{RAW}{number}" for number, name in enumerate(preprocessing.raw)}
    wanted = {*features, preprocessing.label.column}
    weight = fn_args.custom_config.get("weight", "")
    train = read_transformed_split(fn_args.train_files, transform, weight=weight)
    evaluation = read_transformed_split(fn_args.eval_files, transform, weight=weight)
    columns, answers = [], []
    for split in (train, evaluation):
        columns.append({name: np.asarray(split.features[feature]) for name, feature in features.items()})
        answers.append(model.answers(columns[-1]))
    predictions = predictions_of(evaluation.ids, labels, answers[-1], evaluation.labels)
    serving = ServingOptions.of(fn_args.custom_config)
    decision, asked = None, serving.decision
    if asked is not None and asked.threshold is not None and preprocessing.label.positive is not None:
        decision = Decision(preprocessing.label.positive, float(np.float32(asked.threshold)))
    unknown = unknown_rule(serving, labels, predictions, evaluation.truth)
    taken = {name: spec for name, spec in transform.raw_feature_spec.items() if name in wanted}

    def predict(raw: Features) -> tf.Tensor:
        return model.predict({name: raw[feature] for name, feature in features.items()})

    asked_for = {name: spec for name, spec in taken.items() if name in features}
    served = served_model(
        transform=transform,
        predict=predict,
        labels=Labels(transform_output.vocabulary_file_by_name(VOCABULARY), decision, unknown),
        raw_feature_spec=taken,
        label_column=preprocessing.label.column,
        classes=len(labels),
        explain=explanation(serving, fn_args.train_files, asked_for, transform, predict),
    )
    served.resources["tables"] = [*model.tables]
    export(served, fn_args.serving_model_dir)
    if decision is not None:
        write_decision(fn_args.serving_model_dir, decision)
    frozen = tf.function(model.predict, autograph=False)
    agreements = [_agreement(frozen, rows, expected) for rows, expected in zip(columns, answers, strict=True)]
    write_artifacts(
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        model=None,
        predictions=with_answers(predictions, labels, decision, unknown),
        decision={} if decision is None else {**asdict(decision), "by": str(asked)},
        data_fingerprint=data_fingerprint(train.fingerprint, evaluation.fingerprint),
        code_fingerprint=code_fingerprint,
        left_out=train.left_out + evaluation.left_out,
        hyperparameters={},
        details={"wrapped": _whole(agreements)},
        unknown=unknown,
    )


@dataclass(frozen=True)
class _Agreement:
    """How the graph and the library answer the same rows: how many, of how many the label, how far apart at most."""

    rows: int
    labels: int
    difference: float


def _agreement(
    predict: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], rows: Mapping[str, np.ndarray], expected: np.ndarray
) -> _Agreement:
    labels, difference = 0, 0.0
    for start in range(0, len(expected), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        answers = predict({name: tf.constant(values[part]) for name, values in rows.items()}).numpy()
        labels += int((answers.argmax(axis=1) == expected[part].argmax(axis=1)).sum())
        difference = max(difference, float(np.abs(answers - expected[part]).max()))
    return _Agreement(len(expected), labels, difference)


def _whole(agreements: Sequence[_Agreement]) -> dict[str, Any]:
    """What provenance.json says of all rows of the data."""
    return {
        "rows": sum(one.rows for one in agreements),
        "labels_equal": sum(one.labels for one in agreements),
        "greatest_difference": max(one.difference for one in agreements),
    }
