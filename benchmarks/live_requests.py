"""Logged requests at scale: 100,000 of heart replayed, and a million answers joined with a million late labels.

    python -m benchmarks.live_requests [replay|truth]

Each part runs in a process of its own; what it takes is printed as JSON. The logs are written once, from answers of a
model that `ingraph run configs/heart.yaml` has published into a temporary folder.

    INGRAPH_TEST_DATA=... python -m benchmarks.live_requests explain [FOLDER]

Answers explained: of every row, text and photo of the demos, of all splits, whether base and contributions add up to
the score; and how long one row of heart takes, in a session and served. What was done is kept in FOLDER, and not done
again. Texts and photos are explained by two orders of their parts, the fewest that there can be; photos only where the
variable is set.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from benchmarks.harness.running import TEST_DATA
from benchmarks.serving.servers import serve_command
from components.evaluator.options import ReplayOptions
from components.replay_gate.replay import beyond, replay_requests
from components.request_logs import find_logs
from components.serving_check.candidate import request_inputs, without_label
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.scoring.truth import join_truth
from serving.client.grpc import GrpcClient
from serving.client.rest import RestClient
from serving.client.tensors import to_proto
from serving.reference_predictions import read_examples
from serving.session_model import SessionModel
from serving.signatures.explain import EXPLAIN

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = str(PROJECT / "configs/heart.yaml")
REPLAYED, JOINED = 100_000, 1_000_000
RECORDS_A_FILE = 100_000
SLICES = "evaluation.slices=[[sex]]"


def publish(workdir: Path, name: str = "heart", settings: Sequence[str] = ()) -> str:
    """Train and publish a demo; the directory of the version."""
    model = workdir / f"models/{name}/1"
    if not model.exists():
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", f"configs/{name}.yaml"]
        command += ["--workdir", str(workdir), *(word for setting in settings for word in ("--set", setting))]
        subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return str(model)


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


SMALL = ("preprocessing.height=75", "preprocessing.width=75")
FEWEST = "serving.explain={samples: 2}"
# Demo -> settings of its run, and rows in a request.
EXPLAINED: Mapping[str, tuple[Sequence[str], int]] = {
    "heart": (["serving.explain=true"], 64),
    "reviews": ([FEWEST], 64),
    # Small photos: the network runs 128 times for each of them.
    "flowers": ([FEWEST, *SMALL, "evaluation.at_least={accuracy: 0.1}", "evaluation.may_worsen_by={}"], 8),
}
SUMS_GOAL = 1e-5


def explain(folder: Path) -> dict[str, Any]:
    """Every row of the demos, and the time of one of heart."""
    found: dict[str, Any] = {}
    for name, (settings, at_once) in EXPLAINED.items():
        workdir = folder / name
        if name == "flowers":
            if TEST_DATA not in os.environ:
                continue
            data = Path(os.environ[TEST_DATA])
            workdir.mkdir(parents=True, exist_ok=True)
            weights = workdir / "inception_v3.weights.h5"
            if not weights.exists():
                script, stored = data / "to_keras_weights.py", data / "inception_v3_notop_8bit.npz"
                subprocess.run([sys.executable, str(script), str(stored), str(weights)], check=True)
            settings = [*settings, f"data.path={data / 'flowers'}", f"trainer.weights={weights}"]
        model = publish(workdir, name, settings)
        found[name] = in_a_process(explained_sums, (name, str(workdir), model, at_once))
    found["one row of heart"] = in_a_process(explained_seconds, str(folder / "heart"))
    return found


def explained_sums(argument: tuple[str, str, str, int]) -> dict[str, Any]:
    """How far off the sums are at most, of all examples of a run; what was found of each request is in a file."""
    name, workdir, model, at_once = argument
    examples = sorted(map(str, Path(workdir, f"runs/{name}/artifacts").glob("*ExampleGen/examples/*/Split-*/*.gz")))
    progress = Path(workdir, "explained.jsonl")
    progress.touch()
    done = sum(line["rows"] for line in _lines(progress))
    session = SessionModel(model)
    signature = session.signatures[EXPLAIN]
    with closing(session), progress.open("a", encoding="ascii") as file:
        records = islice(read_examples(examples), done, None)
        while chosen := list(islice(records, at_once)):
            rows = [
                without_label(tf.train.Example.FromString(record), signature.inputs, {"image_bytes": "image"})
                for record in chosen
            ]
            asked = request_inputs(signature, rows)
            answers, scores = (session.run(one, asked) for one in (EXPLAIN, "classify"))
            contributions = answers["contributions"].reshape(len(rows), -1)
            # As float32 and in the order in which a client would add them up.
            sums = answers["base"] + contributions.sum(axis=1, dtype=np.float32)
            off, of_score = np.abs(sums - answers["probability"]), np.abs(sums - scores["probabilities"].max(axis=1))
            line = {"rows": len(rows), "off": float(off.max()), "off_classify": float(of_score.max())}
            line["beyond"] = int((off > SUMS_GOAL).sum())
            line["unusable"] = int((answers["error"] != b"").sum())
            file.write(json.dumps(line) + "\n")
            file.flush()
    lines = _lines(progress)
    return {
        "rows": sum(line["rows"] for line in lines),
        "beyond": sum(line["beyond"] for line in lines),
        "unusable": sum(line["unusable"] for line in lines),
        "off_at_most": max(line["off"] for line in lines),
        "off_classify_at_most": max(line["off_classify"] for line in lines),
    }


def _lines(progress: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in progress.read_text(encoding="ascii").splitlines()]


EXPLAIN_TURNS, EXPLAIN_REQUESTS = 8, 50


def explained_seconds(workdir: str) -> dict[str, Any]:
    """Milliseconds and processor time of one row, over the ways in turns of 50 requests; each row is another one."""
    base_path = f"{workdir}/models/heart"
    with (
        closing(SessionModel(f"{base_path}/1")) as session,
        serve_command("heart", base_path) as server,
        RestClient(port=server.rest_port) as rest,
        GrpcClient(port=server.grpc_port) as grpc,
    ):
        inputs = {name: tf.as_dtype(info.dtype).name for name, info in session.signatures[EXPLAIN].inputs.items()}
        rows = [{name: _column([row], name, inputs[name]) for name in inputs} for row in patients(inputs, 303)]
        ways: dict[str, tuple[int, Callable[[Any], Any]]] = {
            "session": (os.getpid(), lambda row: session.run(EXPLAIN, row)),
            "REST": (server.pid, lambda row: rest.predict("heart", row, EXPLAIN)),
            "gRPC": (server.pid, lambda row: grpc.predict("heart", row, EXPLAIN)),
        }
        medians: dict[str, list[float]] = {name: [] for name in ways}
        worked: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(EXPLAIN_TURNS + 1):
            for name, (pid, ask) in ways.items():
                spent, before = [], processor_seconds(pid)
                for number in range(EXPLAIN_REQUESTS):
                    started = time.perf_counter()
                    ask(rows[(turn * EXPLAIN_REQUESTS + number) % len(rows)])
                    spent.append(time.perf_counter() - started)
                if turn:  # in the first one, TensorFlow optimises the graph
                    medians[name].append(round(1000 * float(np.median(spent)), 1))
                    worked[name].append(1000 * (processor_seconds(pid) - before) / EXPLAIN_REQUESTS)
    return {
        name: {
            "milliseconds": min(medians[name]),
            "medians": medians[name],
            "processor_milliseconds": round(min(worked[name]), 1),
            "processor_milliseconds_mean": round(float(np.mean(worked[name])), 1),
        }
        for name in ways
    }


def processor_seconds(pid: int) -> float:
    """What all threads of a process have worked, to a hundredth of a second."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(wanted: str, workdir: Path) -> dict[str, Any]:
    if wanted == "explain":
        return explain(workdir)
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
        part, kept, *_ = [*sys.argv[1:], "", ""]
        print(json.dumps(measure(part, Path(kept or folder).resolve()), indent=2))
