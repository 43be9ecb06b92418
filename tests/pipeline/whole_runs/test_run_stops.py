"""What stops a run, and what a person sees of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2
from PIL import Image

from pipeline import demo_data
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.history import (
    RunOutcome,
    RunRecord,
    close_abandoned_executions,
    open_metadata_store,
    pipeline_folders,
    read_run_record,
    write_run_record,
)
from pipeline.screen import RunScreen, SamplePrediction
from serving.model_store import list_versions, publish
from tests.pipeline.conftest import LOADED, PROJECT, ingraph, run_main


def customers(rows: int = 200, seed: int = 0) -> list[str]:
    """A table with strings, whole numbers, floats and gaps, whose label follows the columns."""
    source = random.Random(seed)
    lines = ["age,income,city,visits,bought"]
    for _ in range(rows):
        age, income = source.randint(18, 80), source.uniform(10, 90)
        city = source.choice(["Oslo", "Rome", "Lima"])
        bought = "yes" if income + (20 if city == "Rome" else 0) + source.gauss(0, 10) > 55 else "no"
        income_text = "" if source.random() < 0.1 else f"{income:.2f}"
        lines.append(f"{age},{income_text},{city},{source.randint(0, 9)},{bought}")
    return lines


def stopped(config: str, workdir: Path, *arguments: str, status: int) -> str:
    """Run, expect the status and an untouched base path, and answer what was said."""
    finished = ingraph("run", config, "--workdir", str(workdir), *arguments)
    said = finished.output + finished.errors
    assert finished.status == status, said
    assert "Traceback" not in said
    base_path = workdir / "models/mine"
    assert [path for path in base_path.glob("*") if path.name.isdigit()] == []
    return said


def test_ones_own_csv_needs_only_a_config_and_stays_withdrawn_once_it_is(config_file, tmp_path):
    config = config_file(
        "\n".join(customers(400)),
        "  columns: {visits: {kind: quantiles, buckets: 3}, age: {kind: boundaries, boundaries: [30, 60]}}\n"
        "  crosses: [[city, age]]\n",
    )
    finished = ingraph("run", config, "--workdir", str(tmp_path))
    assert finished.status == 0, finished.output
    assert f"published as version 1: {tmp_path}/models/mine/1" in finished.output
    provenance = json.loads((tmp_path / "models/mine/1/assets.extra/provenance.json").read_text())
    assert provenance["metrics"]["auc"] > 0.85

    # What is withdrawn is not published again, also where nothing is cached: the same data and code are known.
    withdrawn = ingraph("models", "withdraw", str(tmp_path / "models/mine"))
    assert withdrawn.status == 0, withdrawn.errors
    again = ingraph("run", config, "--workdir", str(tmp_path / "fresh"), "--set", f"models={tmp_path}/models")
    assert again.status == ExitStatus.NOT_PUBLISHED
    assert "this model was withdrawn from" in again.output
    assert [version.withdrawn for version in list_versions(str(tmp_path / "models/mine"))] == [True]


def days_and_nights(folder: Path) -> Path:
    """The config of a classifier that tells 80 small photos by their brightness."""
    source = np.random.default_rng(0)
    for label, brightness in (("day", 200), ("night", 20)):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(40):
            pixels = source.integers(brightness, brightness + 50, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"photos/{label}/{number}.png")
    classifier = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    )
    # Of pixels between 0 and 1, a mean above a half is the day.
    classifier.layers[-1].set_weights([np.full((192, 2), [0.1, -0.1]), np.array([-9.6, 9.6])])
    classifier.save(folder / "classifier.keras")
    (folder / "labels.txt").write_text("day\nnight\n")
    config = folder / "mine.yaml"
    config.write_text(
        "name: mine\ntask: image\ndata: {path: photos, minimum_examples: 5}\n"
        "preprocessing: {scaling: zero_to_one, antialias: false}\n"
        "serving_check: {maximum_examples: 16}\n"
        "trainer: {mode: wrap, classifier: classifier.keras, labels: labels.txt}\n"
    )
    return config


def test_photos_stay_withdrawn_in_a_run_from_a_folder_that_knows_nothing(tmp_path):
    config, base_path = days_and_nights(tmp_path), tmp_path / "models/mine"
    fresh = ["--workdir", str(tmp_path / "fresh"), "--set", f"models={tmp_path}/models"]
    finished = ingraph("run", str(config), "--workdir", str(tmp_path))
    assert finished.status == 0, finished.output
    assert ingraph("models", "withdraw", str(base_path), "--reason", "too gloomy").status == 0

    again = ingraph("run", str(config), *fresh)
    assert again.status == ExitStatus.NOT_PUBLISHED, again.output
    said = " ".join(again.output.split())
    assert f"this model was withdrawn from {base_path} as version 1 (too gloomy)" in said
    assert f"`ingraph models restore {base_path} 1`" in said
    assert [(version.number, version.withdrawn) for version in list_versions(str(base_path))] == [(1, True)]


def test_a_missing_config(tmp_path):
    said = stopped(str(tmp_path / "no.yaml"), tmp_path, status=2)
    assert "no such config file" in said


def test_a_signing_key_that_cannot_be_used_stops_the_run_before_anything_is_read(config_file, tmp_path):
    config = config_file(None, "push: {signing_key: secret-place/no.pem}\n")
    said = stopped(config, tmp_path, status=2)
    assert "push.signing_key: the signing key cannot be read: No such file or directory" in said
    assert "secret-place" not in said


def test_an_unknown_key_is_named_with_what_it_was_meant_to_be(config_file, tmp_path):
    said = stopped(config_file("a,bought\n1,yes\n"), tmp_path, "--set", "trainer.epoch=3", status=2)
    assert "unknown key 'trainer.epoch'; did you mean 'epochs'?" in said


@pytest.mark.parametrize(
    ("csv", "sentence"),
    [
        (None, "data.csv: no such file"),
        ("", "data.csv: the file is empty"),
        ("age,bought\n", "has a header and no rows"),
        ("age,city\n1,Rome\n", "there is no column 'bought', which preprocessing.label.column in the config names"),
        ("age,bought\n1,yes\n2\n", "line 3 has 1 fields, the header has 2"),
        (b"age,bought\n1,yes\n\xff,no\n", "line 3 is not UTF-8 (byte 1 is 0xff)"),
        ("age,age,bought\n1,1,yes\n", "names the column 'age' more than once"),
    ],
)
def test_a_csv_file_that_cannot_be_used(config_file, tmp_path, csv, sentence):
    assert sentence in stopped(config_file(csv), tmp_path, status=2)


def write_bad_table(folder: Path, name: str) -> None:
    table = pa.table({"age": list(range(900)), "bought": ["yes", "no", "no"] * 300})
    if name == "cut.csv.gz":
        pyarrow.csv.write_csv(table, folder / "whole.csv")
        (folder / name).write_bytes(gzip.compress((folder / "whole.csv").read_bytes(), mtime=0)[:-50])
    elif name == "cut.parquet":
        pyarrow.parquet.write_table(table, folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:-50])
    elif name == "pipe.csv":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
        pyarrow.csv.write_csv(table, folder / name / "one.csv")
        pyarrow.csv.write_csv(table.rename_columns(["years", "bought"]), folder / name / "two.csv")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cut.csv.gz", "cut.csv.gz: the gzip file is damaged"),
        ("cut.parquet", "cut.parquet: the file cannot be read as parquet"),
        ("pipe.csv", "pipe.csv: no regular file"),
        ("mixed", "have different columns: only one of them has 'age', 'years'"),
    ],
)
def test_data_that_cannot_be_read(config_file, tmp_path, name, sentence):
    write_bad_table(tmp_path, name)
    said = stopped(config_file("a,bought\n1,yes\n"), tmp_path, "--set", f"data.path={name}", status=2)
    assert sentence in " ".join(said.split())


def test_text_among_the_numbers_of_the_second_half_is_named_with_its_line(config_file, tmp_path):
    lines = customers(200)
    lines[150] = "41,unknown,Rome,3,yes"
    said = stopped(config_file("\n".join(lines), "  columns: {income: z_score}\n"), tmp_path, status=2)
    assert "line 151: column 'income' is 'unknown', expected a number" in said


def test_one_class_only(config_file, tmp_path):
    lines = customers(200)
    csv = "\n".join([lines[0], *(line.rpartition(",")[0] + ",yes" for line in lines[1:])])
    said = stopped(config_file(csv), tmp_path, status=2)
    assert "'bought'" in said and "'yes'" in said


def test_an_anomaly_against_the_curated_schema(tmp_path):
    lines = demo_data.fetch("hearts").read_text(encoding="utf-8").splitlines()
    lines[200] = lines[200].replace(lines[200].split(",")[0], "640", 1)
    (tmp_path / "hearts.csv").write_text("\n".join(lines))
    content = yaml.safe_load((PROJECT / "configs/heart.yaml").read_text())
    content["data"] = {"path": "hearts.csv", "schema_file": str(PROJECT / "configs/schemas/hearts.pbtxt")}
    content["name"] = "mine"
    (tmp_path / "anomalous.yaml").write_text(yaml.safe_dump(content))
    said = stopped(str(tmp_path / "anomalous.yaml"), tmp_path, status=3)
    assert "'age'" in said and "640" in said


def test_a_metric_under_its_threshold(config_file, tmp_path):
    config = config_file("\n".join(customers(200)))
    said = stopped(config, tmp_path, "--set", "evaluation.at_least.accuracy=1.01", status=4)
    assert "accuracy is" in said and "expected at least 1.01" in said


def test_an_unwritable_base_path_is_said_before_anything_runs(config_file, tmp_path):
    (tmp_path / "file").write_text("")
    config = config_file("\n".join(customers(200)))
    said = stopped(config, tmp_path, "--set", f"models={tmp_path}/file/models", status=6)
    assert "the model base path cannot be written to" in said
    assert "Trainer" not in said


def test_the_commands_to_type_next_survive_a_shell_when_a_path_has_a_space() -> None:
    printed = io.StringIO()
    sample = SamplePrediction({"image": "/my [red] photos/0.png"}, "0", "0", ["/my [red] photos/0.png"])
    RunScreen(printed, None).sample("digits", "/my models/digits", sample)
    commands = [shlex.split(line) for line in printed.getvalue().splitlines() if line.startswith("  ingraph")]
    assert commands == [
        ["ingraph", "serve", "--model", "digits=/my models/digits"],
        ["ingraph", "predict", "digits", "/my [red] photos/0.png"],
        ["ingraph", "models", "list", "/my models/digits"],
    ]


def test_what_the_screen_shows_is_data_and_no_markup() -> None:
    hostile = "/a:x:/[b]c[/b]\x1b[2J"
    printed = io.StringIO()
    screen = RunScreen(printed, Path(hostile))
    screen.begin("mine", "1")
    screen.data(hostile)
    screen.warning(hostile)
    screen.outcome(
        RunOutcome(
            blessed=True, infra_blessed=True, pushed=True, pushed_reason="published", pushed_destination=hostile
        ),
        1.0,
    )
    screen.sample("mine", "models/mine", SamplePrediction({"x": hostile}, hostile, "no", []))
    screen.stopped(hostile)
    screen.report(Path(hostile))

    shown = printed.getvalue()
    assert "\x1b" not in shown
    assert shown.count(r"/a:x:/[b]c[/b]\x1b[2J") == 10


def shown_of(provenance: dict, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the screen says of a served version with its sample prediction."""
    served = SimpleNamespace(provenance=provenance)
    monkeypatch.setattr("serving.model_store.served_version", lambda base_path: served)
    printed = io.StringIO()
    RunScreen(printed, None).sample("mine", "models/mine", SamplePrediction({"text": "a"}, "good", "good", []))
    return printed.getvalue()


