"""Time and memory of texts by their number: reading, Transform and training of 10,000 and of 100,000.

    .venv/bin/python -m benchmarks.text.scale [--documents 10000 100000]

Documents are made of the film reviews' own words: each keeps a review's first half and takes another's second half, of
the same label, so that the number of different terms grows as it does with real ones. Every size runs in a process of
its own, with the options of configs/reviews.yaml.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness.pipelines import Scale, growth
from benchmarks.harness.running import own_process, peak_memory, report

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


CONFIG = Path(__file__).resolve().parents[2] / "configs/reviews.yaml"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000])
    found = [own_process(measure, documents) for documents in parser.parse_args().documents]
    report("texts by their number", growth("texts", found))


def measure(documents: int) -> Scale:
    """Make the documents up, and read, analyse and train on them."""
    from benchmarks.harness.pipelines import transform_graph
    from benchmarks.text.quality import SPEC
    from pipeline.config import load_config
    from pipeline.runners.beam_speedups import apply_beam_speedups
    from trainers.splits import TransformGraph
    from trainers.text.options import NgramOptions
    from trainers.text.train import fit_classifier, read_training_split
    from transform.text import preprocessing_fn

    apply_beam_speedups()
    config = load_config(str(CONFIG))
    trainer = config.trainer
    assert isinstance(trainer, NgramOptions)
    options = {"preprocessing": config.preprocessing.model_dump_json()}
    steps = {}
    with tempfile.TemporaryDirectory() as folder:
        write_documents(f"{folder}/documents.csv", documents)
        examples, steps["reading"] = timed(lambda: read_examples(folder))
        graph, steps["Transform"] = timed(lambda: transform_graph(preprocessing_fn, options, SPEC, examples, folder))
        transform = TransformGraph(graph)

        def training() -> None:
            fit_classifier(read_training_split([examples], transform, trainer), graph, 2, trainer)

        _, steps["training"] = timed(training)
    return Scale(documents, steps, peak_memory())


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return step(), time.perf_counter() - started


def write_documents(path: str, documents: int) -> None:
    from pipeline import demo_data

    with demo_data.fetch("reviews").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    of_label = {label: [row["text"].split() for row in rows if row["label"] == label] for label in ("fresh", "rotten")}
    source = random.Random(0)
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(documents):
            label = ("fresh", "rotten")[number % 2]
            first, second = source.choice(of_label[label]), source.choice(of_label[label])
            writer.writerow([" ".join([*first[: len(first) // 2], *second[len(second) // 2 :]]), label])


def read_examples(folder: str) -> str:
    """The examples of `documents.csv`, as TableExampleGen makes them; the path of their file."""
    import tensorflow as tf

    from components.table_example_gen.executor import split_records
    from components.table_example_gen.facts import merged_facts, shard_facts
    from components.table_example_gen.options import Ingestion, TableReading
    from components.table_example_gen.sources import plan_inputs

    ingestion = Ingestion(reading=TableReading(as_text=True, strip=False))
    shards = plan_inputs({"all": f"{folder}/documents.csv"}, ingestion)
    facts = merged_facts(shard_facts(shard, ingestion) for shard in shards)
    path = f"{folder}/examples.gz"
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for shard in shards:
            for _, records in split_records(shard, facts, ingestion):
                for record in records:
                    writer.write(record)
    return path


if __name__ == "__main__":
    main()
