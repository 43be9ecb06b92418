"""Time and memory of tables, texts and photos by their number.

    .venv/bin/python -m benchmarks.scale rows [10000 100000 1000000]
    .venv/bin/python -m benchmarks.scale runs [100000 500000] [--processes 2]
    .venv/bin/python -m benchmarks.scale trees [100000 1000000]
    .venv/bin/python -m benchmarks.scale scores [100000 1000000]
    .venv/bin/python -m benchmarks.scale texts [10000 100000] [--processes 2]
    .venv/bin/python -m benchmarks.scale photos [500 5000]

Every size runs in a process of its own, and Beam in it, or in several of its own.

- Rows of twelve columns are made up, the same ones each time, and go through what `ingraph run` does up to Transform:
  its components, its runner and its Beam options.
- Whole runs go from 26 numbers and 3 categories to a published model, within `trainer.memory` of 128 MiB, with few
  trees and epochs; what each step takes of time and memory is printed beside.
- Trees are boosted of the same columns in memory, as `trainer.model: trees` does by its defaults.
- Scores are what `ingraph score` writes about such rows of twelve columns, from CSV and from Parquet, beside what the
  model alone takes; it learned from 20,000 by its defaults.
- Texts of 300 characters or a little more are made of the film reviews' own words: of halves of reviews of the same
  label, so that the number of different terms grows as it does with real ones. Whole runs go from them to a published
  model, within `trainer.memory` of 1 GiB and with two epochs; what each step takes is printed beside.
- Photos have 100 KB, and go as far as rows do. A hundred of them show about what the libraries alone take.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from benchmarks.harness.pipelines import Scale, first_steps, growth, steps_until
from benchmarks.harness.results import Goal
from benchmarks.harness.running import forget_peak_memory, own_process, peak_memory, report

if TYPE_CHECKING:
    from pipeline.scoring.inputs import PublishedModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass(frozen=True)
class Kind:
    """What is made more of.

    Attributes:
        measure: makes that many up and runs on them; whole runs take the number of Beam's `processes`.
        sizes: by default.
        title: of the table.
        goals: of the time of an item and of the memory at the last size.
        fewest: a size before all others, to compare them with.
    """

    measure: Callable[..., Scale]
    sizes: Sequence[int]
    title: str
    goals: Sequence[Goal | None] = ()
    fewest: Sequence[int] = ()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--processes", type=int, default=1, help="of Beam, in whole runs")
    given = parser.parse_args()
    kind = KINDS[given.kind]
    measure = kind.measure if given.processes == 1 else partial(kind.measure, processes=given.processes)
    found = [own_process(measure, size) for size in (*kind.fewest, *(given.sizes or kind.sizes))]
    report(kind.title, growth(given.kind, found, *kind.goals))


ROWS_CONFIG = """
name: rows
task: tabular
data: {path: rows.csv}
preprocessing: {label: {column: bought}}
evaluation: {at_least: {auc: 0.5}}
"""
CITIES, PLANS, CHANNELS = 200, 4, 6
MEMORY_LIMIT = 4096
ROWS_AT_ONCE = 100_000


def measure_rows(rows: int) -> Scale:
    """Make the rows up, and run the pipeline on them."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "rows.csv"), rows)
        Path(folder, "rows.yaml").write_text(ROWS_CONFIG, encoding="utf-8")
        steps = first_steps(f"{folder}/rows.yaml")
    return Scale(rows, steps, peak_memory())


def write_rows(path: Path, rows: int) -> None:
    """A CSV file of made-up customers."""
    chance = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("age,income,visits,balance,score,height,month,city,plan,device,channel,bought\n")
        for start in range(0, rows, ROWS_AT_ONCE):
            file.writelines(f"{row}\n" for row in customers(chance, min(ROWS_AT_ONCE, rows - start)))


