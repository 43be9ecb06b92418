"""The preprocessing of texts, by its values: eagerly, in Transform's graph, and in the graph reloaded from disk."""

import math
import pickle
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
from transform.errors import PreprocessingError
from transform.options import LabelOptions, TextOptions
from transform.text import character_terms, distinct, distinct_numbers, preprocessing_fn, tf_idf, word_terms, words
from transform.text_normalization import normalized_text
from transform.vocabularies import TermCounts, information_gain, ranked_terms

MAXIMUM_BYTES = 1000
LABEL = LabelOptions(column="opinion")
WORDS = TextOptions(label=LABEL, column="review", character_ngrams=None, minimum_term_count=2, maximum_length=6)
CHARACTERS = TextOptions(label=LABEL, column="review", word_ngrams=0, character_ngrams=(2, 2), maximum_length=6)
SEQUENCE = TextOptions(label=LABEL, column="review", minimum_term_count=2, maximum_length=6).completed("sequence")
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


def vocabulary(path: str, name: str) -> list[str]:
    return [line.decode() for line in tft.TFTransformOutput(path).vocabulary_by_name(name)]


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
        ("… \u200b ' \x00 \ufffd", []),
        ("so👍🏽👍 ❤️!", ["so", "👍", "👍", "❤", "!"]),
        ("", []),
    ],
)
def test_words_are_letters_marks_and_digits(text, expected):
    assert [word.decode() for word in words(tf.constant([text]))[0].numpy()] == expected


def test_terms_are_sequences_of_words():
    found = word_terms(words(tf.constant(["ab c ab", ""])), longest=2).to_list()
    assert [term.decode() for term in found[0]] == ["ab", "c", "ab", "ab_c", "c_ab"]
    assert found[1] == []


def test_terms_are_sequences_of_characters_and_the_space_between_words():
    found = character_terms(words(tf.constant(["ab cé", ""])), shortest=2, longest=3).to_list()
    assert [term.decode() for term in found[0]] == ["ab", "b_", "_c", "cé", "ab_", "b_c", "_cé"]
    assert found[1] == []


def test_each_row_keeps_its_different_strings_and_numbers_in_the_order_in_which_they_come():
    strings = distinct(tf.ragged.constant([["b", "a", "b"], [], ["a", "b"]], dtype=tf.string))
    assert strings.to_list() == [[b"b", b"a"], [], [b"a", b"b"]]
    numbers, counts = distinct_numbers(tf.ragged.constant([[7, 2**40 - 1, 7], [], [0, 7]], dtype=tf.int64))
    assert numbers.to_list() == [[7, 2**40 - 1], [], [0, 7]]
    assert counts.numpy().tolist() == [2, 1, 1, 1]


def test_tf_idf_is_scikit_learns():
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = np.array([[2, 1, 0], [1, 0, 0], [0, 0, 3]])
    expected = TfidfTransformer(norm=None, sublinear_tf=True).fit_transform(counts).toarray()
    rows, columns = counts.nonzero()
    weights = tf_idf(tf.constant(counts[rows, columns]), tf.constant((counts > 0).sum(axis=0)[columns]), tf.constant(3))
    np.testing.assert_allclose(weights, expected[rows, columns], rtol=1e-6)


def test_the_vocabulary_holds_what_two_texts_have_with_their_number(word_graph):
    assert vocabulary(word_graph, "words") == ["3 a", "3 film", "2 a_good", "2 good", "2 good_film", "2 not", "2 not_a"]


def test_terms_and_weights_of_the_reloaded_graph_are_those_computed_by_hand(word_graph):
    features = transformed(word_graph, "A good film. GOOD!", "not bad")
    # a, good, film, a_good, good_film; "good" occurs twice; 3, 2, 3, 2, 2 of the 5 texts have them.
    assert features["words"].tolist() == [[1, 4, 2, 3, 5, 0], [6, 0, 0, 0, 0, 0]]
    three, two = 1 + math.log(6 / 4), 1 + math.log(6 / 3)
    weights = np.array([three, two * (1 + math.log(2)), three, two, two, 0])
    np.testing.assert_allclose(
        features["word_weights"], [weights / np.linalg.norm(weights), [1, 0, 0, 0, 0, 0]], rtol=1e-6
    )


def test_a_text_keeps_its_first_known_terms(word_graph):
    features = transformed(word_graph, "not a good film unknown not a good film")
    # not, a, good, film, not_a, a_good; good_film is one too many.
    assert features["words"].tolist() == [[6, 1, 4, 2, 7, 3]]
    assert np.linalg.norm(features["word_weights"]) == pytest.approx(1)


