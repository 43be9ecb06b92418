"""Models of adult, trained by their own libraries, wrapped and served: every row, and how long a request takes.

    INGRAPH_TEST_DATA=… .venv/bin/python -m benchmarks.tabular.wrapped [--rows 32561] [--only ydf xgboost]

What is served is compared with what each library says itself of the rows as pandas reads them. `--export FOLDER` leaves
small models there, wrapped and trained, with requests for 2,000 rows: `make compat` asks them in another TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.harness.pipelines import transform_graph
from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import TEST_DATA, report
from components.serving_check.model_server import write_warmup_requests
from serving.session_model import SessionModel
from serving.signatures.common import CLASSIFY, SERVE_EXAMPLES, SERVING_DEFAULT
from trainers.options import ServingOptions, UnknownOptions
from trainers.tabular.options import TabularTrainerOptions, TreeOptions, WrapTableOptions
from trainers.tabular.train import run_fn
from trainers.tabular.wrap import raw_preprocessing
from transform.options import LabelOptions, TabularOptions
from transform.tabular import preprocessing_fn

LABEL, LABELS = "label", ("<=50K", ">50K")


def adult(part: str, rows: int | None = None) -> pd.DataFrame:
    """Rows of the Census Income data, `train` or `test`, the label as in the former.

    Args:
        part: of the data.
        rows: how many, drawn by a fixed seed; None for all.
    """
    table = pd.read_csv(Path(os.environ[TEST_DATA], f"tables/adult_{part}.csv.gz"), skipinitialspace=True)
    table[LABEL] = table[LABEL].str.rstrip(".")
    return table if rows is None else table.sample(rows, random_state=0).reset_index(drop=True)


def text_columns(table: pd.DataFrame) -> list[str]:
    """The columns of text but the label."""
    return [name for name in table if table[name].dtype == object and name != LABEL]


def with_categories(table: pd.DataFrame) -> pd.DataFrame:
    """The columns but the label, those of text with the categories of the training data, as pandas has them."""
    known = adult("train")
    return table.drop(columns=LABEL).assign(
        **{name: pd.Categorical(table[name], sorted(known[name].unique())) for name in text_columns(table)}
    )


Predict = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class OwnModel:
    """A model as its library saved it.

    Attributes:
        options: of the trainer that wraps it.
        predict: rows, the label among them -> the probability of ">50K", [n], by the library.
    """

    options: WrapTableOptions
    predict: Predict


def _options(path: Path, **more: object) -> WrapTableOptions:
    return WrapTableOptions.model_validate({"mode": "wrap", "model": str(path), **more})


def _ydf(table: pd.DataFrame, folder: Path, size: int) -> OwnModel:
    import ydf

    ydf.verbose(0)
    model = ydf.GradientBoostedTreesLearner(label=LABEL, num_trees=size, num_threads=1).train(table)
    model.save(f"{folder}/ydf")
    return OwnModel(_options(folder / "ydf"), lambda rows: np.asarray(model.predict(rows)))


def _xgboost(table: pd.DataFrame, folder: Path, size: int) -> OwnModel:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=size, enable_categorical=True, n_jobs=1)
    model.fit(with_categories(table), table[LABEL] == LABELS[1])
    model.save_model(folder / "xgboost.ubj")
    options = _options(folder / "xgboost.ubj", labels=LABELS)
    return OwnModel(options, lambda rows: np.asarray(model.predict_proba(with_categories(rows)))[:, 1])


def _lightgbm(table: pd.DataFrame, folder: Path, size: int) -> OwnModel:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=size, n_jobs=1, verbose=-1).fit(with_categories(table), table[LABEL])
    model.booster_.save_model(folder / "lightgbm.txt")
    options = _options(folder / "lightgbm.txt", labels=LABELS)
    return OwnModel(options, lambda rows: np.asarray(model.predict_proba(with_categories(rows)))[:, 1])


def _scikit_learn(kind: str) -> Callable[[pd.DataFrame, Path, int], OwnModel]:
    def train(table: pd.DataFrame, folder: Path, size: int) -> OwnModel:
        import skops.io
        from sklearn.compose import ColumnTransformer
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

        texts = text_columns(table)
        numbers = [name for name in table if name not in (*texts, LABEL)]
        scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        hot = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
        numbered = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        preprocessing, classifier = {
            "linear": ([("n", scaled, numbers), ("c", hot, texts)], LogisticRegression(max_iter=300)),
            "forest": (
                [("n", "passthrough", numbers), ("c", hot, texts)],
                RandomForestClassifier(size, random_state=0),
            ),
            "boosted": (
                [("c", numbered, texts), ("n", "passthrough", numbers)],
                HistGradientBoostingClassifier(max_iter=size, random_state=0),
            ),
        }[kind]
        model = make_pipeline(ColumnTransformer(preprocessing), classifier)
        model.fit(table.drop(columns=LABEL), table[LABEL])
        skops.io.dump(model, folder / f"{kind}.skops")
        options = _options(folder / f"{kind}.skops")
        return OwnModel(options, lambda rows: np.asarray(model.predict_proba(rows.drop(columns=LABEL)))[:, 1])

    return train


def _keras(table: pd.DataFrame, folder: Path, size: int) -> OwnModel:
    import keras

    keras.utils.set_random_seed(0)
    texts = text_columns(table)
    columns = [name for name in table if name != LABEL]
    inputs = {name: keras.Input([1], name=name, dtype="string" if name in texts else "float32") for name in columns}
    parts = [
        keras.layers.StringLookup(vocabulary=sorted(table[name].unique()), output_mode="one_hot")(inputs[name])
        if name in texts
        else keras.layers.Normalization(mean=table[name].mean(), variance=table[name].var() + 1e-6)(inputs[name])
        for name in columns
    ]
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.concatenate(parts))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy")

    def feed(rows: pd.DataFrame) -> dict[str, tf.Tensor]:
        return {
            name: tf.constant(rows[name].to_numpy(object if name in texts else np.float32)[:, None]) for name in columns
        }

    model.fit(feed(table), (table[LABEL] == LABELS[1]).to_numpy(np.float32), epochs=1, batch_size=128, verbose=0)
    model.save(folder / "network.keras")
    options = _options(folder / "network.keras", labels=LABELS)
    return OwnModel(options, lambda rows: model.predict(feed(rows), batch_size=4096, verbose=0)[:, 0])


LIBRARIES: Mapping[str, Callable[[pd.DataFrame, Path, int], OwnModel]] = {
    "ydf": _ydf,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "scikit-learn linear": _scikit_learn("linear"),
    "scikit-learn forest": _scikit_learn("forest"),
    "scikit-learn boosted": _scikit_learn("boosted"),
    "keras": _keras,
}


def examples(table: pd.DataFrame) -> list[bytes]:
    """Rows as serialized tf.Examples; what is missing is left out."""

    def feature(value: object) -> tf.train.Feature:
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    return [
        tf.train.Example(
            features=tf.train.Features(
                feature={name: feature(value) for name, value in row.items() if not pd.isna(value)}
            )
        ).SerializeToString(deterministic=True)
        for row in table.to_dict("records")
    ]


_DTYPES = {"O": tf.string, "i": tf.int64, "f": tf.float32}


def exported(model: OwnModel, table: pd.DataFrame, folder: Path) -> str:
    """The SavedModel of a wrapped model, of a run on a table; `folder` must exist."""
    preprocessing = raw_preprocessing(model.options, TabularOptions(label=LabelOptions(column=LABEL)))
    return saved_model(model.options, preprocessing, table, folder)


def saved_model(
    trainer: WrapTableOptions | TabularTrainerOptions,
    preprocessing: TabularOptions,
    table: pd.DataFrame,
    folder: Path,
    unknown: UnknownOptions | None = None,
) -> str:
    """The SavedModel of a run whose train and eval split are the table; `folder` must exist."""
    tf.compat.v1.reset_default_graph()  # others leave annotations there, which tft would read
    with tf.io.TFRecordWriter(f"{folder}/examples.gz", "GZIP") as writer:
        for example in examples(table):
            writer.write(example)
    config = {
        "preprocessing": preprocessing.model_dump_json(),
        "trainer": trainer.model_dump_json(),
        "serving": ServingOptions(unknown=unknown).model_dump_json(),
        "code_fingerprint": "code",
    }
    spec = {name: tf.io.VarLenFeature(_DTYPES[table[name].dtype.kind]) for name in table}
    transform_graph(preprocessing_fn, config, spec, f"{folder}/examples.gz", str(folder))
    run_fn(
        FnArgs(
            train_files=[f"{folder}/examples.gz"],
            eval_files=[f"{folder}/examples.gz"],
            model_run_dir=f"{folder}/model_run",
            transform_output=f"{folder}/graph",
            serving_model_dir=f"{folder}/model/Format-Serving",
            custom_config=config,
        )
    )
    return f"{folder}/model/Format-Serving"


def requests(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns of a request."""
    return {name: table[name].to_numpy() for name in table if name != LABEL}