def test_the_screen_shows_each_model_of_texts_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"accuracy": [0.8, 0.75, 0.85], "cross_entropy": [0.4, 0.35, 0.45], "milliseconds": 1.25}
    tried = {"kept": "static", "why": "it is best", "rows": 1200, "members": {"ngrams": one, "static": one}}
    shown = shown_of({"texts": {"tried": tried}}, monkeypatch)
    assert "model      static, for it is best; on 1,200 rows that it did not see:" in shown
    for name in ("ngrams", "static"):
        assert f"{name}: accuracy 0.800 (0.750 to 0.850), cross_entropy 0.400, 1.25 ms a text" in shown


def test_the_screen_shows_each_backbone_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {
        "MobileNet": {"accuracy": [0.5, 0.45, 0.55], "photos": 150, "milliseconds": 9.5},
        "Xception": {"accuracy": [0.8, 0.75, 0.85], "photos": 400, "milliseconds": 44.5},
    }
    tried = {"kept": "Xception", "why": "it tells most photos", "members": members, "left_out": ["VGG16", "VGG19"]}
    shown = shown_of({"backbones": tried}, monkeypatch)
    assert "backbone   Xception, for it tells most photos; by 400 photos, each left out:" in shown
    assert "           MobileNet: accuracy 0.500 (0.450 to 0.550), 9.50 ms a photo" in shown
    assert "           Xception: accuracy 0.800 (0.750 to 0.850), 44.50 ms a photo" in shown
    assert "           there are no weights of VGG16, VGG19" in shown


