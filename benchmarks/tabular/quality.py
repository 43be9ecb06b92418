"""Twelve public tables: `auto` beside what scikit-learn, LightGBM and YDF reach by their defaults, on the same splits.

    .venv/bin/python -m benchmarks.tabular.quality [--splits 5] [--tables german heart]
    .venv/bin/python -m benchmarks.tabular.quality --coverage 0.9 [--model linear]

Each table goes through the project's own preprocessing_fn, analysed on the train part, and its own training, in one
process. Four of the tables come from $INGRAPH_TEST_DATA (adult with its own test part, so that it has one split), four
from the wheel of scikit-lego, which pipeline/demo_data.py downloads and checks, and four from scikit-learn.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import keras
import lightgbm
import numpy as np
import pandas as pd
import tensorflow as tf
import ydf
from sklearn import datasets
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks.harness.pipelines import transform_graph
from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import TEST_DATA, report
from pipeline import demo_data
from pipeline.data import table_data
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.tasks import TabularRunConfig
from serving.answers import HALF_OF_EVAL, OUT_OF_FOLD, rule_of_coverage
from trainers.blending import cross_entropies, expected_calibration_error
from trainers.splits import TransformedSplit, TransformGraph, read_transformed_split
from trainers.tabular.members import Classifier, Table, keras_classifier, train_members
from trainers.tabular.models import build_model, feature_sizes, known_categories, known_terms, model_inputs
from trainers.tabular.options import ModelKind, TabularTrainerOptions
from trainers.tabular.train import fit
from transform.options import TabularOptions
from transform.tabular import preprocessing_fn

LABEL = "label"
OURS = "ingraph"
AUTO = TabularTrainerOptions()
# Of heart, as configs/heart.yaml has it.
CODES = ("sex", "cp", "fbs", "restecg", "exang", "slope", "ca")


def public_table(name: str) -> pd.DataFrame:
    """A table with the column `label`, a string; other columns are numbers or strings."""
    if name in ("german", "phoneme", "wine-white"):
        frame = _test_data(name)
    elif name == "heart":
        frame = pd.read_csv(demo_data.fetch("hearts")).rename(columns={"target": LABEL})
        frame = frame.astype(dict.fromkeys(CODES, str))
    elif name in ("arrests", "abalone", "penguins"):
        frame = _scikit_lego(name)
    else:
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        frame = bunch.data.assign(**{LABEL: bunch.target})
    return frame.astype({LABEL: str})


TABLES = (
    "german", "phoneme", "wine-white", "heart", "arrests", "abalone", "penguins",
    "breast_cancer", "wine", "digits", "iris",
)  # fmt: skip
ADULT = "adult"
# Of held out rows that a coverage is measured on.
_FEWEST_ANSWERS = 1000


def _test_data(name: str) -> pd.DataFrame:
    path = Path(os.environ[TEST_DATA], "tables", f"{name}.csv.gz")
    return pd.read_csv(path, skipinitialspace=True, na_values="?")


def _scikit_lego(name: str) -> pd.DataFrame:
    demo_data.fetch("hearts")  # from the same wheel, whose checksum it compares
    wheel = demo_data.cache_directory() / demo_data.WHEELS["hearts"].wheel
    with (
        zipfile.ZipFile(wheel) as archive,
        zipfile.ZipFile(io.BytesIO(archive.read(f"sklego/data/{name}.zip"))) as data,
    ):
        frame = pd.read_csv(data.open(data.namelist()[0]))
    frame = frame[[column for column in frame if not column.startswith("Unnamed")]]
    if name == "abalone":
        return frame.assign(**{LABEL: np.where(frame["rings"] > 9, "old", "young")}).drop(columns="rings")
    return frame.rename(columns={"arrests": {"released": LABEL}, "penguins": {"species": LABEL}}[name])


def splits_of(name: str, count: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Train and test part of each split: 80 and 20 %, stratified, seeds from 0."""
    if name == ADULT:
        yield _adult()
        return
    frame = public_table(name)
    for seed in range(count):
        splitter = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=seed)
        yield _parts(frame, *next(splitter.split(frame, frame[LABEL])))