@dataclass(frozen=True)
class Comparison:
    """What is served beside what the library says.

    Attributes:
        rows: how many were asked.
        labels: of how many the label is the same.
        difference: the greatest of two probabilities.
    """

    rows: int
    labels: int
    difference: float


def compare(session: SessionModel, model: OwnModel, table: pd.DataFrame) -> Comparison:
    """Ask for the label of every row, by its columns, and for its probabilities, by its example."""
    expected = model.predict(table)
    served = session.run("serving_default", requests(table))["output_0"]
    probabilities = session.run("serve_examples", {"examples": np.array(examples(table), object)})["probabilities"]
    labels = np.array(LABELS)[(expected > 0.5).astype(int)]
    return Comparison(
        rows=len(table),
        labels=int((labels == [label.decode() for label in served]).sum()),
        difference=float(np.abs(probabilities[:, 1] - expected).max()),
    )


def request_seconds(session: SessionModel, table: pd.DataFrame, turns: int) -> float:
    """The median time of a request for all rows of a table."""
    columns = requests(table)
    session.run("classify", columns)
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        session.run("classify", columns)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


# What is trained, and not wrapped: small, for it is about operations.
TRAINED = {
    "linear": TabularTrainerOptions(model="linear", epochs=5),
    "network": TabularTrainerOptions(model="network", epochs=5),
    "trees": TabularTrainerOptions(model="trees", trees=TreeOptions(count=50)),
    "blend": TabularTrainerOptions(model="blend", epochs=5, trees=TreeOptions(count=50, forest=20)),
}
_WRAPPED_FOREST = "scikit-learn forest"


