"""The preprocessing of texts, by its values: eagerly, in Transform's graph, and in the graph reloaded from disk."""

import math
import sys
import unicodedata

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from pydantic import ValidationError
from tfx_bsl.public import tfxio

from pipeline.runners.local import BEAM_PIPELINE_ARGS
from transform.label_options import LabelOptions
from transform.normalized_text import normalized_text
from transform.preprocessing_error import PreprocessingError
from transform.text import preprocessing_fn, tf_idf
from transform.text_options import TextOptions
from transform.text_terms import distinct, terms, words

MAXIMUM_BYTES = 1000
LABEL = LabelOptions(column="opinion")
WORDS = TextOptions(label=LABEL, column="review", minimum_term_count=2, maximum_length=6)
CHARACTERS = TextOptions(label=LABEL, column="review", word_ngrams=0, character_ngrams=(2, 2), maximum_length=6)
RAW_FEATURES = {"review": tf.io.VarLenFeature(tf.string), "opinion": tf.io.VarLenFeature(tf.string)}
REVIEWS = [
    ("A good film. GOOD!", "fresh"),
    ("not a good film", "fresh"),
    ("not a bad<br/>film", "rotten"),
    (None, "rotten"),
    ("caf\u00e9", None),
]
JAPANESE = [("とても面白い映画", "good"), ("面白い映画", "good"), ("つまらない映画", "bad")]
# Every code point but the surrogates, which no UTF-8 holds.
CHARACTERS_OF_UNICODE = [chr(number) for number in range(sys.maxunicode + 1) if not 0xD800 <= number < 0xE000]


def normalized(*texts: str | bytes) -> list[str]:
    return [text.decode() for text in normalized_text(tf.constant(texts), MAXIMUM_BYTES).numpy()]


def example(review: str | bytes | None, opinion: str | None = None) -> bytes:
    result = tf.train.Example()
    for name, value in (("review", review), ("opinion", opinion)):
        if value is not None:
            encoded = value if isinstance(value, bytes) else value.encode()
            result.features.feature[name].bytes_list.value.append(encoded)
    return result.SerializeToString()


def transform_graph(folder, rows: list[tuple[str | None, str | None]], options: TextOptions) -> str:
    # What tests of other modules call eagerly (tft.apply_buckets) leaves annotations there, which tft would read.
    tf.compat.v1.reset_default_graph()
    metadata = tft.DatasetMetadata.from_feature_spec(RAW_FEATURES)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", telemetry_descriptors=["test"], schema=metadata.schema)
    with beam.Pipeline(argv=BEAM_PIPELINE_ARGS) as pipeline, tft_beam.Context(temp_dir=f"{folder}/temporary"):
        data = pipeline | beam.Create([example(*row) for row in rows]) | source.BeamSource()
        function = (data, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"preprocessing": options.model_dump_json()})
        )
        _ = function | tft_beam.WriteTransformFn(f"{folder}/graph")
    return f"{folder}/graph"


@pytest.fixture(scope="module")
def word_graph(tmp_path_factory) -> str:
    return transform_graph(tmp_path_factory.mktemp("words"), REVIEWS, WORDS)


@pytest.fixture(scope="module")
def character_graph(tmp_path_factory) -> str:
    return transform_graph(tmp_path_factory.mktemp("characters"), JAPANESE, CHARACTERS)


def transformed(path: str, *texts: str | bytes | None) -> dict[str, np.ndarray]:
    layer = tft.TFTransformOutput(path).transform_features_layer()
    spec = {"review": RAW_FEATURES["review"]}
    features = tf.io.parse_example([example(text) for text in texts], spec)
    return {name: values.numpy() for name, values in layer(features).items()}


def vocabulary(path: str) -> list[str]:
    return [line.decode() for line in tft.TFTransformOutput(path).vocabulary_by_name("terms")]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_code_point_comes_out_as_pythons_unicodedata_has_it(form):
    # Hangul that is written in single jamo stays so: the one documented difference of single characters.
    tested = [
        character for character in CHARACTERS_OF_UNICODE if form == "NFC" or not "\uac00" <= character <= "\ud7a3"
    ]
    written = [unicodedata.normalize(form, character) for character in tested]
    expected = [unicodedata.normalize("NFKC", character).lower() for character in tested]
    differing = [
        (text, found, wanted)
        for text, found, wanted in zip(written, normalized(*written), expected, strict=True)
        if found != wanted
    ]
    assert differing == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ÉTÉ ﬁn ½", "été fin 1\u20442"),
        ("E\u0302\u0301", "\u1ebf"),
        ("ｶﾞｷﾞ ハ\u309a", "ガギ パ"),
        ("one<br />two<p class='x'>three</p>", "one two three "),
        ("a < b > c", "a < b > c"),
        ("Tom &amp; Jerry&#39;s &quot;show&quot;", 'tom & jerry\'s "show"'),
        ("&amp;lt; &hearts; AT&T", "&lt;   at&t"),
        ("", ""),
        ("\x00\x01", "\x00\x01"),
        ("שלום 👍🏽", "שלום 👍🏽"),
        (b"ab\xff\xfecd\xe3", "ab\ufffd\ufffdcd\ufffd"),
    ],
)
def test_what_is_written_differently_becomes_the_same(text, expected):
    assert normalized(text) == [expected]


def test_a_mark_is_never_composed_with_the_text_before():
    assert normalized("e", "\u0301", "e\u0301") == ["e", "\u0301", "é"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ΟΔΟΣ", "οδοσ"),  # unicodedata: a sigma that ends a word becomes ς
        ("q\u0307\u0323", "q\u0307\u0323"),  # unicodedata: the mark below comes first
        ("\u1112\u1161\u11ab", "\u1112\u1161\u11ab"),  # unicodedata: one syllable, 한
    ],
)
def test_the_documented_differences_from_unicodedata(text, expected):
    assert normalized(text) == [expected]
    assert unicodedata.normalize("NFKC", text).lower() != expected


