"""What tables hold: counted, and compared with the config."""

from pathlib import Path

import pyarrow as pa
import pytest

from components.errors import BrokenInput
from components.table_example_gen.facts import choice_of_terms, listed
from pipeline.config import load_config
from pipeline.data import check_table, fullest_row, input_patterns, table_data, table_inputs
from pipeline.options import TableRunConfig

CONFIG = """
name: reviews
task: text
data: {path: %s}
preprocessing: {column: review, label: {column: opinion}}
evaluation: {at_least: {accuracy: 0.5}}
"""


def config_of(path: Path, *settings: str) -> TableRunConfig:
    file = path.with_name("config.yaml")
    file.write_text(CONFIG % path.name, encoding="utf-8")
    config = load_config(str(file), settings)
    assert isinstance(config, TableRunConfig)
    return config


def written(folder: Path, content: str | bytes, name: str = "reviews.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.json",
            '{"review": "good, really", "opinion": "fresh"}\n{"opinion": "rotten"}\n'
            '{"review": "  ", "opinion": "rotten"}\n'
            '{"review": "good, really", "opinion": "fresh"}\n{"review": "bad"}\n',
        ),
        ("a.csv", 'review,opinion\n"good, really",fresh\n,rotten\n  ,rotten\n"good, really",fresh\nbad,\n'),
        ("a.tsv", "review\topinion\ngood, really\tfresh\n\trotten\n  \trotten\ngood, really\tfresh\nbad\t\n"),
        (
            "a.jsonl",
            '{"review": "good, really", "opinion": "fresh"}\n{"review": null, "opinion": "rotten"}\n'
            '{"review": "  ", "opinion": "rotten"}\n'
            '{"opinion": "fresh", "review": "good, really"}\n{"review": "bad"}\n',
        ),
    ],
)
def test_rows_duplicates_and_empty_texts_are_counted(tmp_path, name, content):
    path = written(tmp_path, content, name)
    findings = check_table({"all": str(path)}, config_of(path))
    assert (findings.rows, findings.duplicates, findings.empty) == (5, 1, {"review": 2, "opinion": 1})
    assert str(findings) == (
        "5 rows, 1 repeat an earlier one, 'review' is empty in 2, 'opinion' is empty in 1; "
        "terms: words and characters, for a text has 1.7 words in the mean "
        "(preprocessing.word_ngrams and character_ngrams decide otherwise)"
    )


@pytest.mark.parametrize(
    ("texts", "kind", "said"),
    [
        (["これはとても良い映画です", "もう見たくない"], "characters", "100% of the characters are of scripts"),
        (["这部电影很好看。", "服务太差了。"], "characters", "86% of the"),
        (["หนังเรื่องนี้ดีมาก"], "characters", "100%"),
        (["die neue 映画 ist gut und schön"], "words", "7 words"),
        (["新しいiPhone買った, so happy"], "words_and_characters", "30%"),
        (["الفيلم رائع جدا", "यह फिल्म बहुत अच्छी है"], "words", "4 words"),
        (["😀😀", "😢"], "words_and_characters", "1.0 words"),
        (["", " "], "words_and_characters", "0.0 words"),
    ],
)
def test_terms_follow_from_scripts_and_words(texts, kind, said):
    choice = choice_of_terms(texts)
    assert choice.kind == kind and said in choice.reason


