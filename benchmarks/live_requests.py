"""Logged requests at scale: 100,000 of heart replayed, and a million answers joined with a million late labels.

    python -m benchmarks.live_requests [replay|truth]

Each part runs in a process of its own; what it takes is printed as JSON. The logs are written once, from answers of a
model that `ingraph run configs/heart.yaml` has published into a temporary folder.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.evaluator.options import ReplayOptions
from components.replay_gate.replay import beyond, replay_requests
from components.request_logs import find_logs
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.scoring.truth import join_truth
from serving.client.tensors import to_proto
from serving.session_model import SessionModel

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = str(PROJECT / "configs/heart.yaml")
REPLAYED, JOINED = 100_000, 1_000_000
RECORDS_A_FILE = 100_000
SLICES = "evaluation.slices=[[sex]]"


def publish(workdir: Path) -> str:
    """Train and publish heart; the directory of the version."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", CONFIG, "--workdir", str(workdir)]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return str(workdir / "models/heart/1")


def patients(inputs: dict[str, str], count: int) -> Iterator[dict[str, Any]]:
    """Rows of heart, each with a serum cholesterol of its own, so that every request is another one."""
    source = random.Random(0)
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number in range(count):
        row = rows[source.randrange(len(rows))]
        values: dict[str, Any] = {}
        for name, dtype in inputs.items():
            if dtype == "string":
                values[name] = row[name]
            else:
                values[name] = number if name == "chol" else _number(row[name])
        yield values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def write_logs(model: str, folder: Path, count: int, signature: str) -> list[dict[str, Any]]:
    """Log `count` requests of one row each, with what the model answers; the rows and the labels they got."""
    session = SessionModel(model)
    described = session.signatures[signature].inputs
    inputs = {name: tf.as_dtype(info.dtype).name for name, info in described.items()}
    folder.mkdir()
    asked = []
    rows = patients(inputs, count)
    writer = None
    for start in range(0, count, 1000):
        if start % RECORDS_A_FILE == 0:
            if writer is not None:
                writer.close()
            writer = tf.io.TFRecordWriter(str(folder / f"heart-{start // RECORDS_A_FILE:03}.tfrecord"))
        assert writer is not None
        batch = [next(rows) for _ in range(min(1000, count - start))]
        columns = {name: _column(batch, name, dtype) for name, dtype in inputs.items()}
        outputs = session.run(signature, columns)
        for place, row in enumerate(batch):
            log = prediction_log_pb2.PredictionLog()
            spec = log.log_metadata.model_spec
            spec.name, spec.signature_name, spec.version.value = "heart", signature, 1
            log.log_metadata.timestamp_secs = 1_790_000_000 + (start + place) // 2
            for name, column in columns.items():
                to_proto(column[place : place + 1], log.predict_log.request.inputs[name], as_content=False)
            for name, values in outputs.items():
                to_proto(values[place : place + 1], log.predict_log.response.outputs[name], as_content=False)
            writer.write(log.SerializeToString())
            best = outputs["labels"][place, 0] if "labels" in outputs else outputs["output_0"][place]
            asked.append({**row, "target": best.decode()})
    assert writer is not None
    writer.close()
    session.close()
    return asked


def _column(rows: list[dict[str, Any]], name: str, dtype: str) -> np.ndarray:
    if dtype == "string":
        return np.array([row[name].encode() for row in rows], object)
    return np.array([row[name] for row in rows], dtype)


def measured(part: Callable[[Any], dict[str, Any]], results: Any, argument: Any) -> None:
    """What a part found, its time on the clock and of all its processes, and the most memory that its own one had."""
    before, memory = resource.getrusage(resource.RUSAGE_SELF), most_memory()
    started = time.monotonic()
    found = part(argument)
    seconds = time.monotonic() - started
    after, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + children.ru_utime + children.ru_stime
    mib = {"mib_before": memory, "mib": most_memory()}
    results.put({"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), **mib, **found})


def most_memory() -> int:
    """MiB at most so far; getrusage would count what the process was before it began Python anew."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def in_a_process(part: Callable[[Any], dict[str, Any]], argument: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measured, args=(part, results, argument))
    process.start()
    found: dict[str, Any] = results.get()
    process.join()
    return found


def replay(argument: tuple[str, str]) -> dict[str, Any]:
    """The model against itself: nothing changes."""
    model, logs = argument
    found = replay_requests(find_logs([logs]), "heart", model, model, [["sex"]])
    latency = found.latency
    assert latency is not None
    return {
        "rows": found.whole.rows,
        "changed": found.whole.changed,
        "stopped": beyond(found, ReplayOptions(logs=(logs,), at_most_slower=1.2)),
        "ratio": [round(value, 3) for value in latency.ratio],
    }


def truth(argument: tuple[str, str, str]) -> dict[str, Any]:
    """With slices, and all thirteen columns as the key."""
    workdir, logs, labels = argument
    found = join_truth(load_config(CONFIG, [SLICES]), workdir, [logs], [labels], fail_below=0.8)
    whole = next(one for one in found.figures if not one.day and not one.slice)
    assert whole.accuracy is not None
    return {
        "joined": found.joined,
        "pending": found.pending,
        "accuracy": round(whole.accuracy.value, 4),
        "figures": len(found.figures),
        "fell_after": found.fell_after,
    }


def measure(wanted: str, workdir: Path) -> dict[str, Any]:
    model = publish(workdir)
    found: dict[str, Any] = {}
    if wanted in ("", "replay"):
        # A tenth of them tells whether the memory stays the same.
        for name, count in (("replay_tenth", REPLAYED // 10), ("replay", REPLAYED)):
            write_logs(model, workdir / name, count, "serving_default")
            found[name] = in_a_process(replay, (model, str(workdir / name)))
    if wanted in ("", "truth"):
        asked = write_logs(model, workdir / "truth", JOINED, "classify")
        source = np.random.default_rng(0)
        wrong = source.random(len(asked)) < 0.15
        names = {"healthy": "disease", "disease": "healthy"}
        with (workdir / "late.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, asked[0])
            writer.writeheader()
            for place in source.permutation(len(asked)).tolist():
                row = asked[place]
                writer.writerow({**row, "target": names[row["target"]] if wrong[place] else row["target"]})
        del asked
        found["truth"] = in_a_process(truth, (str(workdir), str(workdir / "truth"), str(workdir / "late.csv")))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ingraph-live-") as folder:
        print(json.dumps(measure(sys.argv[1] if len(sys.argv) > 1 else "", Path(folder)), indent=2))