def folds_of(name: str, fewest: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Train and test part of each of five stratified folds, drawn anew until the test parts have `fewest` rows in all.

    Each row of the table is in equally many test parts, so that what a quantile of the others says of it is measured
    with less noise than by as many rows of splits that are drawn independently.
    """
    if name == ADULT:
        yield _adult()
        return
    frame = public_table(name)
    for seed in range(math.ceil(fewest / len(frame))):
        for rows in StratifiedKFold(5, shuffle=True, random_state=seed).split(frame, frame[LABEL]):
            yield _parts(frame, *rows)


def _adult() -> tuple[pd.DataFrame, pd.DataFrame]:
    train, test = _test_data("adult_train"), _test_data("adult_test")
    return train, test.assign(**{LABEL: test[LABEL].str.rstrip(".")})


def _parts(frame: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    return frame.iloc[train].reset_index(drop=True), frame.iloc[test].reset_index(drop=True)


def ours(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Probabilities of each label for the test part, rows in its order, as the Trainer would make them."""
    classifier, _, asked = trained(train, test, labels)
    return classifier.predict(asked)


def trained(
    train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str], options: TabularTrainerOptions = AUTO
) -> tuple[Classifier, TransformedSplit, TransformedSplit]:
    """The classifier that the Trainer would make, what it learns from and what it is asked, rows in their order."""
    with tempfile.TemporaryDirectory() as folder:
        preprocessing = _preprocessing(train, labels, f"{folder}/train.parquet")
        files = {part: _write(f"{folder}/{part}.gz", rows) for part, rows in (("train", train), ("test", test))}
        tf.compat.v1.reset_default_graph()
        custom_config = {"preprocessing": preprocessing.model_dump_json()}
        output = transform_graph(preprocessing_fn, custom_config, _feature_spec(train), files["train"], folder)
        graph = TransformGraph(output)
        learned, asked = (read_transformed_split([files[part]], graph, model_inputs) for part in ("train", "test"))
        sizes = feature_sizes(known_terms(output, learned.features), preprocessing)
        categories = known_categories(output, learned.features)
        table = Table(learned, len(labels), len(categories), sizes, options)
        return (train_members(table) if options.has_members else _keras_alone(table)), learned, asked


def _preprocessing(train: pd.DataFrame, labels: Sequence[str], path: str) -> TabularOptions:
    """What `ingraph run` takes the columns for, where the config says nothing of them."""
    train.to_parquet(path, index=False)
    config = TabularRunConfig.model_validate({
        "name": "quality", "task": "tabular", "data": {"path": path},
        "preprocessing": {"label": {"column": LABEL, "order": labels}}, "evaluation": {"at_least": {"accuracy": 0}},
    })  # fmt: skip
    chosen = config.with_kinds(table_data(config, path).kinds).preprocessing
    assert isinstance(chosen, TabularOptions)
    return chosen


def _keras_alone(table: Table) -> Classifier:
    keras.utils.set_random_seed(table.options.seed)
    units = table.options.model_copy(update={"hidden_units": table.options.keras_units})
    model = build_model(table.split.features, table.vocabulary_size, table.classes, units, table.sizes)
    fit(model, table.split, table.options)
    return keras_classifier(model)


@dataclass(frozen=True)
class Coverage:
    """Of the label sets of rows that neither the model nor the threshold has seen."""

    covered: int
    rows: int
    answered: int
    right: int

    def __str__(self) -> str:
        share, answered = self.covered / self.rows, self.answered / self.rows
        return (
            f"{share:.4f} of {self.rows} rows, {answered:.4f} answered, {self.right / self.answered:.4f} of them right"
        )


def measured_coverage(name: str, asked_for: float, options: TabularTrainerOptions) -> Coverage:
    """What `serving.unknown.coverage` comes to on rows that are held out of a table, 1,000 at least, see folds_of.

    The threshold is set as the Trainer does it: out of folds, else on every second row of the test part, which is not
    measured then.
    """
    found = []
    for train, test in folds_of(name, _FEWEST_ANSWERS):
        labels = sorted(train[LABEL].unique())
        classifier, learned, asked = trained(train, test, labels, options)
        probabilities, truth = classifier.predict(asked), asked.labels
        if classifier.out_of_fold is not None:
            rows, out_of_fold = classifier.out_of_fold
            told, source = (out_of_fold, learned.labels[rows]), OUT_OF_FOLD
        else:
            order = np.random.default_rng(0).permutation(len(truth))
            told, source = (probabilities[order[::2]], truth[order[::2]]), HALF_OF_EVAL
            probabilities, truth = probabilities[order[1::2]], truth[order[1::2]]
        rule = rule_of_coverage("unknown", asked_for, told[0][np.arange(len(told[1])), told[1]], source)
        chosen = probabilities.argmax(axis=1)
        sets = rule.label_sets(tf.constant(probabilities, tf.float32)).numpy()
        answered = ~rule.replaces(tf.constant(probabilities, tf.float32), tf.constant(chosen)).numpy()
        right = answered & (chosen == truth)
        found.append((sets[np.arange(len(truth)), truth].sum(), len(truth), answered.sum(), right.sum()))
    return Coverage(*np.sum(found, axis=0).tolist())