@pytest.mark.parametrize(
    ("wraps", "said"),
    [(False, "answers as the training graph does"), (True, "answers as the wrapped model does in its own library")],
)
def test_the_screen_says_what_the_served_answers_were_compared_with(wraps: bool, said: str) -> None:
    printed = io.StringIO()
    outcome = RunOutcome(blessed=True, infra_blessed=True, infra_remark="of all 600 rows", pushed_reason="published")
    RunScreen(printed, None).outcome(outcome, 1.0, wraps)
    assert f"serving    {said}\n           of all 600 rows\n" in printed.getvalue()


def states(metadata: Path) -> dict[str, str]:
    """The state of each execution that ML Metadata knows, by its step."""
    executions = open_metadata_store(str(metadata)).get_executions()
    return {
        execution.type.rpartition(".")[2]: execution.State.Name(execution.last_known_state) for execution in executions
    }


def test_a_terminated_run_ends_with_a_sentence_and_a_killed_one_is_closed_by_the_next(config_file, tmp_path):
    config = config_file("\n".join(customers(200)))
    metadata = tmp_path / "runs/mine/metadata.sqlite"
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", config, "--workdir", str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = []
        for line in run.stdout:
            said.append(line)
            if "TableExampleGen" in line:
                run.terminate()
                break
        rest, errors = run.communicate(timeout=120)
    said.append(rest)

    assert (run.returncode, errors) == (int(ExitStatus.UNEXPECTED), "")
    assert "interrupted; run the same command again to go on" in " ".join("".join(said).split())
    assert "RUNNING" not in states(metadata).values()
    assert states(metadata)["TableExampleGen"] == "COMPLETE"

    # As a killed process leaves it.
    store = open_metadata_store(str(metadata), writable=True)
    (generated,) = [one for one in store.get_executions() if one.type.endswith("TableExampleGen")]
    generated.last_known_state = generated.RUNNING
    store.put_executions([generated])
    del store
    assert close_abandoned_executions(metadata.parent) == 1
    assert states(metadata)["TableExampleGen"] == "FAILED"
    assert close_abandoned_executions(metadata.parent) == 0