def customers(chance: np.random.Generator, count: int) -> list[str]:
    """Lines of the file; who buys depends on income and visits, and on chance."""
    income, visits = chance.lognormal(3, 0.5, count).round(2), chance.poisson(4, count)
    bought = (income / 20 + visits / 4 + chance.normal(0, 1, count) > 2.5).astype(int)
    columns = [
        chance.integers(18, 90, count),
        income,
        visits,
        chance.normal(0, 100, count).round(2),
        chance.random(count).round(4),
        chance.normal(170, 10, count).round(1),
        chance.integers(1, 13, count),
        np.char.add("city", chance.integers(0, CITIES, count).astype(str)),
        np.char.add("plan", chance.integers(0, PLANS, count).astype(str)),
        chance.choice(["phone", "tablet", "computer"], count),
        np.char.add("channel", chance.integers(0, CHANNELS, count).astype(str)),
        bought,
    ]
    return [",".join(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]


RUNS_CONFIG = """
name: runs
task: tabular
data: {path: rows.csv}
preprocessing: {label: {column: bought}}
trainer: {memory: 128MiB, epochs: 4, trees: {count: 60}}
evaluation: {at_least: {auc: 0.7}}
"""
NUMBERS, CATEGORIES, VALUES = 26, 3, 50


def measure_runs(rows: int, processes: int = 1) -> Scale:
    """Make wide rows up, and run all steps on them."""
    with tempfile.TemporaryDirectory() as folder:
        write_wide_rows(Path(folder, "rows.csv"), rows)
        return _whole_run(rows, RUNS_CONFIG, folder, processes)


def _whole_run(items: int, config: str, folder: str, processes: int) -> Scale:
    """All steps on what is in the folder, each printed with what it took."""
    if processes > 1:
        config += f"beam: {{options: {{direct_running_mode: multi_processing, direct_num_workers: {processes}}}}}\n"
    Path(folder, "run.yaml").write_text(config, encoding="utf-8")
    steps = steps_until("ServingPusher", f"{folder}/run.yaml")
    for step, (seconds, peak) in steps.items():
        print(f"{items:>12,}  {step:<22} {seconds:8.1f} s  {peak:8,.0f} MiB", flush=True)
    return Scale(
        items, {step: seconds for step, (seconds, _) in steps.items()}, max(peak for _, peak in steps.values())
    )


def write_wide_rows(path: Path, rows: int) -> None:
    """A CSV file of numbers and categories; the label follows from products of some of them, and from chance."""
    chance = np.random.default_rng(0)
    effects = chance.normal(0, 1, VALUES)
    names = [f"n{place}" for place in range(NUMBERS)] + [f"c{place}" for place in range(CATEGORIES)] + ["bought"]
    with path.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        for start in range(0, rows, ROWS_AT_ONCE):
            numbers, categories, bought = wide_rows(chance, effects, min(ROWS_AT_ONCE, rows - start))
            columns = [*numbers.T, *(np.char.add("v", part.astype(str)) for part in categories.T), bought]
            table = pa.table([pa.array(column) for column in columns], names=names)
            pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, quoting_style="none"))


