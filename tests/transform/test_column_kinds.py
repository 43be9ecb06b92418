"""Each kind of column by its values: in the reloaded graph of Transform, by its functions, and as requests give it."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from pydantic import ValidationError
from scipy.stats import norm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import QuantileTransformer

from benchmarks.harness.pipelines import transform_graph
from serving.signatures.common import raw_features
from serving.signatures.tabular import raw_list
from transform.columns import Column
from transform.errors import PreprocessingError
from transform.numbers import boolean_values, number_features, ranks_among, signed_log
from transform.options import LabelOptions, TabularOptions
from transform.tabular import category_text, column_plan, hashed_categories, list_tokens, preprocessing_fn

OPTIONS = TabularOptions(
    label=LabelOptions(column="target"),
    columns={
        "amount": "log",
        "member": "boolean",
        "paid": "boolean",
        "joined": "datetime",
        "seen": {"kind": "datetime", "unit": "ms"},
        "review": {"kind": "text", "minimum_term_count": 1},
        "title": {"kind": "text", "word_ngrams": 1, "maximum_length": 2},
        "tags": "list",
        "colours": {"kind": "list", "separator": ";", "maximum_length": 2},
        "city": {"kind": "hash", "buckets": 50},
        "shop": {"kind": "hash", "buckets": 5},
    },
    crosses=(("member", "thal"), ("city", "paid")),
)
RAW_FEATURES = {
    name: tf.io.VarLenFeature(dtype)
    for name, dtype in {
        "age": tf.int64, "amount": tf.float32, "member": tf.string, "paid": tf.int64, "joined": tf.string,
        "seen": tf.int64, "review": tf.string, "title": tf.string, "tags": tf.string, "colours": tf.string,
        "city": tf.string, "shop": tf.int64, "thal": tf.string, "target": tf.int64,
    }.items()
}  # fmt: skip
ROWS = [
    {"age": 40, "amount": 0.0, "member": "yes", "paid": 1, "joined": "2026-01-31 18:00", "seen": 0,
     "review": "a fine film, a fine cast", "title": "the good film", "tags": "new|red| new ||", "colours": ["a", "b"],
     "city": "Oslo", "shop": 7, "thal": "normal", "target": 0},
    {"age": 50, "amount": 3.0, "member": "Yes ", "paid": 1, "joined": "2026-01-31T20:00+02:00", "seen": 86_400_000,
     "review": "Dull FILM!", "title": "good film", "tags": "red", "colours": ["b;a;c", "c"], "city": " Oslo ",
     "shop": 8, "thal": " normal ", "target": 1},
    {"age": 60, "amount": -3.0, "member": "no", "paid": 0, "joined": "2026-02-30", "seen": -86_400_000,
     "review": "a cast", "title": "the film", "tags": "new|rare", "colours": ["c"], "city": "Rome", "shop": 7,
     "thal": "fixed", "target": 1},
    {"member": "no", "joined": " ", "review": "", "tags": " | ", "thal": "fixed", "target": 0},
    {"age": 50, "member": "perhaps", "paid": 3, "joined": "1996-02-29", "review": "?", "title": "unheard",
     "tags": "unheard", "city": "  "},
]  # fmt: skip


def example(row: dict) -> bytes:
    result = tf.train.Example()
    for name, value in row.items():
        feature = result.features.feature[name]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                feature.bytes_list.value.append(one.encode())
            elif isinstance(one, float):
                feature.float_list.value.append(one)
            else:
                feature.int64_list.value.append(one)
    return result.SerializeToString()


def graph_of(rows: list[dict], options: TabularOptions, spec: dict, folder: Path) -> str:
    tf.compat.v1.reset_default_graph()  # other tests leave annotations there, which tft would read
    with tf.io.TFRecordWriter(f"{folder}/examples") as writer:
        for row in rows:
            writer.write(example(row))
    transform_graph(
        preprocessing_fn, {"preprocessing": options.model_dump_json()}, spec, f"{folder}/examples", str(folder)
    )
    return f"{folder}/graph"


@functools.cache
def reloaded(path: str) -> Callable[[dict], dict]:
    return tft.TFTransformOutput(path).transform_features_layer()


def transformed(path: str, rows: list[dict], spec: dict = RAW_FEATURES) -> dict[str, np.ndarray]:
    features = tf.io.parse_example([example(row) for row in rows], spec)
    return {name: values.numpy() for name, values in reloaded(path)(features).items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return graph_of(ROWS, OPTIONS, RAW_FEATURES, tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def features(path) -> dict[str, np.ndarray]:
    return transformed(path, ROWS)


def vocabulary(path: str, name: str) -> list[str]:
    return [token.decode() for token in tft.TFTransformOutput(path).vocabulary_by_name(name)]


def z_scores(values: list[float | None]) -> list[float]:
    there = [value for value in values if value is not None]
    return [0.0 if value is None else (value - np.mean(there)) / np.std(there) for value in values]


def days(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp() / 86_400


def test_numbers_are_values_and_then_flags_in_the_documented_order(features):
    joined = [days(2026, 1, 31, 18), days(2026, 1, 31, 18), None, None, days(1996, 2, 29)]
    values = [
        z_scores([40, 50, 60, None, 50]),
        z_scores([0, np.log(4), -np.log(4), None, None]),
        z_scores([2026, 2026, None, None, 1996]),
        z_scores([1970, 1970, 1969, None, None]),
        z_scores(joined),
        z_scores([0, 1, -1, None, None]),
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ]
    turns = {  # of `joined` and of `seen`, at noon of a clock where there is none
        "month": ([0, 0, None, None, 1 / 12], [0, 0, 11 / 12, None, None]),
        "day": ([30 / 31, 30 / 31, None, None, 28 / 31], [0, 1 / 31, 30 / 31, None, None]),
        "weekday": ([5 / 7, 5 / 7, None, None, 3 / 7], [3 / 7, 4 / 7, 2 / 7, None, None]),
        "time": ([0.75, 0.75, None, None, 0], [0, 0, 0, None, None]),
    }
    for of_columns in turns.values():
        for wave in (np.sin, np.cos):
            values += [[0 if turn is None else wave(2 * np.pi * turn) for turn in turn_of] for turn_of in of_columns]
    flags = [
        [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],  # age, amount
        [0, 0, 0, 0, 1], [0, 0, 0, 1, 1],  # member, paid: also where neither true nor false
        [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],  # joined, seen: missing
        [0, 0, 1, 0, 0], [0, 0, 0, 0, 0],  # unreadable
    ]  # fmt: skip
    np.testing.assert_allclose(features["numbers"], np.transpose(values + flags), atol=1e-5)


def test_lists_and_categories_share_a_vocabulary_of_what_occurs_twice(path):
    assert set(vocabulary(path, "categories")) == {
        "tags=new", "tags=red", "colours=a", "colours=b", "colours=c", "colours=", "thal=normal", "thal=fixed",
        "member=1&thal=normal", "member=0&thal=fixed", oslo() + "&paid=1", "city=&paid=",
    }  # fmt: skip


def oslo() -> str:
    return f"city={int(tf.strings.to_hash_bucket_fast('Oslo', 50))}"


def test_a_list_is_the_set_of_its_known_categories(path, features):
    known = vocabulary(path, "categories")
    place = {token: known.index(token) + 1 for token in known}

    def cell(*tokens: str) -> list[int]:
        return sorted(place[token] for token in tokens)

    tags = [[number for number in row if number] for row in features["list1"].tolist()]
    assert tags == [cell("tags=new", "tags=red"), cell("tags=red"), cell("tags=new"), [], []]
    colours = [cell("colours=a", "colours=b"), cell("colours=a", "colours=b", "colours=c")[:2], cell("colours=c")]
    expected = [row + [0] * (2 - len(row)) for row in [*colours, cell("colours="), cell("colours=")]]
    assert features["list0"].tolist() == expected
    assert features["list1"].shape == (5, 64)


def test_the_order_within_a_list_does_not_matter(path):
    cells = ["new|red", "red|new", "red|red|new|never", "|new||red|"]
    lists = transformed(path, [{"tags": cell} for cell in cells])["list1"]
    assert (lists == lists[0]).all() and np.count_nonzero(lists[0]) == 2


def test_categories_have_no_blanks_around_them_and_crosses_name_booleans_and_hashes(path, features):
    known = ["", *vocabulary(path, "categories")]
    assert [[known[number + 1] for number in row] for row in features["categories"].tolist()] == [
        ["thal=normal", "member=1&thal=normal", oslo() + "&paid=1"],
        ["thal=normal", "member=1&thal=normal", oslo() + "&paid=1"],
        ["thal=fixed", "member=0&thal=fixed", ""],
        ["thal=fixed", "member=0&thal=fixed", "city=&paid="],
        ["", "", "city=&paid="],
    ]


def test_hashes_are_numbers_of_their_column_and_the_first_is_for_missing_values(features):
    city, shop = features["hashes"].T
    assert city[0] == city[1] and city[0] != city[2]
    assert city[3] == city[4] == 0 and (city[:3] >= 1).all() and (city[:3] <= 50).all()
    assert shop[0] == shop[2] and shop[0] != shop[1]
    assert shop[3] == shop[4] == 51 and (shop[:3] >= 52).all() and (shop[:3] <= 56).all()


def test_unseen_values_have_a_hash_too(path):
    rows = [{"city": f"city {number}"} for number in range(1000)]
    found = transformed(path, rows)["hashes"][:, 0]
    assert set(found) == set(range(1, 51))


def test_a_hash_is_the_same_in_every_process():
    script = (
        "import tensorflow as tf\n"
        "from transform.columns import Column\n"
        "from transform.tabular import hashed_categories\n"
        "print(hashed_categories([(tf.constant(['Oslo', 'Rome', '']), Column(kind='hash'))]).numpy().tolist())\n"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here = hashed_categories([(tf.constant(["Oslo", "Rome", ""]), Column(kind="hash"))]).numpy().tolist()
    assert elsewhere.stdout == f"{here}\n"
    assert here == [[763], [86], [0]]


def test_a_text_becomes_its_terms_with_the_tf_idf_of_scikit_learn(path, features):
    terms = [line.partition(" ")[2] for line in vocabulary(path, "terms0")]
    texts = [row.get("review", "").lower() for row in ROWS]
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[!?]").fit(texts)
    assert sorted(term.replace("_", " ") for term in terms) == sorted(theirs.vocabulary_)
    expected = theirs.transform(texts).toarray()
    for row, (numbers, weights) in enumerate(zip(features["terms0"], features["terms0_weights"], strict=True)):
        found = {terms[n - 1].replace("_", " "): w for n, w in zip(numbers, weights, strict=True) if n}
        wanted = {term: expected[row, place] for term, place in theirs.vocabulary_.items() if expected[row, place]}
        assert found == pytest.approx(wanted, abs=1e-6)


def test_each_text_has_a_vocabulary_and_a_length_of_its_own(path, features):
    titles = [line.partition(" ")[2] for line in vocabulary(path, "terms1")]
    assert sorted(titles) == ["film", "good", "the"]
    assert features["terms1"].shape == features["terms1_weights"].shape == (5, 2)
    first = [[titles[number - 1] for number in row if number] for row in features["terms1"]]
    assert first == [["the", "good"], ["good", "film"], ["the", "film"], [], []]
    assert features["terms1_weights"][3:].tolist() == [[0, 0], [0, 0]]


def test_a_row_does_not_depend_on_its_neighbours(path, features):
    for number, row in enumerate(ROWS):
        alone = transformed(path, [row])
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], features[name][number], atol=1e-6, err_msg=name)


def test_rows_of_nothing_but_rubbish_stay_numbers(path):
    rubbish = "\x00|;=,\U0001f600" * 50
    texts = [name for name, feature in RAW_FEATURES.items() if feature.dtype == tf.string]
    rows = [{}, dict.fromkeys(texts, rubbish), {"amount": float("inf"), "seen": 2**63 - 1, "paid": -(2**63)}]
    odd = transformed(path, [*rows, ROWS[0]])
    for name, values in odd.items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(values[3], transformed(path, [ROWS[0]])[name][0])


def test_normal_quantiles_are_those_of_scikit_learn(tmp_path):
    chance = np.random.default_rng(0)
    skewed = chance.lognormal(sigma=2, size=4000).astype(np.float32)
    rounded = np.round(chance.exponential(5, size=4000)).astype(np.int64)
    rows = [{"skewed": float(a), "rounded": int(b)} for a, b in zip(skewed, rounded, strict=True)]
    columns = {"skewed": "quantile_normal", "rounded": "quantile_normal", "nothing": "quantile_normal"}
    options = TabularOptions(label=LabelOptions(column="target"), columns=columns)
    spec = {"skewed": tf.io.VarLenFeature(tf.float32), "rounded": tf.io.VarLenFeature(tf.int64)}
    spec["nothing"] = tf.io.VarLenFeature(tf.float32)
    path = graph_of(rows, options, spec, tmp_path)
    asked = [*rows, {"skewed": 1e30, "rounded": 10**9}, {"skewed": -5.0, "rounded": -5}, {"nothing": 3.0}]
    numbers = transformed(path, asked, spec)["numbers"]
    # In the order of the names: nothing, rounded, skewed, and a flag for each.
    assert (numbers[:, 0] == 0).all()
    theirs = QuantileTransformer(output_distribution="normal", subsample=None).fit(skewed[:, None])
    expected = theirs.transform(np.append(skewed, [1e30, -5.0])[:, None])[:, 0]
    inner = np.abs(expected) < 2.5
    assert inner.sum() > 3900
    np.testing.assert_allclose(numbers[:4002][inner, 2], expected[inner], atol=0.02)
    np.testing.assert_allclose(numbers[[4000, 4001], 2], [5.199, -5.199], atol=1e-3)
    theirs = QuantileTransformer(output_distribution="normal", subsample=None).fit(rounded[:, None])
    expected = theirs.transform(rounded[:, None])[:, 0]
    inner = np.abs(expected) < 2.5
    np.testing.assert_allclose(numbers[:4000][inner, 1], expected[inner], atol=0.02)
    # A tenth of the rows has the smallest value, 0: they are in the middle of that tenth.
    share = (rounded == 0).mean()
    smallest = numbers[:4000][rounded == 0, 1]
    np.testing.assert_allclose(smallest, norm.ppf(share / 2), atol=0.02)
    assert numbers[4002].tolist() == [0, 0, 0, 0, 1, 1]
    assert numbers[0, 3:].tolist() == [1, 0, 0]


def test_a_column_without_any_text_or_category_is_nothing(tmp_path):
    columns = {"note": "text", "tags": "list", "when": "datetime", "yes": "boolean"}
    options = TabularOptions(label=LabelOptions(column="target"), columns=columns)
    spec = {name: tf.io.VarLenFeature(tf.string) for name in columns}
    path = graph_of([{"note": "once"}, {"when": "never"}, {}], options, spec, tmp_path)
    found = transformed(path, [{"note": "once", "tags": "x", "when": "2026-01-31", "yes": "y"}, {}], spec)
    assert not found["terms0"].any() and not found["terms0_weights"].any()
    assert np.isfinite(found["numbers"]).all()


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        (tf.constant(["a|b", "", " b | a |b"]), [["c=a", "c=b"], ["c="], ["c=b", "c=a"]]),
        (tf.constant([["a", "b|a"], ["", " "]]), [["c=a", "c=b"], ["c="]]),
        (tf.SparseTensor([[0, 0], [2, 0], [2, 1]], ["a", "b", "a|"], [3, 2]), [["c=a"], ["c="], ["c=b", "c=a"]]),
        (tf.constant([[7, 8, 7], [-(2**31), 7, 9]], tf.int64), [["c=7", "c=8"], ["c=7", "c=9"]]),
        (tf.zeros([0, 3], tf.string), []),
        (tf.zeros([2, 0], tf.string), [["c="], ["c="]]),
        (tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.constant([], tf.string), [2, 0]), [["c="], ["c="]]),
    ],
)  # fmt: skip
def test_a_list_is_split_stripped_and_counted_once(values, tokens):
    found = list_tokens("c", values, Column(kind="list"))
    rows = found.rows.numpy()
    of_rows = [[token.decode() for token in found.tokens.numpy()[rows == row]] for row in range(int(found.count))]
    assert of_rows == tokens


def test_numbers_of_booleans_and_dates_need_no_analysis():
    columns = {"b": tf.constant(["yes", "", "x"])}
    numbers = number_features(columns, {"b": Column(kind="boolean")})
    assert numbers.numpy().tolist() == [[1, 0], [0, 1], [0, 1]]


def test_categories_of_text_are_stripped():
    values = tf.constant([" Male", "Male", "\tMale\n", "  ", "a b"])
    expected = [b"Male", b"Male", b"Male", b"", b"a b"]
    assert category_text(values, Column(kind="categorical")).numpy().tolist() == expected


@pytest.mark.parametrize(
    ("column", "dtype", "sentence"),
    [
        ("log", tf.string, "'x' holds text, expected numbers"),
        ("quantile_normal", tf.string, "'x' holds text, expected numbers"),
        ({"kind": "datetime", "unit": "s"}, tf.string, "'x' holds text, expected numbers"),
        ("text", tf.int64, "'x' holds numbers, expected text"),
        ("datetime", tf.float32, "'x' holds numbers, expected a date as text .* unit: s, ms or us"),
    ],
)
def test_columns_of_the_wrong_type_are_refused_by_name(column, dtype, sentence):
    options = TabularOptions(label=LabelOptions(column="y"), columns={"x": column})
    with pytest.raises(PreprocessingError, match=sentence):
        column_plan("x", dtype, options)


@pytest.mark.parametrize("kind", ["z_score", "log", "quantile_normal", "datetime", "list", "text", "ignored"])
def test_what_is_no_single_category_is_not_crossed(kind):
    with pytest.raises(ValidationError, match=f"crosses names 'x', which is {kind}; it must be boolean or hash or"):
        TabularOptions(label=LabelOptions(column="y"), columns={"x": kind}, crosses=[["x", "z"]])


def test_options_survive_json_with_their_defaults():
    columns = {"a": "hash", "b": "list", "c": {"kind": "text", "maximum_terms": 5}, "d": {"kind": "hash", "buckets": 9}}
    options = TabularOptions(label=LabelOptions(column="y"), columns=columns)
    assert TabularOptions.model_validate_json(options.model_dump_json()) == options
    assert (options.columns["a"].buckets, options.columns["d"].buckets) == (1024, 9)
    assert options.list_separators() == {"b": "|"}
    assert (options.columns["c"].word_ngrams, options.columns["c"].maximum_terms) == (2, 5)


def test_the_logarithm_keeps_the_sign():
    values = tf.constant([0.0, 1.0, -1.0, np.e - 1, -1e30], tf.float64)
    np.testing.assert_allclose(signed_log(values), [0, np.log(2), -np.log(2), 1, -np.log(1e30)], rtol=1e-12)


def middle_ranks(quantiles: np.ndarray, values: np.ndarray) -> np.ndarray:
    shape = [1, -1]
    return ranks_among(
        tf.reshape(tf.constant(quantiles, tf.float32), shape), tf.reshape(tf.constant(values, tf.float32), shape)
    ).numpy()[0]


@pytest.mark.parametrize("decimals", [9, 1])
def test_ranks_are_those_of_scikit_learn_with_the_same_quantiles(decimals):
    chance = np.random.default_rng(0)
    # Rounded, many values share a quantile; the two ends are alone.
    training = np.concatenate([np.round(chance.lognormal(size=5000), decimals), [-1, 500]]).astype(np.float32)
    theirs = QuantileTransformer(n_quantiles=1000, output_distribution="uniform", subsample=None)
    theirs.fit(training[:, None])
    asked = np.concatenate([training, chance.lognormal(size=1000).astype(np.float32), [-5, 1e6]])
    expected = theirs.transform(asked[:, None])[:, 0]
    np.testing.assert_allclose(middle_ranks(theirs.quantiles_[:, 0], asked), expected, atol=2e-5)


def test_a_value_that_many_rows_have_gets_the_middle_of_their_ranks_at_the_ends_too():
    quantiles = np.array([0, 0, 0, 1, 2, 3, 3])
    ranks = middle_ranks(quantiles, np.array([-1, 0, 0.5, 1, 2, 3, 4]))
    np.testing.assert_allclose(ranks, [0, 1 / 6, 2.5 / 6, 3 / 6, 4 / 6, 5.5 / 6, 1], atol=1e-6)
    assert middle_ranks(np.array([7.0, 7.0, 7.0]), np.array([6, 7, 8])).tolist() == [0, 0.5, 1]


def test_the_normal_quantiles_are_scipys():
    shares = np.array([1e-7, 0.01, 0.5, 0.9, 1 - 1e-7])
    np.testing.assert_allclose(tf.math.ndtri(tf.constant(shares, tf.float64)), norm.ppf(shares), atol=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (tf.constant(["true", " Yes ", "Y", "T", "ON", "1"]), [1] * 6),
        (tf.constant(["false", "NO", "n", " f", "off\n", "0"]), [0] * 6),
        (tf.constant(["", "  ", "maybe", "2", "truee", b"\xff"]), [None] * 6),
        (tf.constant([1, 0, 2, -1, -(2**31)], tf.int64), [1, 0, None, None, None]),
        (tf.constant([1.0, 0.0, 0.5, float("nan"), -1e38, float("inf")]), [1, 0, None, None, None, None]),
    ],
)
def test_booleans_are_read_in_all_their_spellings(values, expected):
    true, known = (flags.numpy().tolist() for flags in boolean_values(values))
    assert [int(one) if sure else None for one, sure in zip(true, known, strict=True)] == expected
    assert not any(one and not sure for one, sure in zip(true, known, strict=True))


def test_what_a_request_leaves_empty_is_in_no_raw_feature():
    columns = {
        "age": tf.constant([[41], [-(2**31)], [7]], tf.int64),
        "pulse": tf.constant([float("nan"), 1.5, -1e38]),
        "city": tf.constant([" ", "Rome", ""]),
        "visits": tf.constant([-(2**31), 3, 0], tf.int64),
        "nothing": tf.constant([-(2**31)] * 3, tf.int64),
        "dense": tf.constant([1.0, -1e38, 2.0]),
    }
    spec = {name: tf.io.VarLenFeature(values.dtype) for name, values in columns.items()}
    raw = raw_features(columns, spec | {"dense": tf.io.FixedLenFeature([1], tf.float32)})
    assert list(raw) == list(columns)
    np.testing.assert_array_equal(raw.pop("dense"), np.float32([[1], [-1e38], [2]]))
    found = {name: (part.indices.numpy().tolist(), part.values.numpy().tolist()) for name, part in raw.items()}
    assert found == {
        "age": ([[0, 0], [2, 0]], [41, 7]),
        "pulse": ([[1, 0]], [1.5]),
        "city": ([[1, 0]], [b"Rome"]),
        "visits": ([[1, 0], [2, 0]], [3, 0]),
        "nothing": ([], []),
    }
    assert all(part.dense_shape.numpy().tolist() == [3, 1] for part in raw.values())


@pytest.mark.parametrize(
    "values", [["a|b", ""], [["a|b"], [""]], [["a", "b"], ["", ""]], [["", "a", "", "b"], [""] * 4]]
)
def test_a_list_reaches_the_form_that_the_schema_has(values):
    sparse = raw_list(tf.constant(values), tf.io.VarLenFeature(tf.string), "|")
    assert int(sparse.dense_shape[0]) == 2 and (sparse.indices[:, 0] == 0).numpy().all()
    assert "|".join(value.decode() for value in sparse.values.numpy()) == "a|b"
    for shape in ([], [1]):
        one = raw_list(tf.constant(values), tf.io.FixedLenFeature(shape, tf.string), "|")
        assert one.shape == [2, *shape]
        parts = tf.strings.split(tf.reshape(one, [-1]), "|").to_list()
        assert [[part for part in row if part] for row in parts] == [[b"a", b"b"], []]