def report_coverage(tables: Sequence[str], asked_for: float, options: TabularTrainerOptions) -> None:
    """Print each table as it is measured, and the mean over tables."""
    shares = []
    for name in tables:
        started = time.perf_counter()
        found = measured_coverage(name, asked_for, options)
        shares.append(found.covered / found.rows)
        print(f"{name}: coverage of {asked_for:g} is {found}; {time.perf_counter() - started:.1f} s", flush=True)
    rows = [Measurement("mean over tables: coverage", float(np.mean(shares)) * 100, "%", "quality")]
    report(f"Tables: coverage of {asked_for:g} by {options.model}", rows)


def _feature_spec(frame: pd.DataFrame) -> dict[str, tf.io.VarLenFeature]:
    types = {"i": tf.int64, "f": tf.float32, "O": tf.string}
    return {name: tf.io.VarLenFeature(types[dtype.kind]) for name, dtype in frame.dtypes.items()}


def _write(path: str, frame: pd.DataFrame) -> str:
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for row in frame.to_dict("records"):
            example = tf.train.Example()
            for name, value in row.items():
                if pd.isna(value):
                    continue
                feature = example.features.feature[name]
                if isinstance(value, str):
                    feature.bytes_list.value.append(value.encode())
                elif frame[name].dtype.kind == "i":
                    feature.int64_list.value.append(value)
                else:
                    feature.float_list.value.append(value)
            writer.write(example.SerializeToString(deterministic=True))
    return path