def test_what_a_config_says_of_terms_comes_before_what_the_texts_say(tmp_path):
    path = written(tmp_path, "review,opinion\nとても良い映画です,fresh\n,rotten\n")
    for settings, expected in (
        ([], (0, (1, 4))),
        (["preprocessing.word_ngrams=1"], (1, (3, 5))),
        (["trainer={model: encoder}"], (0, (1, 1))),
    ):
        config = config_of(path, *settings)
        found = table_data(config, str(path))
        chosen = config.with_kinds(found.kinds).preprocessing
        assert (chosen.word_ngrams, chosen.character_ngrams) == expected
        assert ("terms: characters" in found.findings) == (settings != ["preprocessing.word_ngrams=1"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,opinion\na,b\n", "no column 'review', which preprocessing.column in the config names"),
        ("review,label\na,b\n", "no column 'opinion', which preprocessing.label.column in the config names"),
        (b"review,opinion\nfine,fresh\ncaf\xe9,fresh\n", r"line 3 is not UTF-8 \(byte 4 is 0xe9\)"),
        ("review,opinion\n", "has a header and no rows"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(tmp_path, content, sentence):
    path = written(tmp_path, content)
    with pytest.raises(BrokenInput, match=sentence):
        check_table({"all": str(path)}, config_of(path))


def test_a_slice_of_a_column_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path, "review,opinion\na,b\n")
    with pytest.raises(BrokenInput, match=r"no column 'country', which evaluation\.slices in the config names"):
        check_table({"all": str(path)}, config_of(path, "evaluation.slices=[[opinion], [country]]"))


def test_the_first_row_without_gaps_is_taken_as_people_write_it(tmp_path):
    rows = 'zero,,3,\r\n"one\r\ntwo ""three""\nfour",rotten,05,\r\nfive,rotten,1,\r\n'
    path = written(tmp_path, f"\ufeffreview,opinion,stars,note\r\n{rows}")
    config = config_of(path)
    row = fullest_row(table_inputs(config, str(path)), config.ingestion())
    assert row == {"review": 'one\r\ntwo "three"\nfour', "opinion": "rotten", "stars": "05", "note": ""}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"all": "/data/a.csv"}, ("/data", {"all": "a.csv"})),
        ({"all": "/data/a.csv\n/data/b/c.csv"}, ("/data", {"all": "a.csv", "all-1": "b/c.csv"})),
        ({"all": "/data/day-*/x.csv"}, ("/data", {"all": "day-*/x.csv"})),
        ({"train": "gs://b/t/*.csv", "eval": "gs://b/e.csv"}, ("gs://b", {"train": "t/*.csv", "eval": "e.csv"})),
    ],
)
def test_the_pipeline_is_told_a_folder_and_the_patterns_below_it(monkeypatch, paths, expected):
    monkeypatch.setattr("pipeline.data._is_folder", lambda path: False)  # nothing here reaches an object store
    assert input_patterns(paths) == expected


def test_a_folder_means_all_its_tables(tmp_path):
    (tmp_path / "in").mkdir()
    assert input_patterns({"all": str(tmp_path / "in")}) == (str(tmp_path / "in"), {"all": "*"})
    both = {"train": str(tmp_path / "in"), "eval": str(tmp_path / "held-out.csv")}
    assert input_patterns(both) == (str(tmp_path), {"train": "in/*", "eval": "held-out.csv"})


TABLE_CONFIG = """
name: people
task: tabular
data: {path: people.csv}
preprocessing: {label: {column: label}}
evaluation: {at_least: {accuracy: 0.5}}
"""


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (["1", "0.5", "-2", "1"], "row 3 of those read here: the weight 'w' is -2, expected a number of at least 0"),
        (["1", "", "2", "1"], "row 2 of those read here: the weight 'w' is missing"),
        (["1", "inf", "2", "1"], "row 2 of those read here: the weight 'w' is inf"),
        (["1", "heavy", "2", "1"], r"line 3: column 'w' is 'heavy', expected a number \(data.weight in the config"),
        (["0", "0", "0", "0"], "column 'w' is 0 in all rows, so that none of them counts"),
    ],
)
def test_a_weight_that_cannot_be_used_is_named_with_its_row(tmp_path, weights, sentence):
    rows = [f"{number},{'ab'[number % 2]},{weight}" for number, weight in enumerate(weights)]
    path = written(tmp_path, "\n".join(["age,label,w", *rows, ""]), "people.csv")
    (tmp_path / "config.yaml").write_text(TABLE_CONFIG)
    config = load_config(str(tmp_path / "config.yaml"), ["data.weight=w"])
    assert isinstance(config, TableRunConfig) and "w" in config.preprocessing.ignored_columns()
    with pytest.raises(BrokenInput, match=sentence):
        check_table({"all": str(path)}, config)
    path.write_text("\n".join(["age,label", *(row.rpartition(",")[0] for row in rows), ""]))
    with pytest.raises(BrokenInput, match=r"no column 'w', which data\.weight in the config names"):
        check_table({"all": str(path)}, config)


