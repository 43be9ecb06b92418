"""ROC AUC on the hearts data, ingraph beside scikit-learn's logistic regression, on the same splits.

    .venv/bin/python -m benchmarks.tabular.quality [--splits 5]

Uses the project's own preprocessing_fn, model and training with the options of configs/heart.yaml.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.harness.pipelines import quality_by_split, transform_graph
from benchmarks.harness.running import report
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.options import RunConfig
from pipeline.runners.beam_speedups import apply_beam_speedups
from trainers.splits import TransformedSplit, TransformGraph, read_transformed_split
from trainers.tabular.models import build_model
from trainers.tabular.options import TabularTrainerOptions
from trainers.tabular.train import fit
from transform.options import TabularOptions
from transform.tabular import CATEGORY_VOCABULARY, preprocessing_fn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


CONFIG = Path(__file__).resolve().parents[2] / "configs/heart.yaml"
Rows = list[dict[str, str]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5)
    splits = range(parser.parse_args().splits)
    apply_beam_speedups()
    config = load_config(str(CONFIG))
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    truth = np.array([row["target"] == "1" for row in rows])
    ours, theirs = [], []
    for seed in splits:
        train, test = next(StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=seed).split(truth, truth))
        chosen = [rows[index] for index in train], [rows[index] for index in test]
        ours.append(ingraph_auc(config, *chosen))
        theirs.append(scikit_learn_auc(config, *chosen))
    report("hearts: quality", quality_by_split("AUC", ours, theirs, allowed=0.01))


def ingraph_auc(config: RunConfig, train: Rows, test: Rows) -> float:
    """AUC of the class "disease" on `test`, preprocessing analysed and model trained on `train`."""
    assert isinstance(config.trainer, TabularTrainerOptions)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: write_examples(f"{folder}/{name}.gz", rows) for name, rows in (("train", train), ("test", test))}
        options = {"preprocessing": config.preprocessing.model_dump_json()}
        graph = transform_graph(preprocessing_fn, options, feature_spec(), files["train"], folder)
        split = read_transformed_split([files["train"]], TransformGraph(graph))
        keras.utils.set_random_seed(config.trainer.seed)
        vocabulary = graph.vocabulary_size_by_name(CATEGORY_VOCABULARY)
        model = build_model(split.features, vocabulary, classes=2, options=config.trainer)
        fit(model, split, config.trainer)
        held_out = read_transformed_split([files["test"]], TransformGraph(graph))
        labels = [label.decode() for label in graph.vocabulary_by_name("labels")]
        return auc(model, held_out, labels.index("disease"))


def auc(model: keras.Model, split: TransformedSplit, positive: int) -> float:
    return float(roc_auc_score(split.labels == positive, model.predict(split.features, verbose=0)[:, positive]))


def feature_spec() -> dict[str, tf.io.VarLenFeature]:
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    types = {"oldpeak": tf.float32, "thal": tf.string}
    return {name: tf.io.VarLenFeature(types.get(name, tf.int64)) for name in header}


def write_examples(path: str, rows: Rows) -> str:
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for row in rows:
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if name == "thal":
                    feature.bytes_list.value.append(value.encode())
                elif name == "oldpeak":
                    feature.float_list.value.append(float(value))
                else:
                    feature.int64_list.value.append(int(value))
            writer.write(example.SerializeToString())
    return path


def scikit_learn_auc(config: RunConfig, train: Rows, test: Rows) -> float:
    """AUC of a logistic regression on one-hot categories and standardised numbers."""
    assert isinstance(config.preprocessing, TabularOptions)
    names = [name for name in train[0] if name != "target"]
    categories = [index for index, name in enumerate(names) if name in config.preprocessing.columns]
    numbers = [index for index, name in enumerate(names) if name not in config.preprocessing.columns]
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), categories), (StandardScaler(), numbers)),
        LogisticRegression(max_iter=1000),
    )
    model.fit(_table(train, names), [row["target"] for row in train])
    truth = [row["target"] == "1" for row in test]
    return float(roc_auc_score(truth, model.predict_proba(_table(test, names))[:, 1]))


def _table(rows: Rows, names: list[str]) -> np.ndarray:
    return np.array([[row[name] for name in names] for row in rows], dtype=object)


if __name__ == "__main__":
    main()
