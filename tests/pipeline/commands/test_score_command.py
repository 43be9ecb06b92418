"""`ingraph score`: files through a published model, row by row what a server answers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

from pipeline import demo_data
from pipeline.cli import main
from pipeline.scoring.inputs import Batch, find_model
from pipeline.scoring.pipeline import scored
from serving.answers import UnknownRule
from serving.client.table_columns import table_columns
from serving.model_store import withdraw
from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.browser import small_classifiers
from tests.pipeline.conftest import PROJECT, HeartRun, strings
from tests.pipeline.flat_object_store import FlatObjectStore
from tests.serving.colour_photos import BAD, LABELS, photo
from tests.serving.server import small_models

PATIENTS = "thal,age,oldpeak,target\nfixed,63,2.3,1\nnormal,41.0,,0\n,70,1e3,\n"
# What small_classifiers says: sigmoid((age - 50) / 10 + 2 [thal is fixed]) is the probability of disease.
DISEASE = [0.964429, 0.289051, 0.880797]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return small_classifiers.publish_all(tmp_path_factory.mktemp("models"))


@pytest.fixture
def score(tmp_path) -> Callable[..., Result]:
    """The command on files in a folder of its own, by default into scores.jsonl there."""

    def invoke(
        model: str | Path, *inputs: str | Path, output: str = "scores.jsonl", options: tuple[str, ...] = ()
    ) -> Result:
        places = [argument for place in inputs for argument in ("--input", str(place))]
        return CliRunner().invoke(main, ["score", str(model), *places, "--output", str(tmp_path / output), *options])

    return invoke


@pytest.fixture
def written(tmp_path) -> Callable[..., Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def mine(models, written) -> Callable[[str], Path]:
    """A config of the published patients that says so of its data."""

    def write(data: str) -> Path:
        return written(
            "mine.yaml",
            f"name: patients\ntask: tabular\nmodels: {Path(models['patients']).parent}\ndata: {{path: a.csv, {data}}}\n"
            "preprocessing: {label: {column: target}}\nevaluation: {at_least: {accuracy: 0.5}}\n",
        )

    return write


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def places_and_reasons(path: Path) -> list[tuple[str, int | None, str]]:
    return [(Path(row["source"]).name, row["line"], row["reason"]) for row in rows(path)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


# On the demo's model.


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """All 303 patients, and one of them with each value missing and each unseen."""
    with demo_data.fetch("hearts").open(encoding="utf-8", newline="") as file:
        patients = list(csv.DictReader(file))
    assert len(patients) == 303
    columns = [name for name in patients[0] if name != "target"]
    patients += [{**patients[0], name: ""} for name in columns]
    patients += [{**patients[0], name: "never seen" if name == "thal" else "99"} for name in columns]
    path = tmp_path_factory.mktemp("hearts") / "patients.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(patients[0]))
        writer.writeheader()
        writer.writerows(patients)
    return path, patients


@pytest.fixture(scope="module")
def scored_hearts(heart_run: HeartRun, hearts, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict]]:
    output = tmp_path_factory.mktemp("scores") / "scores.jsonl"
    arguments = ["--workdir", str(heart_run.workdir), "--input", str(hearts[0]), "--output", str(output)]
    result = CliRunner().invoke(main, ["score", str(PROJECT / "configs/heart.yaml"), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout, rows(output)


@pytest.fixture(scope="module")
def server(heart_run: HeartRun) -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"heart": str(heart_run.base_path)}, ServerOptions(rest_port=0, grpc_port=0)) as running:
        yield running


def test_every_row_has_the_answer_of_a_server(client, hearts, scored_hearts):
    path, patients = hearts
    columns = table_columns(patients, client.metadata("heart").signatures["classify"].inputs, "patients")
    answer = client.predict("heart", columns, "classify")

    _, scored = scored_hearts
    assert [(row["source"], row["line"]) for row in scored] == [(str(path), 2 + n) for n in range(len(patients))]
    assert [label for row in scored for label in row["probabilities"]] == strings(answer["labels"])
    for row, labels, probabilities in zip(scored, answer["labels"], answer["probabilities"], strict=True):
        assert row["label"] == strings(labels[0])[0]
        assert row["probability"] == pytest.approx(probabilities[0], abs=1e-6)
        assert list(row["probabilities"].values()) == pytest.approx(list(probabilities), abs=1e-6)


def test_every_row_has_the_label_that_ingraph_predict_prints(server, hearts, scored_hearts):
    arguments = ["heart", str(hearts[0]), "--json", "--port", str(server.rest_port)]
    printed = CliRunner().invoke(main, ["predict", *arguments]).stdout.splitlines()

    assert [row["label"] for row in scored_hearts[1]] == [json.loads(line)["output_0"] for line in printed]


def test_the_summary_says_which_model_scored(heart_run: HeartRun, scored_hearts):
    newest = heart_run.served_version
    provenance = json.loads((heart_run.base_path / f"{newest}/assets.extra/provenance.json").read_text())
    data, code = (provenance[f"{name}_fingerprint"][:8] for name in ("data", "code"))

    summary = scored_hearts[0].splitlines()[0]
    assert summary.startswith(
        f"scored     329 with version {newest} of {heart_run.base_path} (data {data}, code {code}), "
    )


# Inputs


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", PATIENTS),
        ("a.CSV", "\ufeff" + PATIENTS.replace("\n", "\r\n")),
        ("a.csv", PATIENTS.replace("age", " age ", 1)),
        ("a.tsv", PATIENTS.replace(",", "\t")),
        (
            "a.jsonl",
            '\n{"age": 63, "thal": "fixed", "oldpeak": 2.3}\n{"thal": "normal", "age": 41.0, "oldpeak": null, "x": 1}\n'
            '{"thal": "", "age": "70", "oldpeak": 1e3}\n',
        ),
    ],
)
@pytest.mark.parametrize("is_zipped", [False, True], ids=["plain", "gzipped"])
def test_tables_are_read_in_every_format(models, score, written, tmp_path, name, content, is_zipped):
    path = written(f"{name}.gz", gzip.compress(content.encode())) if is_zipped else written(name, content)

    result = score(models["patients"], path)

    assert result.exit_code == 0, result.output
    scored = rows(tmp_path / "scores.jsonl")
    assert [row["label"] for row in scored] == ["disease", "healthy", "disease"]
    assert [row["probabilities"]["disease"] for row in scored] == pytest.approx(DISEASE, abs=1e-6)
    assert [row["probability"] for row in scored] == [max(row["probabilities"].values()) for row in scored]
    assert [row["line"] for row in scored] == [2, 3, 4]


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.csv", "scores.parquet"])
def test_a_row_that_a_server_answers_with_unknown_is_scored_so_and_keeps_its_probabilities(
    score, written, tmp_path, name
):
    base_path = small_classifiers.publish_patients(tmp_path / "models/patients", unknown=UnknownRule("unsure", 0.8))

    result = score(base_path, written("a.csv", PATIENTS), output=name)

    assert result.exit_code == 0, result.output
    scored = {
        ".jsonl": rows,
        ".csv": lambda path: list(csv.DictReader(path.open(encoding="utf-8"))),
        ".parquet": lambda path: pq.read_table(path).to_pylist(),
    }[Path(name).suffix](tmp_path / name)
    assert [row["label"] for row in scored] == ["disease", "unsure", "disease"]
    assert scored[1]["probability"] in (None, "")
    assert float(scored[0]["probability"]) == pytest.approx(DISEASE[0], abs=1e-6)
    ranked = scored[1]["probabilities"]
    assert list(json.loads(ranked) if isinstance(ranked, str) else dict(ranked)) == ["healthy", "disease"]


def test_files_folders_and_patterns_are_read_in_order_and_a_field_may_span_lines(models, score, written, tmp_path):
    for name in ("in/b.csv", "in/a.csv", "in/.hidden.csv", "in/notes.md", "more-1.csv", "more-2.csv"):
        written(name, 'thal,age,oldpeak\n"fixed,\nor so",60,1\nfixed,60,1\n')

    result = score(models["patients"], tmp_path / "more-*.csv", tmp_path / "in")

    assert result.exit_code == 0, result.output
    expected = [(name, line) for name in ("more-1.csv", "more-2.csv", "a.csv", "b.csv") for line in (2, 4)]
    assert [(Path(row["source"]).name, row["line"]) for row in rows(tmp_path / "scores.jsonl")] == expected


def test_more_rows_than_a_batch_holds_stay_in_order_in_one_file(models, score, written, tmp_path):
    path = written("a.csv", "thal,age,oldpeak\n" + "".join(f"x,{20 + n % 60},0\n" for n in range(10_000)))

    assert score(models["patients"], path).exit_code == 0

    scored = rows(tmp_path / "scores.jsonl")
    assert [row["line"] for row in scored] == list(range(2, 10_002))
    assert [row["label"] for row in scored] == ["disease" if n % 60 >= 30 else "healthy" for n in range(10_000)]
    assert names(tmp_path) == ["a.csv", "scores.jsonl"]


def test_texts_come_a_line_each_or_from_the_column_that_the_config_names(models, score, written, tmp_path):
    lines = written("a.txt", "A good film.\nDull.\n")
    table = written("a.csv", 'review,opinion\n"Long, good",fresh\n,rotten\n')
    config = written(
        "mine.yaml",
        f"name: reviews\ntask: text\nmodels: {Path(models['reviews']).parent}\ndata: {{path: a.csv}}\n"
        "preprocessing: {column: review, label: {column: opinion}}\nevaluation: {at_least: {accuracy: 0.5}}\n",
    )

    result = score(str(config), lines, table)

    assert result.exit_code == 0, result.output
    assert [row["label"] for row in rows(tmp_path / "scores.jsonl")] == ["fresh", "rotten", "fresh", "rotten"]


def test_photos_come_from_folders_and_from_lists_and_unusable_ones_are_bad(models, score, written, tmp_path):
    written("photos/red.png", photo("red"))
    written("photos/blue.jpg", photo("blue", "JPEG"))
    written("photos/empty.gif", BAD["empty"][0])
    written("photos/text.png", BAD["text"][0])
    listed = written("list.csv", "path,label\nphotos/red.png,red\nphotos/gone.png,\n,\n")

    result = score(models["photos"], tmp_path / "photos", listed, options=("--max-bad-share", "0.6"))

    assert result.exit_code == 0, result.output
    scored = rows(tmp_path / "scores.jsonl")
    expected = [("blue.jpg", "blue"), ("red.png", "red"), ("red.png", "red")]
    assert [(Path(row["source"]).name, row["label"]) for row in scored] == expected
    assert all(row["line"] is None and row["probabilities"].keys() < set(LABELS) for row in scored)
    assert places_and_reasons(tmp_path / "scores.errors.jsonl") == [
        ("empty.gif", None, BAD["empty"][1]),
        ("text.png", None, BAD["text"][1]),
        ("list.csv", 4, "path is empty"),
        ("gone.png", None, "the file cannot be read: No such file or directory"),
    ]


# What cannot be scored


def test_broken_lines_of_a_csv_cost_one_line_each(models, score, written, tmp_path):
    path = written(
        "a.csv",
        b"thal,age,oldpeak\nfixed,63,1\nfixed,sixty,1\nfixed,60\nfixed,60,1,2\nfix\xe9d,60,1\n\n"
        b'"fixed,60,1\nnormal,30,1\n"x"y,60,1\nfixed,99999999999999999999,1\nfixed,60.5,1\nnormal,31,1\n"fixed,32,1\n'
        b"normal,33,1\n",
    )

    result = score(models["patients"], path)

    assert result.exit_code == 2
    assert [row["line"] for row in rows(tmp_path / "scores.jsonl")] == [2, 9, 13, 15]
    found = places_and_reasons(tmp_path / "scores.errors.jsonl")
    assert [line for _, line, _ in found] == [3, 4, 5, 6, 8, 10, 11, 12, 14]
    reasons = {line: reason for _, line, reason in found}
    assert reasons[3] == "column age: expected int64, received 'sixty'"
    assert reasons[4] == "2 fields, the header has 3"
    assert reasons[5] == "4 fields, the header has 3"
    assert reasons[6] == "not UTF-8 (byte 4 is 0xe9)"
    assert reasons[12] == "column age: expected int64, received '60.5'"
    assert reasons[14] == "a quote opens a field and none closes it"
    assert "column age: input 'age' must be a regular array of int64" in reasons[11]
    assert "69.23% is bad, more than --max-bad-share 1.00%" in result.output
    assert "the first: " + str(path) + ":3: column age: expected int64, received 'sixty'" in result.output


def test_broken_lines_of_json_are_told_with_their_reason(models, score, written, tmp_path):
    good = '{"thal": "x", "age": 1, "oldpeak": 1}\n'
    path = written("a.jsonl", good + '{"thal"\n[1]\n{"thal": "x", "age": 1}\n' + good.replace("1,", "[1],") + good)

    assert score(models["patients"], path).exit_code == 2

    assert [row["line"] for row in rows(tmp_path / "scores.jsonl")] == [1, 6]
    (_, two, broken), *others = places_and_reasons(tmp_path / "scores.errors.jsonl")
    assert two == 2 and broken.startswith("not valid JSON: ")
    assert others == [
        ("a.jsonl", 3, "no JSON object"),
        ("a.jsonl", 4, "lacks oldpeak; write null where a value is missing"),
        ("a.jsonl", 5, "column age: expected int64, received '[1]'"),
    ]


def test_a_share_of_bad_rows_is_allowed_and_a_file_of_errors_goes_away_with_them(models, score, written, tmp_path):
    path = written("a.csv", PATIENTS + "fixed,x,1,\n")
    for share, status in (("0.25", 0), ("0.24", 2)):
        assert score(models["patients"], path, options=("--max-bad-share", share)).exit_code == status
        assert len(rows(tmp_path / "scores.jsonl")) == 3
        assert len(rows(tmp_path / "scores.errors.jsonl")) == 1

    path.write_text(PATIENTS)
    assert score(models["patients"], path).exit_code == 0
    assert names(tmp_path) == ["a.csv", "scores.jsonl"]


def test_where_every_row_is_bad_the_output_is_empty(models, score, written, tmp_path):
    result = score(models["patients"], written("a.csv", "thal,age,oldpeak\nfixed,x,1\n"), output="scores.csv")

    assert result.exit_code == 2
    assert (tmp_path / "scores.csv").read_text() == "source,line,label,probability,probabilities\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("b.csv", b"thal,age\nx,1\n", "b.csv:1: the header lacks oldpeak; the model takes"),
        ("b.csv", b"thal;age;oldpeak\nx;1;1\n", "b.csv:1: the header is one column, with ';' in it; expected ','"),
        ("b.csv", b"thal,age,age,oldpeak\nx,1,1,1\n", "b.csv:1: the header names age more than once"),
        (
            "b.csv.gz",
            gzip.compress(PATIENTS.encode() * 99, mtime=0)[:-20],
            "b.csv.gz: the file cannot be read: the gzip file is",
        ),
        ("b.parquet", b"PAR1 no more", "b.parquet: the file cannot be read: Parquet magic bytes not found"),
        ("b.parquet", b"", "b.parquet: the file cannot be read: Parquet file size is 0 bytes"),
        ("b.parquet", parquet(thal=["x"], age=[1]), "b.parquet: the header lacks oldpeak; the model takes"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_what_was_there(models, score, written, tmp_path, name, content, reason):
    written("scores.jsonl", "of yesterday")

    result = score(models["patients"], written("a.csv", PATIENTS), written(name, content))

    assert result.exit_code == 2
    assert reason in result.output and "nothing was written" in result.output
    assert (tmp_path / "scores.jsonl").read_text() == "of yesterday"
    assert names(tmp_path) == ["a.csv", name, "scores.jsonl"]


def test_what_cannot_be_used_is_told_before_anything_is_written(models, score, written, tmp_path):
    path = written("a.jsonl", '{"thal": "x", "age": 1, "oldpeak": 1}\n')
    empty = written("empty.csv", "")

    def refusal(model: str, place: Path, **given: Any) -> str:
        result = score(model, place, **given)
        assert result.exit_code == 2
        return result.output

    assert "expected a file name that ends with .jsonl, .csv, .parquet" in refusal(models["patients"], path, output="a")
    assert "is an input and the output" in refusal(models["patients"], path, output="a.jsonl")
    assert "is an input and the output" in refusal(models["patients"], path, output=f"../{tmp_path.name}/a.jsonl")
    assert "gone.csv: no such file" in refusal(models["patients"], tmp_path / "gone.csv")
    assert "there are no rows" in refusal(models["patients"], empty)
    assert "no published version there" in refusal(str(tmp_path / "nothing"), path)
    assert "there is no version 7, it has 1" in refusal(models["patients"], path, options=("--version", "7"))
    assert "only a config has keys to override" in refusal(models["patients"], path, options=("--set", "name=x"))
    assert "gone.yaml: no such config file" in refusal(str(tmp_path / "gone.yaml"), path)
    assert names(tmp_path) == ["a.jsonl", "empty.csv"]


# Outputs


def test_every_output_format_holds_the_same(models, score, written, tmp_path):
    path = written("a.csv", PATIENTS)
    for output in ("scores.jsonl", "scores.csv", "scores.parquet"):
        assert score(models["patients"], path, output=output).exit_code == 0

    expected = rows(tmp_path / "scores.jsonl")
    parquet = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    with (tmp_path / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row, from_parquet, from_csv in zip(expected, parquet, table, strict=True):
        assert from_csv == {name: str(row[name]) for name in ("source", "line", "label", "probability")} | {
            "probabilities": json.dumps(row["probabilities"], separators=(",", ":"))
        }
        assert {name: from_parquet[name] for name in ("source", "line", "label")} == {
            name: row[name] for name in ("source", "line", "label")
        }
        assert from_parquet["probability"] == pytest.approx(row["probability"], abs=1e-7)
        assert [label for label, _ in from_parquet["probabilities"]] == list(row["probabilities"])
        assert dict(from_parquet["probabilities"]) == pytest.approx(row["probabilities"], abs=1e-7)


def test_several_workers_write_numbered_files_with_the_same_rows(models, mine, written, score, tmp_path):
    path = written("a.csv", "thal,age,oldpeak\n" + "".join(f"x,{20 + n % 60},0\n" for n in range(20_000)))
    result = score(mine("strip: true"), path, options=("--set", "beam.options.direct_num_workers=2"))

    assert result.exit_code == 0, result.output
    files = ["scores-00000-of-00002.jsonl", "scores-00001-of-00002.jsonl"]
    assert names(tmp_path) == ["a.csv", "mine.yaml", *files]
    together = [row for name in files for row in rows(tmp_path / name)]

    assert score(models["patients"], path).exit_code == 0
    assert names(tmp_path) == ["a.csv", "mine.yaml", "scores.jsonl"]
    assert sorted(together, key=lambda row: row["line"]) == rows(tmp_path / "scores.jsonl")


def test_an_object_store_is_read_and_written_and_left_tidy(models, tmp_path, monkeypatch):
    monkeypatch.setattr(FlatObjectStore, "root", tmp_path, raising=False)
    before = ["flat://in/a.csv", "flat://in/deep/b.csv.gz", "flat://out/scores-00001-of-00002.csv", "flat://out/x.csv"]
    contents = [PATIENTS.encode(), gzip.compress(PATIENTS.encode() + b"x,y,\n"), b"", b""]
    for name, content in zip(before, contents, strict=True):
        FlatObjectStore.file(name).write_bytes(content)

    def score(place: str) -> Result:
        arguments = ["--input", place, "--output", "flat://out/scores.csv", "--max-bad-share", "0.2"]
        return CliRunner().invoke(main, ["score", models["patients"], *arguments])

    assert score("flat://in").exit_code == 0
    left = ["flat://out/scores.csv", "flat://out/scores.errors.jsonl", "flat://out/x.csv"]
    assert FlatObjectStore.names() == [*before[:2], *left]
    with FlatObjectStore.file(left[0]).open(newline="") as file:
        scored = [(row["source"], row["line"]) for row in csv.DictReader(file)]
    assert scored == [(name, line) for name in before[:2] for line in "234"]
    assert [row["source"] for row in rows(FlatObjectStore.file(left[1]))] == [before[1]]

    assert score("flat://in/*.csv").exit_code == 0  # without the file of errors, since nothing is bad
    assert FlatObjectStore.names() == [*before[:2], left[0], left[2]]
    assert "flat://elsewhere: no such file" in score("flat://elsewhere").output
    assert "unknown://a: the files cannot be listed" in score("unknown://a").output


# Models


def test_another_version_scores_where_it_is_named_and_a_withdrawn_one_does_not(score, written, tmp_path):
    folder = tmp_path / "models"
    base_path = small_classifiers.publish_patients(folder / "patients")
    shutil.rmtree(folder / "patients-export")
    small_classifiers.publish_patients(folder / "patients", build="2")
    path = written("a.csv", PATIENTS)

    for options, version in (((), 2), (("--version", "1"), 1)):
        result = score(base_path, path, options=options)
        assert f"with version {version} of {base_path} (data data, code {version})" in result.output
    withdraw(base_path, 1)
    refused = score(base_path, path, options=("--version", "1"))
    assert refused.exit_code == 2 and f"`ingraph models restore {base_path} 1`" in refused.output


def test_a_model_that_cannot_be_loaded_leaves_nothing(models, score, written, tmp_path):
    base_path = tmp_path / "damaged"
    shutil.copytree(models["patients"], base_path)
    shutil.rmtree(base_path / "1/assets")

    result = score(str(base_path), written("a.csv", PATIENTS))

    assert result.exit_code == 1
    assert names(tmp_path) == ["a.csv", "damaged"]


def test_a_model_without_classify_gives_labels_alone(score, written, tmp_path):
    base_path = small_models.save_all(tmp_path / "models")["patients"]

    result = score(base_path, written("a.csv", "thal,age,oldpeak\nfixed,63,2.5\n"))

    assert result.exit_code == 0, result.output
    (row,) = rows(tmp_path / "scores.jsonl")
    assert (row["label"], row["probability"], row["probabilities"]) == ("63|2.5|fixed", None, {})


# Reading by columns

SPREADSHEET = 'delimiter: ";", decimal: ",", thousands: ".", missing: ["?", none], encoding: cp1252'
PATIENTS_OF_A_SPREADSHEET = "Größe;thal;age;oldpeak\n1;fixed;63;2,3\n1.000,5;normal;41;?\n€;none;70;1.000,0\n"


@pytest.mark.parametrize(
    ("data", "name", "content"),
    [
        (SPREADSHEET, "a.csv", PATIENTS_OF_A_SPREADSHEET.encode("cp1252")),
        (SPREADSHEET, "a.csv", PATIENTS_OF_A_SPREADSHEET.replace("fixed;63", '"fixed";" 63"').encode("cp1252")),
        (SPREADSHEET, "a.csv", (PATIENTS_OF_A_SPREADSHEET + "\n").encode("cp1252")),  # a blank line: row by row
        (
            SPREADSHEET,
            "a.parquet",
            parquet(
                thal=pa.array(["fixed", "normal", "?"]).dictionary_encode(), age=["63", "41", "70"], oldpeak=["?"] * 3
            ),
        ),
        (
            SPREADSHEET,
            "a.jsonl",
            '{"thal": "fixed", "age": 63, "oldpeak": 2.3}\n{"thal": "normal", "age": "41", "oldpeak": "?"}\n'
            '{"thal": " none", "age": "70", "oldpeak": "1.5", "é": "é"}\n'.encode("cp1252"),
        ),
        ("header: [oldpeak, thal, age], format: csv", "a.data", b"2.3,fixed,63\n,normal,41\n1,,70\n"),
        ("delimiter: '|', strip: false", "a.tsv", b"thal|age|oldpeak\nfixed|63|2.3\nnormal|41|\n|70|1\n"),
    ],
)
def test_files_are_read_as_a_config_says_that_those_learned_from_are(
    score, mine, written, tmp_path, data, name, content
):
    result = score(mine(data), written(name, content))

    assert result.exit_code == 0, result.output
    scored = rows(tmp_path / "scores.jsonl")
    assert [row["probabilities"]["disease"] for row in scored] == pytest.approx(DISEASE, abs=1e-6)


def test_numbers_that_are_none_by_the_config_are_told_with_what_it_says(score, mine, written, tmp_path):
    path = written("a.csv", "thal;age;oldpeak\nx;63;2.3\nx;1.0;1\nx;60;1.00\nx;1.000;x\nx;60;-1.000,5\n")

    assert score(mine('delimiter: ";", decimal: ",", thousands: "."'), path).exit_code == 2

    assert [row["line"] for row in rows(tmp_path / "scores.jsonl")] == [6]
    told = "is no number by data.decimal ',' and data.thousands '.'"
    cells = [(2, "oldpeak", "2.3"), (3, "age", "1.0"), (4, "oldpeak", "1.00"), (5, "oldpeak", "x")]
    expected = [("a.csv", line, f"column {column}: {cell!r} {told}") for line, column, cell in cells]
    assert places_and_reasons(tmp_path / "scores.errors.jsonl") == expected

    assert score(mine("decimal: ','"), written("a.csv", 'thal,age,oldpeak\nx,63,"2,3"\nx,63,2.3\n')).exit_code == 2

    assert places_and_reasons(tmp_path / "scores.errors.jsonl") == [
        ("a.csv", 3, "column oldpeak: '2.3' is no number by data.decimal ',' and data.thousands None")
    ]


def test_a_parquet_file_has_the_answers_of_a_csv_file_with_the_same_rows(models, score, written, tmp_path):
    table = pd.read_csv(io.StringIO(PATIENTS * 3 + "normal,52,0.25,1\n"), skiprows=[4, 8])
    assert table["age"].dtype == float and table["oldpeak"].isna().any() and table["thal"].isna().any()
    written("a.csv", PATIENTS + "".join(PATIENTS.partition("\n")[2] for _ in range(2)) + "normal,52,0.25,1\n")
    table.to_parquet(tmp_path / "a.parquet")
    table.assign(thal=table["thal"].astype("category")).to_parquet(tmp_path / "b.parquet")

    for name in ("a.csv", "a.parquet", "b.parquet"):
        assert score(models["patients"], tmp_path / name, output=f"{name}.jsonl").exit_code == 0

    expected = rows(tmp_path / "a.csv.jsonl")
    assert len(expected) == 10
    for name in ("a.parquet", "b.parquet"):
        found = rows(tmp_path / f"{name}.jsonl")
        assert [row["line"] for row in found] == list(range(1, 11))
        for row, one in zip(found, expected, strict=True):
            assert (row["label"], row["probabilities"]) == (one["label"], one["probabilities"])


def test_values_of_parquet_that_are_none_of_a_column_cost_their_row(models, score, written, tmp_path):
    ages = pa.array([63.0, 63.5, None, 1e30, float("nan")])
    path = written("a.parquet", parquet(thal=["fixed"] * 5, age=ages, oldpeak=[1, 2, 3, 4, 5]))

    assert score(models["patients"], path).exit_code == 2

    assert [row["line"] for row in rows(tmp_path / "scores.jsonl")] == [1, 3, 5]
    assert places_and_reasons(tmp_path / "scores.errors.jsonl") == [
        ("a.parquet", 2, "column age: expected int64, received '63.5'"),
        ("a.parquet", 4, "column age: input 'age' must be a regular array of int64: object is no int64"),
    ]


def test_a_row_on_which_the_model_fails_costs_itself_alone(score, written, tmp_path):
    base_path = small_models.save_all(tmp_path / "models")["patients"]

    class Failing:  # on batches with the age 13
        def run(self, signature, inputs, outputs):
            if (inputs["age"] == 13).any():
                raise tf.errors.InvalidArgumentError(None, None, "no thirteen\nat all")
            return {name: np.array([b"fine"] * len(inputs["age"])) for name in outputs}

    model = find_model(base_path)
    columns = {"thal": pa.array(["x"] * 7), "age": pa.array([1, 13, 2, 3, 13, 4, 5]), "oldpeak": pa.array([0.5] * 7)}

    predictions, bad = scored(Failing(), model, Batch.of_rows("a.csv", range(2, 9), columns))

    assert [line for each in predictions for line in each.lines.to_pylist()] == [2, 4, 5, 7, 8]
    assert [(item.line, item.reason) for item in bad] == [(3, "no thirteen"), (6, "no thirteen")]