def theirs(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Library -> probabilities, each by its defaults, with what its documentation says of categories."""
    truth = train[LABEL].map(list(labels).index)
    seen, asked = (frame.drop(columns=LABEL) for frame in (train, test))
    texts = [name for name in seen if seen[name].dtype.kind == "O"]
    numbers = [name for name in seen if name not in texts]
    seen, asked = (frame.fillna(dict.fromkeys(texts, "")) for frame in (seen, asked))
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    one_hot = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), texts), (scaled, numbers))
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    codes = make_column_transformer((encoder, texts), ("passthrough", numbers))
    histogram = HistGradientBoostingClassifier(random_state=0, categorical_features=[*range(len(texts))] or None)
    found = {
        name: make_pipeline(columns, model).fit(seen, truth).predict_proba(asked)
        for name, columns, model in (
            ("logistic regression", one_hot, LogisticRegression(max_iter=1000)),
            ("random forest", one_hot, RandomForestClassifier(random_state=0)),
            ("HistGradientBoosting", codes, histogram),
        )
    }
    categorical = {name: pd.CategoricalDtype(sorted(seen[name].unique())) for name in texts}
    booster = lightgbm.LGBMClassifier(verbose=-1, random_state=0, n_jobs=1)
    found["LightGBM"] = booster.fit(seen.astype(categorical), truth).predict_proba(asked.astype(categorical))
    learner = ydf.GradientBoostedTreesLearner(label=LABEL, num_threads=1)
    answers = learner.train(seen.assign(**{LABEL: truth.astype(str).str.zfill(4)})).predict(asked)
    found["YDF"] = np.stack([1 - answers, answers], axis=1) if answers.ndim == 1 else answers
    return found


@dataclass(frozen=True)
class Figures:
    """Of a model on a test part."""

    auc: float
    cross_entropy: float
    ece: float

    @classmethod
    def of(cls, probabilities: np.ndarray, truth: np.ndarray) -> Figures:
        columns = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
        areas = [roc_auc_score(truth == column, probabilities[:, column]) for column in columns]
        return cls(
            float(np.mean(areas)),
            float(cross_entropies(probabilities, truth).mean()),
            expected_calibration_error(probabilities, truth),
        )


def mean_figures(name: str, splits: int) -> tuple[dict[str, Figures], float]:
    """Model -> the means over the splits of a table; and the seconds that ours took for one, preprocessing included."""
    of_splits: dict[str, list[Figures]] = {}
    seconds = []
    for train, test in splits_of(name, splits):
        labels = sorted(train[LABEL].unique())
        truth = test[LABEL].map(labels.index).to_numpy()
        started = time.perf_counter()
        answers = {OURS: ours(train, test, labels)}
        seconds.append(time.perf_counter() - started)
        for model, probabilities in (answers | theirs(train, test, labels)).items():
            of_splits.setdefault(model, []).append(Figures.of(probabilities, truth))
    means = {
        model: Figures(*np.mean([(one.auc, one.cross_entropy, one.ece) for one in found], axis=0).tolist())
        for model, found in of_splits.items()
    }
    return means, float(np.mean(seconds))


def measurements(found: Mapping[str, tuple[Mapping[str, Figures], float]]) -> list[Measurement]:
    """Ours beside the best of the others for each table, and in the mean."""
    rows: list[Measurement] = []
    distances, losses, best_losses = [], [], []
    for name, (figures, seconds) in found.items():
        mine, others = figures[OURS], {model: one for model, one in figures.items() if model != OURS}
        best = max(others, key=lambda model: others[model].auc)
        surest = min(others, key=lambda model: others[model].cross_entropy)
        distances.append(mine.auc - others[best].auc)
        losses.append(mine.cross_entropy)
        best_losses.append(others[surest].cross_entropy)
        loss_goal = Goal(0.275, of="value") if name == ADULT else None
        area_goal = Goal(0.930, of="value") if name == ADULT else Goal(round(1 - 0.01 / others[best].auc, 4))
        area, loss = mine.auc / others[best].auc, mine.cross_entropy / others[surest].cross_entropy
        rows.append(Measurement(f"{name}: AUC", mine.auc, "AUC", "quality", area, best, area_goal))
        rows.append(
            Measurement(f"{name}: cross entropy", mine.cross_entropy, "nats", "memory", loss, surest, loss_goal)
        )
        rows.append(Measurement(f"{name}: calibration error", mine.ece, "ECE", "memory", goal=_ece_goal(name)))
        rows.append(Measurement(f"{name}: preprocessing and training", seconds, "s", "time"))
    gain = float(np.mean(distances))
    rows.append(Measurement("mean over tables: AUC above the best", gain, "AUC", "quality", goal=Goal(-0.002, "value")))
    loss = float(np.sum(losses) / np.sum(best_losses))
    mean = float(np.mean(losses))
    rows.append(
        Measurement("mean over tables: cross entropy", mean, "nats", "memory", loss, "the best of each", Goal(1.01))
    )
    return rows


def _ece_goal(name: str) -> Goal | None:
    return Goal(0.02, of="value") if name == ADULT else None


def main() -> None:
    """Print each table as it is measured, and the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tables", nargs="+", default=[*TABLES, ADULT], choices=[*TABLES, ADULT])
    parser.add_argument("--coverage", type=float, help="measure only what serving.unknown.coverage comes to")
    parser.add_argument("--model", choices=get_args(ModelKind), default="auto", help="for --coverage")
    arguments = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)
    ydf.verbose(0)
    apply_beam_speedups()
    if arguments.coverage is not None:
        options = TabularTrainerOptions(model=arguments.model)
        report_coverage(arguments.tables, arguments.coverage, options)
        return
    found: dict[str, Any] = {}
    for name in arguments.tables:
        if name in (ADULT, "german", "phoneme", "wine-white") and TEST_DATA not in os.environ:
            print(f"{name}: left out, {TEST_DATA} is not set")
            continue
        found[name] = mean_figures(name, arguments.splits)
        figures, seconds = found[name]
        shown = ", ".join(f"{model} {one.auc:.4f} {one.cross_entropy:.4f}" for model, one in figures.items())
        print(f"{name}: AUC and cross entropy: {shown}; ECE {figures[OURS].ece:.4f}; {seconds:.1f} s", flush=True)
    report("Tables: quality", measurements(found))


if __name__ == "__main__":
    main()
