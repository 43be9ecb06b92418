"""From an edit to an answer, as a person waits for it: whole processes by the clock, beside a plain Keras script.

    .venv/bin/python -m benchmarks.edit_loop [--turns 5]

The hearts from nothing, with nothing changed, with one option of the trainer changed, the same under `--watch`, and a
question to a running server; in turns, each in a process started anew, told are medians. The script reads the same
rows, trains the same kind of model for as many epochs, and exports it; it checks nothing and answers with no labels.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.results import Goal, Measurement

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

INGRAPH = str(Path(sys.executable).with_name("ingraph"))
HEART = Path(__file__).resolve().parents[1] / "configs/heart.yaml"
LINEAR = ("--set", "trainer.model=linear")
SCRIPT, NOTHING_LEFT = "plain Keras script", "heart, from nothing"

LABEL = "target"
CATEGORIES = ("sex", "cp", "fbs", "restecg", "exang", "slope", "ca", "thal")
EPOCHS, BATCH_SIZE, STEP_SIZE, L2 = 200, 256, 0.05, 0.002  # those of configs/heart.yaml


def plain_keras(csv_file: str, folder: str) -> float:
    """Train on four fifths of the rows of a CSV file and export to `folder`/model; the ROC AUC on the rest."""
    import keras
    import pandas as pd
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    rows = pd.read_csv(csv_file).sample(frac=1, random_state=0).astype({"thal": str})
    labels, held_out = rows.pop(LABEL), len(rows) // 5
    space = keras.utils.FeatureSpace({name: _kind(name) for name in rows}, output_mode="concat")
    train = tf.data.Dataset.from_tensor_slices((dict(rows[held_out:]), labels[held_out:])).batch(BATCH_SIZE)
    test = tf.data.Dataset.from_tensor_slices((dict(rows[:held_out]), labels[:held_out])).batch(BATCH_SIZE)
    space.adapt(train.map(lambda features, _: features))

    encoded = space.get_encoded_features()
    probability = keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(L2))(encoded)
    model = keras.Model(encoded, probability)
    model.compile(keras.optimizers.Adam(STEP_SIZE), "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    model.fit(_encoded(space, train), epochs=EPOCHS, verbose=0)
    auc: float = model.evaluate(_encoded(space, test), verbose=0, return_dict=True)["auc"]
    keras.Model(space.get_inputs(), probability).export(f"{folder}/model", verbose=False)
    return auc


def _kind(name: str) -> str:
    if name not in CATEGORIES:
        return "float_normalized"
    return "string_categorical" if name == "thal" else "integer_categorical"


def _encoded(space: keras.utils.FeatureSpace, rows: tf.data.Dataset) -> tf.data.Dataset:
    return rows.map(lambda features, labels: (space(features), labels)).cache()


def main() -> None:
    """Print the table."""
    from benchmarks.harness.running import report
    from pipeline import demo_data

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    csv_file = str(demo_data.fetch("hearts"))
    spent: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    # The first turn brings files into memory.
    for turn in range(turns + 1):
        with tempfile.TemporaryDirectory() as folder:
            for found, told in ((one_turn(csv_file, folder), spent), (steps_of_first_run(folder), steps)):
                for name, seconds in found.items():
                    told.setdefault(name, []).extend([seconds] * (turn > 0))
    report("edit loop", compared(_medians(spent), _medians(steps)))


def one_turn(csv_file: str, folder: str) -> dict[str, float]:
    """Seconds of everything, once; runs are left in `folder`/linear."""
    script = f"from benchmarks.edit_loop import plain_keras; plain_keras({csv_file!r}, {folder!r})"
    run, linear = [INGRAPH, "run", str(HEART)], ("--workdir", f"{folder}/linear", *LINEAR)
    found = {
        SCRIPT: _seconds([sys.executable, "-c", script]),
        NOTHING_LEFT: _seconds([*run, *linear]),
        "heart, nothing changed": _seconds([*run, *linear]),
        "heart, one option changed": _seconds([*run, *linear, "--set", "trainer.learning_rate=0.04"]),
        "heart, one option changed, watched": watched_change(folder, linear),
    }
    return found | questions(folder)


def _seconds(command: Sequence[str]) -> float:
    """How long a command takes that is to succeed."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=HEART.parents[1])
    return time.perf_counter() - started