def damaged(metadata: Path) -> None:
    content = bytearray(metadata.read_bytes())
    content[4096 : len(content) - 4096] = os.urandom(len(content) - 8192)
    metadata.write_bytes(content)


def test_damaged_metadata_are_named_with_the_command_that_sets_them_aside(config_file, tmp_path):
    """As a run left them: two records, one of a published version, and the folders of its steps."""
    folder = tmp_path / "runs/mine"
    for step in ("Trainer/model/7", "Trainer/.system/executor_execution/7", "Transform/graph/6"):
        (folder / "artifacts" / step).mkdir(parents=True)
    model = tmp_path / "saved_model"
    model.mkdir()
    (model / "saved_model.pb").write_text("graph")
    provenance = {"run_id": "2026-1", "data_fingerprint": "d", "code_fingerprint": "c"}
    publish(str(tmp_path / "models/mine"), str(model), provenance)
    described = {"models": "models"}
    write_run_record(folder, "2026-1", RunRecord(described, exit_status=0, metrics={"auc": 0.75}))
    write_run_record(folder, "2026-2", RunRecord(described, exit_status=int(ExitStatus.NOT_BLESSED)))
    open_metadata_store(str(folder / "metadata.sqlite"), writable=True)
    damaged(folder / "metadata.sqlite")
    before = (folder / "metadata.sqlite").read_bytes()

    sentence = f"{folder}/metadata.sqlite: the metadata of the runs are damaged"
    config = config_file("\n".join(customers(20)))
    for command in (["runs", "list"], ["runs", "show"], ["report", "mine"], ["run", config]):
        said = CliRunner().invoke(main, [*command, "--workdir", str(tmp_path)])
        assert said.exit_code == ExitStatus.BROKEN_INPUT, said.output
        assert sentence in " ".join(said.output.split())
        assert "`ingraph runs repair mine` sets it aside" in " ".join(said.output.split())
    assert (folder / "metadata.sqlite").read_bytes() == before

    repaired = CliRunner().invoke(main, ["runs", "repair", "--workdir", str(tmp_path)])

    assert repaired.exit_code == 0, repaired.output
    assert "2 runs are known again" in repaired.output
    (aside,) = folder.glob("metadata.sqlite.damaged-*")
    assert aside.read_bytes() == before
    listed = CliRunner().invoke(main, ["runs", "list", "--json", "--workdir", str(tmp_path)])
    runs = {run["run_id"]: (run["verdict"], run["version"], run["metrics"]) for run in json.loads(listed.output)}
    assert runs == {"2026-1": ("published", "1", {"auc": 0.75}), "2026-2": ("not good enough", "", {})}
    # The steps of the next run do not write to folders that are there.
    store = open_metadata_store(str(folder / "metadata.sqlite"), writable=True)
    type_id = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
    assert store.put_executions([metadata_store_pb2.Execution(type_id=type_id)]) == [8]
    again = CliRunner().invoke(main, ["runs", "repair", "mine", "--workdir", str(tmp_path)])
    assert again.output == "mine: the metadata are fine\n"