def wide_rows(
    chance: np.random.Generator, effects: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, float64 [count, NUMBERS], categories, int64 [count, CATEGORIES], and labels, int64 [count]."""
    numbers = chance.normal(0, 1, [count, NUMBERS]).round(5)
    categories = chance.integers(0, VALUES, [count, CATEGORIES])
    logits = numbers[:, :6] @ np.linspace(-0.6, 0.6, 6) + numbers[:, 6] * numbers[:, 7]
    logits += np.sin(2 * numbers[:, 8]) + effects[categories].sum(axis=1) / 2
    return numbers, categories, (logits + chance.logistic(0, 1, count) > 0).astype(np.int64)


def measure_trees(rows: int) -> Scale:
    """Make wide rows up in memory, and boost trees on them."""
    from trainers.splits import TransformedSplit
    from trainers.tabular.members import Table, train_members
    from trainers.tabular.options import TabularTrainerOptions
    from transform.tabular import CATEGORIES as CATEGORY_NUMBERS
    from transform.tabular import NUMBERS as NUMBER_VALUES

    chance = np.random.default_rng(0)
    numbers, categories, labels = wide_rows(chance, chance.normal(0, 1, VALUES), rows)
    features = {
        NUMBER_VALUES: numbers.astype(np.float32),
        CATEGORY_NUMBERS: categories + np.arange(CATEGORIES) * VALUES,  # one vocabulary for all columns
    }
    split = TransformedSplit([], features, labels, left_out=0, fingerprint="")
    options = TabularTrainerOptions(model="trees")
    trained, seconds = timed(lambda: train_members(Table(split, 2, CATEGORIES * VALUES, {}, options)))
    (figures,) = trained.report["members"].values()
    print(f"{rows:>12,} rows  cross entropy {figures['cross_entropy'][0]:.4f}  {figures['chosen']}", flush=True)
    return Scale(rows, {"training": seconds}, peak_memory())


_LEARNED_FROM = 20_000


def measure_scores(rows: int) -> Scale:
    """Publish a model in another process, make the rows up, and score them."""
    from pipeline.runners.beam_engine import BeamOptions
    from pipeline.scoring.inputs import find_model
    from pipeline.scoring.pipeline import score

    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder, "rows.csv"), _LEARNED_FROM)
        Path(folder, "rows.yaml").write_text(ROWS_CONFIG, encoding="utf-8")
        own_process(steps_until, "ServingPusher", f"{folder}/rows.yaml")
        asked = Path(folder, "asked.csv")
        write_rows(asked, rows)
        batches = pa_csv.open_csv(asked)
        with pa_parquet.ParquetWriter(f"{folder}/asked.parquet", batches.schema) as file:
            for batch in batches:
                file.write_batch(batch)
        model = find_model(f"{folder}/models")
        steps = {"the model alone": own_process(_model_alone, model, str(asked))}
        forget_peak_memory()
        for read, written in ((".csv", ".parquet"), (".parquet", ".csv")):
            asked_for = [f"{folder}/asked{read}"], f"{folder}/scores{written}"
            found, steps[f"{read} to {written}"] = timed(partial(score, model, *asked_for, BeamOptions()))
            if (found.scored, found.bad) != (rows, 0):
                raise RuntimeError(f"of {rows:,} rows {found.scored:,} were scored: {found.first_bad}")
    return Scale(rows, steps, peak_memory())


def _model_alone(model: PublishedModel, file: str) -> float:
    """Seconds of its session, a batch of the rows of a file after the other."""
    from pipeline.scoring.inputs import Columns, Source, read_items
    from pipeline.scoring.pipeline import model_inputs
    from serving.session_model import SessionModel

    session, seconds = SessionModel(model.path), 0.0
    for batch in read_items(Source((file,), Columns({name: name for name in model.inputs}), "rows")):
        arrays, _ = model_inputs(batch, model.inputs)
        seconds += timed(partial(session.run, model.signature, arrays, model.outputs))[1]
    return seconds


TEXTS_CONFIG = """
name: texts
task: text
data: {path: documents.csv}
preprocessing: {label: {column: label}, column: text}
trainer: {memory: 1GiB, epochs: 2}
evaluation: {at_least: {auc: 0.7}}
"""
TEXT_LENGTH = 300


def measure_texts(documents: int, processes: int = 1) -> Scale:
    """Make the documents up, and run all steps on them."""
    with tempfile.TemporaryDirectory() as folder:
        write_documents(Path(folder, "documents.csv"), documents)
        return _whole_run(documents, TEXTS_CONFIG, folder, processes)


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return step(), time.perf_counter() - started


def write_documents(path: Path, documents: int) -> None:
    """A CSV file of texts that are fresh and rotten by turns."""
    from pipeline import demo_data

    halves: dict[str, list[str]] = {"fresh": [], "rotten": []}
    with demo_data.fetch("reviews").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            words = row["text"].split()
            middle = len(words) // 2
            halves[row["label"]] += [" ".join(half) for half in (words[:middle], words[middle:]) if half]
    source = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(documents):
            label = ("fresh", "rotten")[number % 2]
            text = source.choice(halves[label])
            while len(text) < TEXT_LENGTH:
                text += " " + source.choice(halves[label])
            writer.writerow([text, label])


PHOTOS_CONFIG = """
name: photos
task: image
data: {path: photos, minimum_examples: 5}
trainer: {mode: fine_tune, weights: none}
evaluation: {at_least: {accuracy: 0.5}}
"""
FEWEST = 100
IMAGE_SIZE = 100_000
# What the allocator keeps differs by some MiB from run to run.
FLAT = Goal(1.05)


def measure_photos(photos: int) -> Scale:
    """Make the photos up and ingest them."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "photos", photos)
        Path(folder, "photos.yaml").write_text(PHOTOS_CONFIG, encoding="utf-8")
        steps = first_steps(f"{folder}/photos.yaml")
    return Scale(photos, steps, peak_memory())


def write_images(folder: Path, count: int) -> None:
    """PNG headers and noise: only the header is read when photos are ingested."""
    header = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000040000000400802000000")
    for number in range(count):
        file = folder / f"class{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + os.urandom(IMAGE_SIZE - len(header)))


KINDS: Mapping[str, Kind] = {
    "rows": Kind(
        measure_rows,
        (10_000, 100_000, 1_000_000),
        "tables by their rows",
        goals=(Goal(1.1), Goal(MEMORY_LIMIT, of="value")),
    ),
    "runs": Kind(
        measure_runs, (100_000, 500_000), "whole runs by their rows", goals=(Goal(1.15), Goal(MEMORY_LIMIT, of="value"))
    ),
    "trees": Kind(measure_trees, (100_000, 1_000_000), "boosted trees by the rows that they learn from"),
    "scores": Kind(
        measure_scores, (100_000, 1_000_000), "batch scoring by the number of rows", goals=(Goal(1.15), FLAT)
    ),
    "texts": Kind(measure_texts, (10_000, 100_000), "texts by their number"),
    "photos": Kind(measure_photos, (500, 5000), "photos by their number", goals=(None, FLAT), fewest=(FEWEST,)),
}

if __name__ == "__main__":
    main()