def export_all(folder: Path, trained_on: pd.DataFrame, asked: pd.DataFrame) -> None:
    """A base path below the folder for each of TRAINED, and for a forest of scikit-learn's that is wrapped.

    Each model carries requests for every row that is asked, as warm-up requests: what deploy/check_exports.py sends.
    """
    for name in (*TRAINED, "wrapped"):
        with tempfile.TemporaryDirectory() as temporary:
            if name in TRAINED:
                preprocessing = TabularOptions(label=LabelOptions(column=LABEL))
                # What serving_default answers beside the labels is a part of the graph, too.
                unknown = UnknownOptions(coverage=0.9) if name == "blend" else None
                path = saved_model(TRAINED[name], preprocessing, trained_on, Path(temporary), unknown)
            else:
                model = LIBRARIES[_WRAPPED_FOREST](trained_on, Path(temporary), 20)
                path = exported(model, trained_on, Path(temporary))
            version = folder / name / "1"
            shutil.rmtree(version, ignore_errors=True)
            shutil.copytree(path, version)
        serialized = {"examples": np.array(examples(asked.drop(columns=LABEL)), object)}
        columns = requests(asked)
        signatures = {SERVING_DEFAULT: columns, CLASSIFY: columns, SERVE_EXAMPLES: serialized}
        write_warmup_requests(str(version), signatures.items())
        print(f"{version}: asks for {len(asked):,} rows", flush=True)


def main() -> None:
    """Print the table, or export models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=None, help="of the training data; all by default")
    parser.add_argument("--size", type=int, default=100, help="trees, or rounds of trees")
    parser.add_argument("--only", nargs="+", choices=[*LIBRARIES], default=[*LIBRARIES])
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="only leave models of all kinds there")
    arguments = parser.parse_args()
    if arguments.export is not None:
        export_all(arguments.export, adult("train", arguments.rows or 2000), adult("test", 2000))
        return
    train, test = adult("train", arguments.rows), adult("test")
    measurements = []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            model = LIBRARIES[name](train, Path(folder), arguments.size)
            session = SessionModel(exported(model, test, Path(folder)))
            found = compare(session, model, test)
            one, thousand = (request_seconds(session, test[:rows], 100 if rows == 1 else 20) for rows in (1, 1000))
            session.close()
        others = found.rows - found.labels
        measurements += [
            Measurement(f"{name}: other labels of {found.rows:,}", others, "rows", "time", goal=Goal(0, "value")),
            Measurement(
                f"{name}: greatest difference", found.difference * 1e9, "1e-9", "time", goal=Goal(1000, "value")
            ),
            Measurement(f"{name}: a request for 1 row", one * 1000, "ms", "time"),
            Measurement(f"{name}: a request for 1,000 rows, each", thousand * 1000, "us", "time"),
        ]
    report("Adult: models of other libraries, served", measurements)


if __name__ == "__main__":
    main()