RUN_AND_LOOK = """
import sys
from pipeline.cli import main
try:
    main(["run", sys.argv[1], "--workdir", sys.argv[2]])
except SystemExit as ended:
    print(ended.code, sorted({"tensorflow", "tfx", "apache_beam"} & set(sys.modules)))
"""


def test_a_file_that_is_not_there_is_said_before_any_library_is_loaded(config_file, tmp_path):
    command = [sys.executable, "-c", RUN_AND_LOOK, config_file(None), str(tmp_path)]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert "data.csv: no such file" in said
    assert said.splitlines()[-1] == "2 []"


def counted(workdir: Path, name: str) -> dict[str, int]:
    """How many examples of each split a quick run took."""
    (report,) = workdir.glob(f"runs/{name}/quick/{name}/artifacts/*ExampleGen/examples/*/ingestion.json")
    examples = json.loads(report.read_text())["examples"]
    return {split: found if isinstance(found, int) else sum(found.values()) for split, found in examples.items()}


@pytest.mark.skipif(not os.environ.get("INGRAPH_LONG_TESTS"), reason="a minute; INGRAPH_LONG_TESTS=1 runs it")
def test_a_quick_run_takes_few_photos_asks_what_it_made_and_leaves_no_model(tmp_path):
    config = days_and_nights(tmp_path)
    finished = ingraph(
        "run", str(config), "--workdir", str(tmp_path), "--quick", "--set", "data.sample=24", "--set",
        "evaluation={at_least: {accuracy: 1.01}}",
    )  # fmt: skip
    assert finished.status == 0, finished.output
    assert sum(counted(tmp_path, "mine").values()) == 24
    assert "evaluation no: accuracy is 1.0000, expected at least 1.01" in finished.output
    assert f"REST       image={tmp_path}/photos/day/0.png -> day" in finished.output
    assert "every step works, with at most 24 examples of each split" in " ".join(finished.output.split())
    assert "ingraph serve" not in finished.output
    assert not (tmp_path / "models").exists()
    assert pipeline_folders(tmp_path / "runs") == []