def watched_change(folder: str, options: Sequence[str]) -> float:
    """Seconds from the moment a config is written to the end of its run, under `ingraph run --watch`."""
    config = HEART.read_text(encoding="utf-8").replace("schemas/", f"{HEART.parent}/schemas/")
    file = Path(folder, "heart.yaml")
    file.write_text(config, encoding="utf-8")
    with _watching([INGRAPH, "run", str(file), "--watch", *options]) as lines:
        _until("watching", lines)
        time.sleep(1.0)  # a person's edit comes when nothing is going on
        started = time.perf_counter()
        _with_learning_rate(file, config)
        _until("Trainer", lines)
        _until("watching", lines)
        return time.perf_counter() - started


def _with_learning_rate(file: Path, config: str) -> None:
    head, found, tail = config.partition("learning_rate: ")
    if not found:
        raise SystemExit(f"{HEART} has no line 'learning_rate: …' that could be edited")
    file.write_text(f"{head}{found}0.03\n{tail.partition(chr(10))[2]}", encoding="utf-8")


@contextmanager
def _watching(command: Sequence[str]) -> Iterator[Iterator[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield iter(process.stdout.readline, "")
        finally:
            process.terminate()


def _until(wanted: str, lines: Iterator[str]) -> None:
    said = ""
    for line in lines:
        if wanted in line:
            return
        said += line
    raise SystemExit(f"`ingraph run --watch` has ended without the line {wanted!r}: {said[-500:]}")


def questions(folder: str) -> dict[str, float]:
    """Seconds of `ingraph predict` of a row, the server being there, and of `ingraph models list`."""
    from benchmarks.serving.servers import serve_command

    base_path = f"{folder}/linear/models/heart"
    row = "age=63 ca=0 chol=233 cp=1 exang=0 fbs=1 oldpeak=2.3 restecg=2 sex=1 slope=3 thal=fixed thalach=150"
    with serve_command("heart", base_path) as server:
        predict = [INGRAPH, "predict", "heart", *row.split(), "trestbps=145", "--port", str(server.rest_port)]
        _seconds(predict)  # the model's own first answer is measured elsewhere
        asked = _seconds(predict)
    return {"ingraph predict": asked, "ingraph models list": _seconds([INGRAPH, "models", "list", base_path])}


def steps_of_first_run(folder: str) -> dict[str, float]:
    """Component -> seconds, of the run from nothing."""
    from pipeline.history import read_past_run, run_ids

    runs = Path(folder, "linear/runs/heart")
    first = read_past_run(runs, run_ids(runs)[-1])
    return {step.name: step.seconds for step in first.steps if step.seconds is not None}


def _medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in seconds.items()}


_GOALS = {
    NOTHING_LEFT: Goal(2.0),
    "heart, nothing changed": Goal(1.5, "value"),
    "heart, one option changed": Goal(8, "value"),
    "heart, one option changed, watched": Goal(4, "value"),
    "ingraph predict": Goal(0.4, "value"),
    "ingraph models list": Goal(0.4, "value"),
}


def compared(seconds: Mapping[str, float], steps: Mapping[str, float]) -> list[Measurement]:
    """Everything beside the script, and where the run from nothing spends its time."""
    script = seconds[SCRIPT]
    rest = seconds[NOTHING_LEFT] - sum(steps.values())
    return [
        Measurement(SCRIPT, script, "s", "time"),
        *(
            Measurement(name, value, "s", "time", value / script, SCRIPT, _GOALS.get(name))
            for name, value in seconds.items()
            if name != SCRIPT
        ),
        *(
            Measurement(f"of that from nothing: {name}", value, "s", "step", value / script, SCRIPT)
            for name, value in {**steps, "imports, sample prediction, report": rest}.items()
        ),
    ]


if __name__ == "__main__":
    main()
