"""Accuracy and ROC AUC on the film reviews, ingraph beside scikit-learn, on the same splits.

    .venv/bin/python -m benchmarks.text.quality [--splits 5] [--data FILE.csv.gz] [--train N] [--test N]
        [--set KEY=VALUE]

Uses the project's own preprocessing_fn, model and training with the options of configs/reviews.yaml; scikit-learn's
side is a logistic regression on tf-idf of words and pairs of words. `--data` takes another CSV file with the columns
text and label, of two classes; `--train` and `--test` take so many texts of each split, by default four fifths and the
rest; `--set` changes the config as `ingraph run` does: `--set trainer.encoder=FOLDER` for `model: auto`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline

from benchmarks.harness.pipelines import quality_by_split, transform_graph
from benchmarks.harness.running import report
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.options import RunConfig
from pipeline.runners.beam_speedups import apply_beam_speedups
from pipeline.tasks import TextRunConfig
from serving.signatures.common import VOCABULARY
from trainers.artifacts import predict_split
from trainers.splits import TransformGraph, read_transformed_split
from trainers.text.models import pretrained_of
from trainers.text.train import best_candidate, fit_classifier, read_training_split
from transform.text import preprocessing_fn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


SPEC = {name: tf.io.VarLenFeature(tf.string) for name in ("text", "label")}
CONFIG = Path(__file__).resolve().parents[2] / "configs/reviews.yaml"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a CSV file, may be gzipped; the reviews where it is not given")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--train", type=int, help="texts to learn from; four fifths where it is not given")
    parser.add_argument("--test", type=int, help="texts to be told; the others where it is not given")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the config")
    options = parser.parse_args()
    apply_beam_speedups()
    texts, labels = read_texts(options.data or demo_data.fetch("reviews"))
    config = load_config(str(CONFIG), options.set)
    ours, theirs = [], []
    for seed in range(options.splits):
        train, test = split_of(labels, options.train, options.test, seed)
        split = texts[train], labels[train], texts[test]
        ours.append(accuracy_and_auc(labels[test], ingraph_probabilities(config, *split)))
        theirs.append(accuracy_and_auc(labels[test], scikit_learn_probabilities(*split)))
    found = [
        measurement
        for index, unit in enumerate(("accuracy", "AUC"))
        for measurement in quality_by_split(unit, [each[index] for each in ours], [each[index] for each in theirs])
    ]
    report("texts: quality", found)


def split_of(labels: np.ndarray, train: int | None, test: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to learn from and those to be told, a like share of each label in both."""
    test_size = test if test is not None else 0.2 if train is None else None
    splitter = StratifiedShuffleSplit(n_splits=1, train_size=train, test_size=test_size, random_state=seed)
    rows: tuple[np.ndarray, np.ndarray] = next(splitter.split(labels, labels))
    return rows


def read_texts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The texts, and whether each has the last of the labels in lexicographic order."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    positive = max(row["label"] for row in rows)
    return np.array([row["text"] for row in rows], object), np.array([row["label"] == positive for row in rows])


def accuracy_and_auc(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    return float(accuracy_score(truth, probabilities > 0.5)), float(roc_auc_score(truth, probabilities))


def ingraph_probabilities(config: RunConfig, texts: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Of the positive class, for each text of `test`; preprocessing analysed and model trained on the others."""
    assert isinstance(config, TextRunConfig)
    trainer = config.trainer
    options = {"preprocessing": config.preprocessing.model_dump_json()}
    with tempfile.TemporaryDirectory() as folder:
        train_file = write_examples(f"{folder}/train.gz", texts, labels)
        test_file = write_examples(f"{folder}/test.gz", test, np.zeros(len(test), bool))
        graph = transform_graph(preprocessing_fn, options, SPEC, train_file, folder)
        labels_of_graph = [label.decode() for label in graph.vocabulary_by_name(VOCABULARY)]
        transform = TransformGraph(graph)
        if trainer.model == "auto":
            trainer, tried = best_candidate(trainer, [train_file], f"{folder}/graph")
            print(json.dumps(tried), flush=True)
        pretrained = pretrained_of(trainer)
        training_split = read_training_split([train_file], transform, trainer, pretrained)
        classifier = fit_classifier(training_split, graph, len(labels_of_graph), trainer, pretrained)
        held_out = read_transformed_split([test_file], transform, classifier.inputs)
    return predict_split(classifier.model, held_out, labels_of_graph, classifier.chunk).probabilities[:, 1]


def write_examples(path: str, texts: np.ndarray, labels: np.ndarray) -> str:
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for text, label in zip(texts, labels, strict=True):
            example = tf.train.Example()
            example.features.feature["text"].bytes_list.value.append(text.encode())
            example.features.feature["label"].bytes_list.value.append(b"1" if label else b"0")
            writer.write(example.SerializeToString())
    return path


def scikit_learn_probabilities(texts: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    return model.fit(texts, labels).predict_proba(test)[:, 1]


if __name__ == "__main__":
    main()