@pytest.mark.parametrize("text", [None, "", "   ", "unknown words only", "👍", "\x00", b"\xff\xfe"])
def test_a_text_without_a_known_term_is_all_zero(word_graph, text):
    features = transformed(word_graph, text, "film")
    assert features["words"].tolist() == [[0] * 6, [2, 0, 0, 0, 0, 0]]
    assert features["word_weights"].tolist() == [[0] * 6, [1, 0, 0, 0, 0, 0]]


def test_labels_are_numbered_and_a_missing_one_is_minus_one(word_graph):
    layer = tft.TFTransformOutput(word_graph).transform_features_layer()
    features = tf.io.parse_example([example(*row) for row in REVIEWS], RAW_FEATURES)
    assert layer(features)["label"].numpy().tolist() == [0, 0, 1, 1, -1]


def test_japanese_is_known_by_its_pairs_of_characters(character_graph):
    assert vocabulary(character_graph, "characters") == ["3 い映", "3 映画", "2 白い", "2 面白"]
    # つまらない is not known, 面白い is; no space says where a word ends.
    features = transformed(character_graph, "面白い!", "つまらない", "ﾂﾏﾗﾅｲ映画")
    assert features["characters"].tolist() == [[4, 3, 0, 0, 0, 0], [0] * 6, [2, 0, 0, 0, 0, 0]]
    assert set(features) == {"characters", "character_weights"}


def test_words_and_characters_have_numbers_and_weights_of_their_own(tmp_path):
    options = TextOptions(label=LABEL, column="review", word_ngrams=1, character_ngrams=(4, 4), maximum_length=2)
    path = transform_graph(tmp_path, REVIEWS, options)
    features = transformed(path, "film")
    word = 1 + vocabulary(path, "words").index("3 film")
    characters = 1 + vocabulary(path, "characters").index("3 film")
    assert features["words"].tolist() == [[word, 0]]
    assert features["characters"].tolist() == [[characters, 0]]
    assert features["word_weights"].tolist() == features["character_weights"].tolist() == [[1, 0]]


NOTHING_TWICE = [("一二三四五", "good"), ("六七八九十", "bad"), ("", "good"), (None, "bad")]


@pytest.mark.parametrize("features", ["terms", "sequence"])
def test_texts_of_which_no_term_comes_twice_leave_an_empty_vocabulary_that_works(tmp_path, features):
    options = TextOptions(label=LABEL, column="review", maximum_length=6).completed(features)
    found = transformed(transform_graph(tmp_path, NOTHING_TWICE, options), "一二三四五", "", None)
    unknown = [[1, 0, 0, 0, 0, 0], [0] * 6, [0] * 6]
    expected = {"terms": {"words": [[0] * 6] * 3, "characters": [[0] * 6] * 3}, "sequence": {"tokens": unknown}}
    for name, values in expected[features].items():
        assert found[name].tolist() == values


@pytest.mark.parametrize(
    ("given", "features", "kind", "expected"),
    [
        ({}, "terms", "characters", (0, (1, 4))),
        ({}, "terms", "words_and_characters", (2, (1, 5))),
        ({}, "terms", "words", (2, (3, 5))),
        ({}, "sequence", "characters", (0, (1, 1))),
        ({}, "sequence", "words", (1, None)),
    ],
)
def test_the_terms_that_suit_texts_are_taken_where_the_config_leaves_them_open(given, features, kind, expected):
    options = TextOptions(label=LABEL, **given).completed(features)
    assert options.leaves_terms_open
    chosen = options.with_terms(kind)
    assert (chosen.word_ngrams, chosen.character_ngrams) == expected


@pytest.mark.parametrize(
    ("given", "features"), [({"word_ngrams": 1}, "terms"), ({"character_ngrams": None}, "terms"), ({}, "text")]
)
def test_terms_that_a_config_gives_or_a_model_does_not_take_are_not_open(given, features):
    assert not TextOptions(label=LABEL, **given).completed(features).leaves_terms_open


def test_a_sequence_keeps_order_repetitions_and_unknown_words_and_is_cut(tmp_path):
    path = transform_graph(tmp_path, REVIEWS, SEQUENCE)
    assert vocabulary(path, "tokens") == ["3 a", "3 film", "2 good", "2 not"]
    features = transformed(path, "Film, a BAD film?", "not a film not a good film", None, "👍")
    assert features["tokens"].tolist() == [[3, 2, 1, 3, 1, 0], [5, 2, 3, 5, 2, 4], [0] * 6, [1] + [0] * 5]


def test_a_sequence_of_characters_is_for_languages_without_spaces(tmp_path):
    options = TextOptions(label=LABEL, column="review", word_ngrams=0, maximum_length=4).completed("sequence")
    path = transform_graph(tmp_path, JAPANESE, options)
    known = {line.split()[1]: number for number, line in enumerate(vocabulary(path, "tokens"), 2)}
    assert transformed(path, "面 映画猫")["tokens"].tolist() == [[known["面"], 1, known["映"], known["画"]]]