def test_a_text_is_cut_after_its_first_bytes_even_within_a_character():
    assert normalized_text(tf.constant(["aé"]), 2).numpy()[0].decode() == "a\ufffd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't  stop-me 'now' 3d", ["don't", "stop", "me", "now", "3d"]),
        ("what?! ''really''!", ["what", "?", "!", "really", "!"]),
        ("नमस्ते, दुनिया। שלום", ["नमस्ते", "दुनिया", "שלום"]),
        ("👍 … \u200b ' \x00 \ufffd", []),
        ("", []),
    ],
)
def test_words_are_letters_marks_and_digits(text, expected):
    assert [word.decode() for word in words(tf.constant([text]))[0].numpy()] == expected


def test_terms_are_sequences_of_words_then_of_characters():
    tokens = words(tf.constant(["ab c ab", ""]))
    found = terms(tokens, word_ngrams=2, character_ngrams=(2, 3)).to_list()
    assert [term.decode() for term in found[0]] == [
        "ab", "c", "ab", "ab_c", "c_ab",
        "#ab", "#b_", "#_c", "#c_", "#_a", "#ab", "#ab_", "#b_c", "#_c_", "#c_a", "#_ab",
    ]  # fmt: skip
    assert found[1] == []


def test_each_row_keeps_its_different_strings_with_their_counts():
    values, counts = distinct(tf.ragged.constant([["b", "a", "b"], [], ["a", "b"]], dtype=tf.string))
    assert values.to_list() == [[b"b", b"a"], [], [b"a", b"b"]]
    assert counts.to_list() == [[2, 1], [], [1, 1]]


def test_tf_idf_is_scikit_learns():
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = np.array([[2, 1, 0], [1, 0, 0], [0, 0, 3]])
    expected = TfidfTransformer(norm=None, sublinear_tf=True).fit_transform(counts).toarray()
    rows, columns = counts.nonzero()
    weights = tf_idf(tf.constant(counts[rows, columns]), tf.constant((counts > 0).sum(axis=0)[columns]), tf.constant(3))
    np.testing.assert_allclose(weights, expected[rows, columns], rtol=1e-6)


def test_the_vocabulary_holds_what_two_texts_have_with_their_number(word_graph):
    assert vocabulary(word_graph) == ["3 a", "3 film", "2 a_good", "2 good", "2 good_film", "2 not", "2 not_a"]


def test_terms_and_weights_of_the_reloaded_graph_are_those_computed_by_hand(word_graph):
    features = transformed(word_graph, "A good film. GOOD!", "not bad")
    # a, good, film, a_good, good_film; "good" occurs twice; 3, 2, 3, 2, 2 of the 5 texts have them.
    assert features["terms"].tolist() == [[1, 4, 2, 3, 5, 0], [6, 0, 0, 0, 0, 0]]
    three, two = 1 + math.log(6 / 4), 1 + math.log(6 / 3)
    weights = np.array([three, two * (1 + math.log(2)), three, two, two, 0])
    np.testing.assert_allclose(features["weights"], [weights / np.linalg.norm(weights), [1, 0, 0, 0, 0, 0]], rtol=1e-6)


def test_a_text_keeps_its_first_known_terms(word_graph):
    features = transformed(word_graph, "not a good film unknown not a good film")
    # not, a, good, film, not_a, a_good; good_film is one too many.
    assert features["terms"].tolist() == [[6, 1, 4, 2, 7, 3]]
    assert np.linalg.norm(features["weights"]) == pytest.approx(1)


@pytest.mark.parametrize("text", [None, "", "   ", "unknown words only", "👍", "\x00", b"\xff\xfe"])
def test_a_text_without_a_known_term_is_all_zero(word_graph, text):
    features = transformed(word_graph, text, "film")
    assert features["terms"].tolist() == [[0] * 6, [2, 0, 0, 0, 0, 0]]
    assert features["weights"].tolist() == [[0] * 6, [1, 0, 0, 0, 0, 0]]


def test_labels_are_numbered_and_a_missing_one_is_minus_one(word_graph):
    layer = tft.TFTransformOutput(word_graph).transform_features_layer()
    features = tf.io.parse_example([example(*row) for row in REVIEWS], RAW_FEATURES)
    assert layer(features)["label"].numpy().tolist() == [0, 0, 1, 1, -1]


def test_japanese_is_known_by_its_pairs_of_characters(character_graph):
    assert vocabulary(character_graph) == ["3 #い映", "3 #映画", "2 #白い", "2 #面白"]
    # つまらない is not known, 面白い is; no space says where a word ends.
    features = transformed(character_graph, "面白い!", "つまらない", "ﾂﾏﾗﾅｲ映画")
    assert features["terms"].tolist() == [[4, 3, 0, 0, 0, 0], [0] * 6, [2, 0, 0, 0, 0, 0]]


def test_a_column_of_numbers_is_refused_by_name():
    with pytest.raises(PreprocessingError, match="'review' holds numbers, expected text"):
        preprocessing_fn({"review": tf.constant([1, 2])}, {"preprocessing": WORDS.model_dump_json()})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"column": "opinion"}, "both 'opinion'"),
        ({"word_ngrams": 0}, "no terms are left"),
        ({"character_ngrams": (3, 2)}, r"received \[3, 2\]"),
    ],
)
def test_options_that_cannot_work_are_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TextOptions(label=LABEL, **options)