def test_a_text_far_down_a_column_of_numbers_is_named_with_its_line(tmp_path):
    lines = [f"{number},{number % 7},{'ab'[number % 2]}" for number in range(70_000)]
    lines[65_000] = "65000,unknown,a"
    path = written(tmp_path, "\n".join(["number,age,label", *lines]), "people.csv")
    (tmp_path / "config.yaml").write_text(TABLE_CONFIG)
    config = load_config(str(tmp_path / "config.yaml"))
    assert isinstance(config, TableRunConfig)
    findings = check_table({"all": str(path)}, config)
    assert findings.columns["age"] == pa.binary()
    (warning,) = [warning for warning in findings.warnings if "line" in warning]
    assert warning.startswith(f"{path}: line 65002: column 'age' is 'unknown', expected a number (nearly all")
    assert warning.endswith("or list it in data.missing")
    settings = ["data.missing=[unknown]"]
    config = load_config(str(tmp_path / "config.yaml"), settings)
    assert isinstance(config, TableRunConfig)
    mended = check_table({"all": str(path)}, config)
    assert mended.columns["age"] == pa.int64()
    assert [warning for warning in mended.warnings if "line" in warning] == []
    # An identifier that numbers the rows is left out, and said so.
    assert [warning for warning in mended.warnings if "'number'" in warning] == [
        "the column 'number' is left out: every value is different, as in an identifier; "
        "`preprocessing.columns: {number: …}` takes it in"
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (range(50), ["50 different values in 50 rows"]),
        ([f"{number / 7:.3f}" for number in range(50)], ["50 different values in 50 rows"]),
        ([number % 21 for number in range(90)], ["21 different values in 90 rows"]),
        ([number % 21 for number in range(105)], []),
        ([number % 20 for number in range(40)], []),
    ],
)
def test_a_label_that_hardly_any_rows_share_is_told(tmp_path, labels, said):
    path = written(tmp_path, "\n".join(["age,label", *(f"{label},{label}" for label in labels)]), "people.csv")
    (tmp_path / "config.yaml").write_text(TABLE_CONFIG)
    config = load_config(str(tmp_path / "config.yaml"))
    assert isinstance(config, TableRunConfig)
    warnings = [warning for warning in check_table({"all": str(path)}, config).warnings if "label column" in warning]
    wanted = [f"the label column 'label' has {one}" for one in said]
    assert [warning.partition(",")[0] for warning in warnings] == wanted


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("id", True), ("Cust.Id", True), ("CustomerId", True), ("patient_ID", True), ("paid", False), ("amount", False)],
)
def test_numbers_that_all_differ_are_an_identifier_where_their_name_says_so(tmp_path, name, left_out):
    lines = [f"{1_000_003 * number},{'ab'[number % 2]}" for number in range(1, 100)]
    path = written(tmp_path, "\n".join([f"{name},label", *lines]), "people.csv")
    (tmp_path / "config.yaml").write_text(TABLE_CONFIG)
    config = load_config(str(tmp_path / "config.yaml"))
    assert isinstance(config, TableRunConfig)
    kinds = {column: choice.kind for column, choice in check_table({"all": str(path)}, config).choices.items()}
    assert kinds.get(name) == ("ignored" if left_out else None)


def test_of_many_columns_those_with_similar_names_are_told():
    assert listed("lable", ["label", "age"]) == "the columns are 'label', 'age'"
    many = ["label", *(f"pixel{number}" for number in range(99))]
    assert listed("Label", many) == "of the 100 columns, the ones with similar names are 'label'"
    assert listed("?", many).endswith(
        "from the first to the last they are "
        + ", ".join(map(repr, ["label", *(f"pixel{number}" for number in range(11)), "pixel98"]))
    )