def test_a_model_that_takes_the_text_gets_it_as_it_is(tmp_path):
    options = TextOptions(label=LABEL, column="review", maximum_bytes=12).completed("text")
    path = transform_graph(tmp_path, REVIEWS, options)
    features = transformed(path, "A <b>Film</b>", b"caf\xe9", None)
    assert [text.decode() for text in features["text"]] == ["A <b>Film</b", "caf\ufffd", ""]


def test_information_gain_is_scikit_learns_mutual_information():
    from sklearn.metrics import mutual_info_score

    source = np.random.default_rng(0)
    labels, present = source.integers(0, 3, 200), source.integers(0, 2, [200, 5])
    present[:, 4] = labels == 2  # says all about one class
    counts = np.array([[present[labels == label, term].sum() for label in range(3)] for term in range(5)])
    expected = [mutual_info_score(labels, present[:, term]) for term in range(5)]
    np.testing.assert_allclose(information_gain(counts, np.bincount(labels)), expected, atol=1e-12)


def test_a_vocabulary_by_information_gain_knows_what_tells_the_class(tmp_path):
    rows = [("the fine film", "good"), ("the fine day", "good"), ("the dull film", "bad"), ("the dull day", "bad")]
    options = WORDS.model_copy(update={"vocabulary": "information_gain", "word_ngrams": 1, "maximum_terms": 2})
    path = transform_graph(tmp_path, [*rows, ("the the film", None), ("the film", None)], options)
    assert vocabulary(path, "words") == ["2 dull", "2 fine"]
    by_frequency = transform_graph(tmp_path / "other", rows, options.model_copy(update={"vocabulary": "frequency"}))
    assert vocabulary(by_frequency, "words") == ["4 the", "2 day"]


def batch(terms: list[bytes], counts: dict[bytes, list[int]]) -> tuple[np.ndarray, ...]:
    """One text of each label, and how often each term is in those of each."""
    of_labels = np.array(list(counts.values())).T
    return np.array(terms, object), of_labels, np.array(list(counts), object), np.ones(len(counts), np.int64)


def test_counting_forgets_the_rarest_terms_where_there_are_too_many():
    counts = TermCounts(maximum=10)
    for number in range(100):
        counts.add(*batch([b"often", b"%d" % number, b"%d" % (number % 3 + 1000)], {b"x": [1, 1, 1]}))
        assert len(counts.terms[b"x"]) <= 10
    assert counts.terms[b"x"][b"often"] == 100
    assert counts.texts[b"x"] == 100
    assert ranked_terms(counts, "frequency", minimum_count=50) == [(b"often", 100)]


def test_counts_of_several_workers_are_added_up():
    first, second = TermCounts(), TermCounts()
    first.add(*batch([b"a", b"b"], {b"x": [1, 0], b"y": [0, 1]}))
    second.add(*batch([b"a"], {b"x": [1], b"y": [1]}))
    first.merge(second)
    assert ranked_terms(first, "frequency", minimum_count=1) == [(b"a", 3), (b"b", 1)]
    assert first.texts == {b"x": 2, b"y": 2}


def test_counts_are_the_same_after_the_way_to_another_worker():
    counts = TermCounts(maximum=7)
    counts.add(*batch([b"a", b"b"], {b"x": [2, 0], b"y": [0, 1]}))
    assert pickle.loads(pickle.dumps(counts)) == counts
    assert pickle.loads(pickle.dumps(TermCounts())) == TermCounts()


def test_a_column_of_numbers_is_refused_by_name():
    with pytest.raises(PreprocessingError, match="'review' holds numbers, expected text"):
        preprocessing_fn({"review": tf.constant([1, 2])}, {"preprocessing": WORDS.model_dump_json()})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"column": "opinion"}, "both 'opinion'"),
        ({"word_ngrams": 0, "character_ngrams": None}, "no terms are left"),
        ({"character_ngrams": (3, 2)}, r"received \[3, 2\]"),
    ],
)
def test_options_that_cannot_work_are_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TextOptions(label=LABEL, **options)


@pytest.mark.parametrize(
    ("options", "features", "sentence"),
    [
        ({"word_ngrams": 2}, "sequence", "tokens of one kind"),
        ({"word_ngrams": 1, "character_ngrams": (1, 1)}, "sequence", "tokens of one kind"),
        ({"word_ngrams": 0, "character_ngrams": (1, 2)}, "sequence", "tokens of one kind"),
        ({"features": "terms"}, "text", "features is 'terms', the model takes 'text'"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(options, features, sentence):
    with pytest.raises(ValueError, match=sentence):
        TextOptions(label=LABEL, **options).completed(features)
