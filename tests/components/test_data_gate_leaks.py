"""DataGate: which leaks it names, and which data give no alarm."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.data_gate.association import class_indicators, named_label, neighbour_auc, order_auc, out_of_fold_auc
from components.data_gate.leaks import LeakSearch, find_copies, find_leaks
from components.data_gate.splits import SplitRows, coded, joined
from pipeline import demo_data
from pipeline.config import load_config
from pipeline.tasks import TASKS

ROWS = 1200
TEXTS = LeakSearch(columns=("text",))


def column(values: pd.Series) -> pa.Array:
    """As examples hold it: whole numbers, numbers of single precision, or text."""
    if values.dtype.kind == "i":
        return joined([pa.array(values.to_numpy())])
    if values.dtype.kind == "f":
        return joined([pa.array(values.to_numpy(), pa.float32(), from_pandas=True)])
    return joined([pa.array([None if pd.isna(value) else str(value).encode() for value in values], pa.large_binary())])


def rows(frame: pd.DataFrame) -> SplitRows:
    return SplitRows({str(name): column(frame[name]) for name in frame}, len(frame))


def halves(frame: pd.DataFrame, share: float = 0.2) -> dict[str, pd.DataFrame]:
    """As the pipeline splits: by a hash of the whole row, so that rows that are the same altogether stay together."""
    held_out = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy() % 1000 < 1000 * share
    return {"train": frame[~held_out], "eval": frame[held_out]}


def leaks(frame: pd.DataFrame, label: str = "label", search: LeakSearch | None = None) -> list[str]:
    splits = {name: rows(half) for name, half in halves(frame).items()}
    return find_leaks(search or LeakSearch(), label, splits)


def clean_table(classes: int = 2, count: int = ROWS) -> pd.DataFrame:
    """Two numbers and a category that tell something of the label, and one of each that tells nothing."""
    random = np.random.default_rng(0)
    label = random.integers(0, classes, count)
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, count),
            "pressure": random.normal(120 + 10 * label, 15),
            "noise": random.normal(size=count),
            "town": random.choice(["Bonn", "Ulm", "Kiel", "Jena"], count),
            "job": np.where(random.random(count) < 0.7, label, random.integers(0, classes, count)).astype(str),
            "label": label,
        }
    )


def flipped(labels: pd.Series, share: float) -> np.ndarray:
    """Labels, a share of which is another one."""
    random = np.random.default_rng(1)
    other = (labels + random.integers(1, labels.nunique(), len(labels))) % labels.nunique()
    return np.where(random.random(len(labels)) < share, other, labels)


def sorted_by_label(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("label", kind="stable", ignore_index=True)


def leaking_number() -> pd.DataFrame:
    table = clean_table()
    return table.assign(planted=table.label + np.random.default_rng(2).normal(0, 0.25, len(table)))


def leaking_category() -> pd.DataFrame:
    table = clean_table()
    code = np.random.default_rng(2).integers(0, 10, len(table))
    return table.assign(planted=[f"{'CX'[x]}{y}" for x, y in zip(flipped(table.label, 0.003), code, strict=True)])


def leaking_code() -> pd.DataFrame:
    """Numbers that are a category: their order tells nothing."""
    table = clean_table()
    even, odd = np.array([40, 10, 80]), np.array([20, 90, 50])
    kind = np.random.default_rng(2).integers(0, 3, len(table))
    return table.assign(planted=np.where(table.label, odd[kind], even[kind]))


def leaking_absence() -> pd.DataFrame:
    table = clean_table()
    days = np.random.default_rng(2).integers(1, 400, len(table))
    return table.assign(planted=np.where(flipped(table.label, 0.002), days.astype(float), np.nan))


def leaking_boolean() -> pd.DataFrame:
    table = clean_table()
    return table.assign(planted=np.where(flipped(table.label, 0.004), "true", "false"))


def leaking_identifier() -> pd.DataFrame:
    table = sorted_by_label(clean_table())
    return table.assign(planted=np.arange(1, len(table) + 1))


def leaking_file_name() -> pd.DataFrame:
    """A number without leading zeros: as text it sorts otherwise."""
    table = sorted_by_label(clean_table())
    return table.assign(planted=[f"scan_{row}.dcm" for row in range(len(table))])


def leaking_date() -> pd.DataFrame:
    table = sorted_by_label(clean_table())
    days = pd.date_range("2019-03-01", periods=len(table)).strftime("%d.%m.%Y")
    return table.assign(planted=days)


def leaking_blocks() -> pd.DataFrame:
    """Twelve files of one class each, one behind the other."""
    table = clean_table()
    files = np.random.default_rng(2).permutation(np.repeat([0, 1], 6))
    table = table.assign(label=np.repeat(files, len(table) // 12))
    return table.assign(planted=50_000 + np.arange(len(table)))


def leaking_class_of_four() -> pd.DataFrame:
    table = clean_table(classes=4)
    return table.assign(planted=np.array([30, 10, 40, 20])[flipped(table.label, 0.003)] + table.age / 20)


PLANTED = {
    "a number with noise": (leaking_number, "column 'planted' alone tells the label (AUC "),
    "a category": (leaking_category, "column 'planted' alone tells the label (AUC "),
    "a code": (leaking_code, "column 'planted' alone tells the label (AUC 1.000 on "),
    "a value that is missing": (leaking_absence, "whether column 'planted' is empty alone tells the label (AUC "),
    "a boolean": (leaking_boolean, "column 'planted' alone tells the label (AUC "),
    "an identifier": (leaking_identifier, "column 'planted' numbers the rows, and their order tells the label (AUC "),
    "names of files": (leaking_file_name, "column 'planted' numbers the rows, and their order tells the label (AUC "),
    "dates": (leaking_date, "column 'planted' alone tells the label (AUC 1.000 "),
    "blocks": (leaking_blocks, "column 'planted' numbers the rows, and their order tells the label (AUC "),
    "four classes": (leaking_class_of_four, "column 'planted' alone tells the label (AUC "),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_column_is_the_one_finding(name):
    table, sentence = PLANTED[name]
    (found,) = leaks(table())
    assert found.startswith(sentence)
    assert "leave it out with `preprocessing.columns: {planted: ignored}`" in found
    assert "keep it with `data.allow: [planted]`" in found


def test_the_same_tables_without_what_was_planted_are_clean():
    assert leaks(clean_table()) == []
    assert leaks(clean_table(classes=4)) == []
    assert leaks(leaking_identifier().drop(columns="planted")) == []


def test_a_column_that_is_ignored_or_allowed_is_not_named():
    assert leaks(leaking_number(), search=LeakSearch(ignored=("planted",))) == []
    assert leaks(leaking_number(), search=LeakSearch(allow=("planted",))) == []


def test_values_of_one_name_are_one_class():
    table = clean_table(classes=4)
    table["planted"] = np.where(table.label > 0, "yes", "no")
    assert leaks(table) == []
    (found,) = leaks(table, search=LeakSearch(label_names={"1": "ill", "2": "ill", "3": "ill", "0": "well"}))
    assert found.startswith("column 'planted' alone tells the label (AUC 1.000 on ")


def test_the_figure_is_the_area_under_the_curve():
    table = leaking_number()
    train = halves(table)["train"]
    from sklearn.metrics import roc_auc_score

    area = roc_auc_score(train.label, train.planted.astype(np.float32))
    assert 0.99 < area < 1
    assert f"(AUC {area:.3f} on {len(train):,} rows of the train split)" in leaks(table)[0]


def test_names_that_yaml_would_misread_are_quoted():
    (found,) = leaks(leaking_boolean().rename(columns={"planted": "no"}))
    assert '`preprocessing.columns: {"no": ignored}`' in found
    (found,) = leaks(leaking_boolean().rename(columns={"planted": "outcome: code"}))
    assert '`data.allow: ["outcome: code"]`' in found


def test_of_many_findings_ten_are_told_and_the_others_named():
    table = leaking_number()
    found = leaks(pd.concat([table, *(table.planted.rename(f"copy {row}") for row in range(12))], axis=1))
    assert len(found) == 11
    assert found[-1] == "3 further columns tell the label likewise: 'copy 9', 'copy 10', 'copy 11'."


def test_the_config_says_where_each_task_is_searched():
    overrides = ["preprocessing.columns.age=ignored", "data.allow=[chol, duplicates]"]
    table, text = load_config("configs/heart.yaml", overrides), load_config("configs/reviews.yaml")
    assert TASKS["tabular"].leak_search(table) == LeakSearch(
        ignored=("age",), label_names={"0": "healthy", "1": "disease"}, allow=("chol", "duplicates")
    )
    assert TASKS["text"].leak_search(text) == LeakSearch(columns=("text",), texts=("text",))
    assert TASKS["image"].leak_search(load_config("configs/digits.yaml")) is None


def test_a_name_in_allow_that_is_no_column_is_said():
    (found,) = leaks(clean_table()[["age", "label"]], search=LeakSearch(allow=("agee", "duplicates")))
    assert found == (
        "`data.allow` names 'agee', which is no column of the data; expected 'duplicates' or one of 'age', 'label'."
    )


def test_an_identifier_in_an_order_of_its_own_is_clean():
    table = clean_table()
    random = np.random.default_rng(3)
    table["id"] = random.permutation(len(table))
    table["key"] = [f"{value:08x}" for value in random.integers(0, 2**32, len(table))]
    table["day"] = pd.date_range("2019-03-01", periods=len(table)).strftime("%Y-%m-%d")
    assert leaks(table) == []


def test_a_class_that_becomes_more_frequent_with_time_is_no_leak():
    random = np.random.default_rng(4)
    table = clean_table()
    table["label"] = (random.random(len(table)) < np.linspace(0, 1, len(table))).astype(int)
    table["id"] = np.arange(len(table))
    assert leaks(table) == []


def test_a_strong_measurement_that_never_repeats_is_no_identifier():
    table = clean_table()
    table["income"] = np.random.default_rng(5).normal(30_000_000 + 8_000_000 * table.label, 4_000_000).astype(int)
    train = rows(halves(table)["train"])
    area = order_auc(coded(train.columns["income"]).codes, class_indicators(train.columns["label"]))
    assert 0.9 < area < 0.99
    assert leaks(table) == []


def test_rows_that_are_there_many_times_make_no_column_tell_the_label():
    table = pd.concat([clean_table(count=300)] * 8, ignore_index=True)
    assert leaks(table, search=LeakSearch(allow=("duplicates",))) == []
    numbered = table.assign(id=np.random.default_rng(6).permutation(len(table)))
    assert leaks(numbered, search=LeakSearch(allow=("duplicates",))) == []


def test_classes_of_a_few_rows_say_nothing():
    table = clean_table()
    table["label"] = (np.arange(len(table)) < 9).astype(int)
    table["planted"] = table.label
    assert leaks(table) == []


def test_columns_without_values_or_of_one_value_tell_nothing():
    table = clean_table().assign(empty=np.nan, constant="x")
    assert leaks(table) == []


def test_rows_without_a_label_are_left_out():
    table = leaking_number()
    table["label"] = table.label.astype(float).where(np.arange(len(table)) % 10 > 0)
    table.loc[table.label.isna(), "planted"] = 0.5
    (found,) = leaks(table)
    assert found.startswith("column 'planted' alone tells the label")


def test_areas_are_those_of_the_rows():
    positives = np.array([[0, 0, 1, 1, 0, 1]], float)
    assert order_auc(np.array([0, 1, 2, 3, 1, 4]), positives) == 1.0
    assert order_auc(np.array([4, 3, 2, 1, 3, 0]), positives) == 1.0
    assert order_auc(np.array([0, 0, 0, 0, 0, 0]), positives) == 0.5
    assert order_auc(np.array([0, 2, 1, 3, 0, 1]), positives) == pytest.approx(7 / 9)


def test_neighbours_find_a_class_between_two_others_and_an_identifier_tells_nothing_out_of_fold():
    codes = np.arange(900)
    positives = ((codes >= 300) & (codes < 600)).astype(float)[None]
    assert order_auc(codes, positives) == 0.5
    assert neighbour_auc(codes, positives) > 0.999
    assert out_of_fold_auc(codes, positives, codes % 5) == 0.5


def test_copied_rows_are_counted():
    train, held_out = halves(clean_table()).values()
    copied = pd.concat([held_out, train.head(30)])
    splits = {"train": rows(train), "eval": rows(copied)}
    assert find_leaks(LeakSearch(), "label", splits) == [
        f"30 of {len(copied)} rows of the eval split ({30 / len(copied):.1%}) stand in the train split too, the label "
        "apart: the model has seen them, so the metrics say less of new ones; remove the copies, or keep them with "
        "`data.allow: [duplicates]`."
    ]
    assert find_leaks(LeakSearch(allow=("duplicates",)), "label", splits) == []


def test_copied_rows_with_numbers_of_their_own_are_found_in_a_whole_table():
    table = clean_table()
    table = pd.concat([table, table.sample(200, random_state=1)], ignore_index=True)
    (found,) = leaks(table.assign(id=np.random.default_rng(7).permutation(len(table))))
    assert " rows of the eval split " in found
    assert "stand in the train split too, the label and 'id' apart: " in found
    (found,) = leaks(table.assign(id=np.arange(len(table))), search=LeakSearch(ignored=("id",)))
    assert "stand in the train split too, the label apart: " in found


def test_a_few_copies_are_let_be():
    train, held_out = halves(clean_table()).values()
    splits = {"train": rows(train), "eval": rows(pd.concat([held_out, train.head(2)]))}
    assert find_leaks(LeakSearch(), "label", splits) == []


@pytest.mark.parametrize("levels", [[2, 60], [12, 12, 12], [4] * 6, [2] * 10, [400, 60]])
def test_rows_of_few_values_that_are_equal_by_nature_are_no_copies(levels):
    random = np.random.default_rng(8)
    columns = [random.integers(0, count, 3000) for count in levels]
    found = find_copies(columns, 2400)
    assert found.count > 30
    assert found.by_nature


def test_columns_that_follow_from_another_make_no_copies():
    random = np.random.default_rng(9)
    town = random.integers(0, 400, 3000)
    age = random.integers(18, 90, 3000)
    people = find_copies([town, town // 3, town // 40, age, random.integers(0, 2, 3000)], 2400)
    assert (people.count > 10, people.by_nature) == (True, True)
    product = random.integers(0, 50, 3000)
    assert find_copies([product, product * 3, product * 7 % 53], 2400).by_nature


def reviews(count: int = 600) -> pd.DataFrame:
    random = np.random.default_rng(10)
    words = [
        "film",
        "dull",
        "bright",
        "funny",
        "rotten",
        "fresh",
        "old",
        "new",
        "story",
        "of",
        "love",
        "war",
        "and",
        "a",
    ]
    texts = [" ".join(random.choice(words, 12)) for _ in range(count)]
    return pd.DataFrame({"text": texts, "label": random.choice(["fresh", "rotten"], count)})


def test_a_sentence_that_names_its_label_is_found_and_one_that_has_the_word_by_chance_is_not():
    table = reviews()
    assert table.text.str.contains("fresh").mean() > 0.4
    assert leaks(table, search=TEXTS) == []
    planted = table.assign(
        text=table.text.str.replace("fresh|rotten", "good", regex=True) + " Tag: " + table.label.str.upper() + "!"
    )
    (found,) = leaks(planted, search=TEXTS)
    assert "column 'text' holds the label as a word" in found
    assert "stands in 100.0% of the texts with this label and in 0.0% of the others" in found
    assert "`data.allow: [text]`" in found
    assert "preprocessing.columns" not in found
    assert leaks(planted, search=LeakSearch(columns=("text",), allow=("text",))) == []


def test_labels_are_looked_for_by_their_names_too():
    table = reviews().assign(label=lambda made: (made.label == "fresh").astype(int))
    table["text"] = table.text.str.replace("fresh|rotten", "good", regex=True) + table.label.map({0: " bad", 1: ""})
    assert leaks(table, search=TEXTS) == []
    (found,) = leaks(table, search=LeakSearch(columns=("text",), label_names={"0": "bad", "1": "fine"}))
    assert "'bad' stands in 100.0%" in found


def test_a_column_of_sentences_in_a_table_is_read_for_labels():
    table = clean_table().assign(label=lambda made: made.label.map({0: "not_paid", 1: "paid back"}))
    random = np.random.default_rng(11)
    table["note"] = [f"case {random.integers(10**6)} is closed as {label.upper()}" for label in table.label]
    table["note"] = table.note.str.replace("_", "-")
    (found,) = leaks(table)
    assert found.startswith("column 'note' holds the label as a word")


@pytest.mark.parametrize(
    ("label", "text", "found"),
    [
        ("spam", "this is SPAM.", True),
        ("spam", "spammers everywhere", False),
        ("not_spam", "Not spam, I think", True),
        ("schön", "sehr SCHÖN!", True),
        ("正面", "这部电影正面评价", True),
        ("+", "rated +", True),
    ],
)
def test_a_label_is_found_as_whole_words(label, text, found):
    texts = pa.array([text.encode(), b"nothing of it"] * 10, pa.large_binary())
    labels = pa.array([label.encode(), b"another"] * 10, pa.large_binary())
    mention = named_label(texts, labels)
    assert (mention is not None) == found


def test_texts_that_are_no_utf_8_are_read_all_the_same():
    texts = pa.array([b"\xff tagged spam", b"\xfe harmless"] * 10, pa.large_binary())
    labels = pa.array([b"spam", b"ham"] * 10, pa.large_binary())
    mention = named_label(texts, labels)
    assert mention is not None
    assert (mention.word, mention.own, mention.others) == ("spam", 1.0, 0.0)


def test_one_class_of_many_that_is_named_by_nature_is_no_leak():
    table = reviews().assign(label=lambda made: np.resize(["weather", "music", "news", "alarm"], len(made)))
    table.loc[table.label == "weather", "text"] += " weather"
    assert leaks(table, search=TEXTS) == []


def test_copied_texts_are_counted_and_short_ones_are_not():
    train, held_out = halves(reviews()).values()
    copied = pd.concat([held_out, train.head(12)])
    (found,) = find_leaks(TEXTS, "label", {"train": rows(train), "eval": rows(copied)})
    assert found.startswith(f"12 of {len(copied)} texts of the eval split ({12 / len(copied):.1%}) stand in the train")
    short = {"train": rows(train.assign(text="very good")), "eval": rows(held_out.assign(text="very good"))}
    assert find_leaks(TEXTS, "label", short) == []


def test_a_sample_says_that_it_is_one():
    train, held_out = halves(reviews()).values()
    sampled = SplitRows(rows(train).columns, 10 * len(train))
    (found,) = find_leaks(TEXTS, "label", {"train": sampled, "eval": rows(pd.concat([held_out, train.head(12)]))})
    assert found.startswith(f"12 of {len(held_out) + 12} texts drawn from the eval split (")
    assert f" stand among {len(train)} drawn from the train split too, the label apart: " in found


def test_texts_of_which_all_are_missing_are_no_copies():
    table = reviews().assign(text=None)
    assert leaks(table, search=TEXTS) == []


def test_numbers_with_a_few_that_are_none_are_ordered_as_numbers():
    table = leaking_number()
    table["planted"] = (table.planted * 200 - 100).round(1).astype(str)
    table.loc[::40, "planted"] = "?"
    (found,) = leaks(table)
    assert found.startswith("column 'planted' alone tells the label")


def published_tables() -> dict[str, tuple[pd.DataFrame, str]]:
    from sklearn import datasets

    bundled = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
        "digits": datasets.load_digits,
        "diabetes": datasets.load_diabetes,
    }
    tables = {name: (load(as_frame=True).frame, "target") for name, load in bundled.items()}
    diabetes, label = tables["diabetes"]
    tables["diabetes"] = diabetes.assign(target=(diabetes.target > diabetes.target.median()).astype(int)), label
    return tables


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_tables_that_scikit_learn_brings_are_clean(name):
    assert leaks(*published_tables()[name]) == []


@pytest.mark.parametrize("name", ["adult_train", "german", "phoneme", "wine-white"])
def test_published_tables_are_clean(name):
    folder = os.environ.get("INGRAPH_TEST_DATA")
    if not folder:
        pytest.skip("INGRAPH_TEST_DATA names no folder with tables")
    table = pd.read_csv(Path(folder, "tables", f"{name}.csv.gz"), skipinitialspace=True, na_values="?")
    assert leaks(table) == []
    if name == "adult_train":  # its weights tell rows apart that are equal in everything else
        shuffled = table.drop(columns="fnlwgt").sample(frac=1, random_state=0)
        splits = {"train": rows(shuffled[6000:]), "eval": rows(shuffled[:6000])}
        assert find_leaks(LeakSearch(), "label", splits) == []


@pytest.mark.parametrize(("name", "label", "search"), [("hearts", "target", LeakSearch()), ("reviews", "label", TEXTS)])
def test_the_demo_data_are_clean(name, label, search):
    assert leaks(pd.read_csv(demo_data.fetch(name)), label, search) == []
