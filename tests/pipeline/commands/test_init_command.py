"""`ingraph init`, and what it finds in data."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.cli import main
from pipeline.commands.init import config_name, look_at_table
from pipeline.config import load_config
from pipeline.data import check_table, table_data


def ingraph_init(folder: Path, *arguments: str) -> Result:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(main, ["init", *arguments])
    finally:
        os.chdir(before)


@pytest.fixture
def customers() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    count = 400
    return pd.DataFrame(
        {
            "customer_id": [f"C{number:05d}" for number in range(count)],
            "row": range(1_000, 1_000 + count),
            "joined": [f"2026-{1 + day % 12:02d}-{1 + day % 28:02d}" for day in range(count)],
            "income": chance.lognormal(3, 2, count).round(2),
            "visits": chance.poisson(40, count),
            "plan": chance.integers(1, 6, count),
            "active": chance.choice(["yes", "no"], count),
            "note": [f"they wrote {number} letters about the price of {number * 7}" for number in range(count)],
            "city": chance.choice(["Rome", "Oslo", "?"], count),
            "age": chance.choice(["41", "35", "?", "Unknown"], count),
            "churn": chance.choice(["stays", "leaves"], count),
        }
    )


def test_a_table_becomes_a_config_that_says_what_was_found(tmp_path, customers):
    customers.to_csv(tmp_path / "customers.csv", index=False, sep=";", decimal=",", encoding="latin-1")
    result = ingraph_init(tmp_path, "customers.csv", "--label", "churn")

    assert result.exit_code == 0, result.output
    file = tmp_path / "customers.yaml"
    written = file.read_text()
    assert len(written.splitlines()) <= 10
    assert result.output.startswith(written)
    assert "next:\n  ingraph run customers.yaml" in result.output
    config = load_config(str(file))
    assert config.task == "tabular"
    assert config.preprocessing.label.column == "churn"
    assert (config.data.delimiter, config.data.decimal, config.data.missing) == (";", ",", ("?", "Unknown"))
    assert {name: column.kind for name, column in config.preprocessing.columns.items()} == {
        "customer_id": "ignored",
        "row": "ignored",
        "joined": "datetime",
        "income": "log",
        "plan": "categorical",
        "active": "boolean",
        "note": "text",
    }


def test_cells_of_several_categories_are_lists_with_their_separator_and_others_are_not(tmp_path):
    chance = np.random.default_rng(0)
    words = ["red", "blue", "dark green", "grey", "black", "white", "pink"]

    def cells(separator: str) -> list[str]:
        return [separator.join(chance.permutation(words)[: chance.integers(1, 5)]) for _ in range(400)]

    first, last = (chance.permutation([f"{part}{number}" for number in range(400)]) for part in ("Anna", "Smith"))
    pd.DataFrame(
        {
            "pipes": cells("|"),
            "semicolons": cells(";"),
            "commas": cells(", "),
            "names": [f"{a}, {b}" for a, b in zip(last, first, strict=True)],
            "amounts": [f"{whole},{part:02d}" for whole, part in chance.integers(0, 20, [400, 2])],
            "pairs": chance.choice(["a|b", "b|c", "c"], 400),
            "label": chance.choice(["a", "b"], 400),
        }
    ).to_csv(tmp_path / "shop.csv", index=False)
    assert ingraph_init(tmp_path, "shop.csv", "--label", "label").exit_code == 0
    config = load_config(str(tmp_path / "shop.yaml"))
    columns = config.preprocessing.columns
    assert {name: column.separator for name, column in columns.items() if column.kind == "list"} == {
        "pipes": "|",
        "semicolons": ";",
        "commas": ",",
    }
    assert not {"names", "amounts", "pairs"} & {name for name, column in columns.items() if column.kind != "ignored"}
    # A run that is not told finds the same.
    bare = tmp_path / "bare.yaml"
    bare.write_text(
        "name: shop\ntask: tabular\ndata: {path: shop.csv}\npreprocessing: {label: {column: label}}\n"
        "evaluation: {at_least: {auc: 0.6}}\n"
    )
    plain = load_config(str(bare))
    data = table_data(plain, str(tmp_path / "shop.csv"))
    assert "list: pipes; list with ';': semicolons; list with ',': commas" in data.findings
    found = plain.with_kinds(data.kinds).preprocessing.columns
    assert found["commas"] == columns["commas"] and found["commas"].separator == ","


def test_the_kinds_of_very_many_columns_are_counted_and_left_to_the_run(tmp_path):
    names = [f"c{number}" for number in range(60)]
    frame = pd.DataFrame({name: [number % 5 for number in range(200)] for name in names})
    frame.assign(income=np.geomspace(1, 1e30, 200), label=["a", "b"] * 100).to_csv(tmp_path / "a.csv", index=False)
    assert ingraph_init(tmp_path, "a.csv", "--label", "label").exit_code == 0
    text = (tmp_path / "a.yaml").read_text()
    assert "  # columns: 60 categorical, 1 log as the data show it; name those that shall be otherwise" in text
    config = load_config(str(tmp_path / "a.yaml"))
    findings = check_table({"all": str(tmp_path / "a.csv")}, config)
    assert [choice.kind for choice in findings.choices.values()] == ["categorical"] * 60 + ["log"]
    assert f"taken as categorical: {', '.join(names[:12])}, 48 more; log: income" in str(findings)


def test_other_encodings_are_found(tmp_path):
    (tmp_path / "a.csv").write_bytes("ort,label\nKöln,a\nBonn,b\n".encode("latin-1"))
    assert ingraph_init(tmp_path, "a.csv", "--label", "label").exit_code == 0
    assert load_config(str(tmp_path / "a.yaml")).data.encoding == "cp1252"


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv.gz"])
def test_texts_become_a_config_of_texts(tmp_path, ending):
    frame = pd.DataFrame(
        {"said": [f"this is the sentence number {n} of all" for n in range(90)], "mood": ["good", "bad"] * 45}
    )
    path = tmp_path / f"said.{ending}"
    {"parquet": frame.to_parquet, "jsonl": lambda p: frame.to_json(p, orient="records", lines=True)}.get(
        ending, lambda p: frame.to_csv(p, index=False)
    )(path)
    assert ingraph_init(tmp_path, path.name, "--label", "mood").exit_code == 0
    config = load_config(str(tmp_path / "said.yaml"))
    assert (config.task, config.preprocessing.column, config.preprocessing.label.column) == ("text", "said", "mood")


def test_sentences_without_spaces_become_a_config_of_texts_and_codes_do_not(tmp_path):
    for name, column in (("said", [f"{n}番目の文章です" for n in range(60)]), ("codes", [f"A{n}" for n in range(60)])):
        frame = pd.DataFrame({"x": column, "mood": ["good", "bad"] * 30})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        assert ingraph_init(tmp_path, f"{name}.csv", "--label", "mood").exit_code == 0
    assert [load_config(str(tmp_path / f"{name}.yaml")).task for name in ("said", "codes")] == ["text", "tabular"]


def test_a_folder_of_photos_becomes_a_config_of_images(tmp_path):
    for name in ("rose/1.png", "tulip/2.png", "tulip/3.png"):
        path = tmp_path / "flowers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    result = ingraph_init(tmp_path, "flowers")
    assert result.exit_code == 0, result.output
    assert "3 photos of 2 classes" in result.output
    assert load_config(str(tmp_path / "flowers.yaml")).task == "image"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.csv", "--label", "wrong"], "there is no column 'wrong'; the columns are 'x', 'y', 'label'"),
        (["a.csv", "--label", "x"], "the column 'x' is no label: expected 2 to 100 different values"),
        (["a.csv"], "which column is the label? --label names it; it may be label"),
        (["none.csv", "--label", "x"], "none.csv: no such file"),
        (["empty.csv", "--label", "x"], "empty.csv: the file is empty"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, arguments, sentence):
    (tmp_path / "a.csv").write_text("x,y,label\n" + "".join(f"{n},{n / 3},{n % 2}\n" for n in range(200)))
    (tmp_path / "empty.csv").touch()
    result = ingraph_init(tmp_path, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_a_file_without_a_header_is_told_and_gets_one(tmp_path):
    lines = [f"{n},{n / 3:.2f},{'ab'[n % 2]}\n" for n in range(200, 400)]
    (tmp_path / "a.csv").write_text("".join(lines))
    told = ingraph_init(tmp_path, "a.csv", "--label", "a")
    assert told.exit_code == 0
    assert "warning: a.csv: the first line seems to be a row, for it has '200'; if the file has no" in told.stderr
    (tmp_path / "a.yaml").unlink()

    named = ingraph_init(tmp_path, "a.csv", "--header", "x, y,label", "--label", "label")
    assert (named.exit_code, named.stderr) == (0, "")
    assert "# 200 rows, 3 columns; 2 classes." in named.output
    assert load_config(str(tmp_path / "a.yaml")).data.header == ("x", "y", "label")
    twice = ingraph_init(tmp_path, "a.csv", "--header", "x,x,label", "--label", "label", "--name", "b")
    assert (twice.exit_code, twice.stderr) == (2, "Error: --header names a column more than once: x,x,label\n")


def test_a_config_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n1,a\n2,b\n")
    (tmp_path / "a.yaml").write_text("mine")
    result = ingraph_init(tmp_path, "a.csv", "--label", "label")
    assert (result.exit_code, (tmp_path / "a.yaml").read_text()) == (2, "mine")
    assert "a.yaml: there is such a file already" in result.stderr


def test_labels_are_proposed_by_their_names_and_by_few_values(tmp_path):
    (tmp_path / "a.csv").write_text(
        "sex,grade,Target,id\n" + "".join(f"{n % 2},{n % 5},{n % 3},{n}\n" for n in range(200))
    )
    assert look_at_table(str(tmp_path / "a.csv")).label_candidates() == ["Target", "sex", "grade"]


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b c.csv.gz", "b-c"), ("photos/", "photos"), ("übung.parquet", "bung"), ("...", "model")]
)
def test_names_are_made_of_file_names(path, name):
    assert config_name(path) == name