def test_what_stops_a_quick_run_has_the_status_that_it_has_in_earnest(config_file, tmp_path):
    said = stopped(config_file(None), tmp_path, "--quick", status=ExitStatus.BROKEN_INPUT)
    assert f"stopped    {tmp_path}/data.csv: no such file" in said


def test_watching_waits_while_the_config_is_broken_and_says_what_a_change_does_to_the_metrics(config_file, tmp_path):
    config, workdir = Path(config_file("\n".join(customers(800)))), tmp_path / "work"
    output, errors = tmp_path / "output", tmp_path / "errors"
    arguments = ["run", str(config), "--quick", "--watch", "--workdir", str(workdir)]
    watching = LOADED.Process(target=run_main, args=(arguments, dict(os.environ), output, errors))
    watching.start()

    def waits(times: int) -> None:
        deadline = time.monotonic() + 300
        while not output.exists() or output.read_text().count("Ctrl-C ends") < times:
            assert watching.is_alive(), errors.read_text()
            assert time.monotonic() < deadline, output.read_text() + errors.read_text()
            time.sleep(0.1)

    try:
        waits(1)
        content = config.read_text()
        config.write_text(content.replace("trainer:", "trainr:"))
        waits(2)
        assert f"{config}: unknown key 'trainr'; did you mean 'trainer'?" in errors.read_text()
        config.write_text(content.replace("learning_rate: 0.05", "learning_rate: 0.001"))
        waits(3)
    finally:
        os.kill(watching.pid, signal.SIGINT)
        watching.join(60)
    assert watching.exitcode == 0
    said = output.read_text()
    assert said.rstrip().endswith("watching has ended; the last run's exit status is 0")
    assert said.count(f"changed: {config}\n") == 2
    assert "Transform         unchanged" in said.partition("changed: ")[2]
    assert "  trainer.learning_rate: 0.05 -> 0.001\n" in said

    folder = workdir / "runs/mine/quick/mine"
    first, second = (read_run_record(folder, path.stem) for path in sorted(folder.glob("reports/*.json")))
    before, after = first.metrics["cross_entropy"], second.metrics["cross_entropy"]
    assert f"  cross_entropy  {before:.4g} -> {after:.4g}  {after - before:+.4g} (+" in said
    assert re.search(r"  cross_entropy .*: worse\)\n", said)
    # 500 of about 640 rows to learn from, and all that are held out.
    examples = counted(workdir, "mine")
    assert examples["train"] in (499, 500)  # the share of each label is rounded down
    assert examples["eval"] == second.metrics["example_count"] < 200
    # The bound of the config is told and does not count; what was exported answers.
    assert re.search(r"evaluation no: auc is 0\.\d+, expected at least 0\.6\n", said)
    assert len(re.findall(r"\nREST       age=\d+ .* -> (yes|no)\n", said)) == 2
    assert "every step works, with at most 500 examples of each split" in said
    assert "ingraph serve" not in said
    assert not (workdir / "models").exists()
    assert pipeline_folders(workdir / "runs") == []
