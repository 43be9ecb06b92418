"""Answers that differ from the trained model's, and answers of a wrong form."""

import numpy as np
import pytest
import tensorflow as tf

from components.errors import ModelUnavailable, RequestRefused
from components.serving_check.candidate import Candidate
from components.serving_check.check import disagreements, mismatches
from serving.answers import UnknownRule
from serving.reference_predictions import (
    FILE_NAME,
    ReferencePredictions,
    choose_examples,
    choose_ids,
    example_id,
    find_examples,
    read,
    read_examples,
    row_count,
    with_answers,
    write,
)
from serving.session_model import SessionModel
from tests.components.colour_model import ColourModel

VOCABULARY = ["blue", "green", "red"]
EXPECTED = ReferencePredictions(
    ids=["first", "second"],
    labels=["red", "blue"],
    probabilities=np.array([[0.1, 0.2, 0.7], [0.4000001, 0.4, 0.1999999]], np.float32),
)
RANKED = {
    "labels": np.array([[b"red", b"green", b"blue"], [b"blue", b"green", b"red"]], object),
    "probabilities": np.array([[0.7, 0.2, 0.1], [0.4000001, 0.4, 0.1999999]], np.float32),
    "error": np.array([b"", b""], object),
}


def differences(outputs: dict[str, np.ndarray], tolerance: float = 1e-5) -> list[str]:
    return mismatches(outputs, EXPECTED, VOCABULARY, tolerance)


def ranked(**changes: object) -> dict[str, np.ndarray]:
    return {name: np.array(changes.get(name, values), values.dtype) for name, values in RANKED.items()}


def test_equal_answers_of_every_form_have_no_difference():
    assert differences({"output_0": np.array([b"red", b"blue"], object)}) == []
    assert differences(RANKED) == []
    assert differences({"probabilities": EXPECTED.probabilities}) == []


def test_a_wrong_label_names_the_example_and_both_labels():
    assert differences({"output_0": np.array([b"blue", b"blue"], object)}) == [
        "example first: served 'blue', expected 'red' (their reference probabilities are 0.100000 and 0.700000)"
    ]


def test_a_label_may_differ_only_where_the_two_classes_are_closer_than_the_tolerance():
    other_of_a_tie = {"output_0": np.array([b"red", b"green"], object)}
    assert differences(other_of_a_tie, tolerance=1e-5) == []
    assert differences(other_of_a_tie, tolerance=1e-8) == [
        "example second: served 'green', expected 'blue' (their reference probabilities are 0.400000 and 0.400000)"
    ]


def test_a_label_outside_of_the_vocabulary_is_wrong():
    assert differences({"output_0": np.array([b"", b"blue"], object)}) == [
        "example first: served '', which is no label of the vocabulary; expected 'red'"
    ]


def test_a_probability_beyond_the_tolerance_names_class_and_both_values():
    served = EXPECTED.probabilities + np.array([[0, 0, 0], [0, 2e-5, -2e-5]], np.float32)
    assert differences({"probabilities": served}, tolerance=1e-4) == []
    (sentence,) = differences({"probabilities": served})
    assert sentence.startswith("example second: served probability 0.40002")
    assert sentence.endswith("of 'green', expected 0.40000001 within 1e-05")


def test_probabilities_that_are_not_numbers_are_wrong():
    served = EXPECTED.probabilities.copy()
    served[0, 1] = np.nan
    assert differences({"probabilities": served}) == [
        "example first: served probability nan of 'green', expected 0.2 within 1e-05"
    ]


def test_probabilities_of_swapped_labels_are_wrong_although_the_first_label_is_right():
    swapped = ranked(labels=[[b"red", b"blue", b"green"], [b"blue", b"green", b"red"]])
    assert differences(swapped) == ["example first: served probability 0.2 of 'blue', expected 0.1 within 1e-05"]


def test_a_shorter_ranking_is_compared_as_far_as_it_goes():
    shorter = {name: values[:, :2] if values.ndim == 2 else values for name, values in RANKED.items()}
    assert differences(shorter) == []
    shorter["probabilities"] = np.array([[0.7, 0.25], [0.4000001, 0.4]], np.float32)
    assert differences(shorter) == ["example first: served probability 0.25 of 'green', expected 0.2 within 1e-05"]


def test_an_error_answered_to_a_good_example_is_quoted():
    assert differences(ranked(error=[b"cannot be decoded", b""])) == [
        "example first: answered the error 'cannot be decoded'"
    ]


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"output_0": np.array([b"red"], object)}, "output 'output_0' has 1 rows for 2 examples"),
        ({"probabilities": np.ones((2, 4), np.float32)}, "example first: served 4 probabilities, expected 3"),
    ],
)
def test_outputs_of_another_shape_are_named(outputs, sentence):
    assert differences(outputs) == [sentence]


UNSURE = UnknownRule("unsure", threshold=0.5)
ALONE = UnknownRule("unsure", threshold=0.15, coverage=0.9, calibrated_on="half_of_eval", rows=20)


@pytest.mark.parametrize(
    ("rule", "answers"), [(UNSURE, ["red", "unsure"]), (ALONE, ["unsure", "unsure"])], ids=["confidence", "coverage"]
)
def test_the_answer_for_unknown_is_expected_where_the_rule_says_so_and_nowhere_else(rule, answers):
    expected = with_answers(EXPECTED, VOCABULARY, unknown=rule)
    assert (expected.labels, expected.served) == (["red", "blue"], answers)

    def said(outputs: dict[str, np.ndarray]) -> list[str]:
        return mismatches(outputs, expected, VOCABULARY, 1e-5, unknown=rule)

    right = np.array([answer.encode() for answer in answers], object)
    assert said({"output_0": right}) == said(ranked() | {"answer": right}) == []
    (sentence,) = said({"output_0": np.array([right[0], b"blue"], object)})
    assert sentence == (
        "example second: served 'blue', expected 'unsure' (the greatest reference probability is 0.400000, a label "
        f"needs {rule.threshold:.6f})"
    )
    assert (
        "example second: served 'blue', expected 'unsure'"
        in said(ranked() | {"answer": np.array([right[0], b"blue"], object)})[0]
    )


def test_the_answer_for_unknown_may_differ_where_a_probability_is_as_close_to_the_threshold_as_the_tolerance():
    rule = UnknownRule("unsure", threshold=0.4000003)
    expected = with_answers(EXPECTED, VOCABULARY, unknown=rule)
    assert expected.served == ["red", "unsure"]
    label = {"output_0": np.array([b"red", b"blue"], object)}
    assert mismatches(label, expected, VOCABULARY, 1e-5, unknown=rule) == []
    assert len(mismatches(label, expected, VOCABULARY, 1e-8, unknown=rule)) == 1


def test_answers_are_kept_beside_the_labels_in_the_file_and_their_rows(tmp_path):
    expected = with_answers(EXPECTED, VOCABULARY, unknown=UNSURE)
    write(f"{tmp_path}/{FILE_NAME}", expected)
    again = read(f"{tmp_path}/{FILE_NAME}")
    assert (again.labels, again.served, again.rows([1]).served) == (["red", "blue"], ["red", "unsure"], ["unsure"])
    write(f"{tmp_path}/{FILE_NAME}", EXPECTED)
    assert read(f"{tmp_path}/{FILE_NAME}").served == ["red", "blue"]


@pytest.fixture
def reasons(trained, eval_examples):
    """What the check says of an export, here in a session of the test's own process."""

    def find(exported: type[ColourModel], tolerance: float = 1e-5, maximum_examples: int = 1000) -> list[str]:
        model = trained(exported)
        path = f"{model.uri}/Format-Serving"
        files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
        candidate = Candidate.read(path, f"{model.uri}/{FILE_NAME}", files, maximum_examples)
        session = SessionModel(path)

        def run(signature, inputs):
            try:
                return session.run(signature, inputs)
            except tf.errors.OpError as error:
                raise RequestRefused(error.message) from error

        try:
            return disagreements(run, candidate, tolerance)
        finally:
            session.close()

    return find


def test_a_faithful_export_agrees_missing_values_included(reasons):
    assert reasons(ColourModel) == []


class ForgetsMissingSizes(ColourModel):
    def classify(self, size, shape):
        return super().classify(tf.where(size > -1e37, size, 0.0), shape)


def test_a_value_treated_differently_in_one_signature_is_found(reasons):
    found = reasons(ForgetsMissingSizes)
    assert len(found) == 4
    assert all(reason.startswith("classify, example ") for reason in found[:3])
    assert "expected" in found[0]
    # Rows 0, 7, … 35 have no size: six in batches, and again alone.
    assert found[3] == "classify: 9 more answers differ"


class LabelsInAnotherOrder(ColourModel):
    def serving_default(self, size, shape):
        numbers = tf.argmax(self.probabilities(size, shape), axis=1)
        return {"output_0": tf.gather(["red", "green", "blue"], numbers)}


def test_labels_in_another_order_than_in_training_are_found(reasons):
    found = reasons(LabelsInAnotherOrder)
    assert found[0].startswith("serving_default, example ")
    assert "served 'blue', expected 'red'" in found[0] or "served 'red', expected 'blue'" in found[0]


class DependsOnItsBatch(ColourModel):
    def serve_examples(self, examples):
        answers = super().serve_examples(examples)["probabilities"]
        return {"probabilities": answers + tf.cast(tf.shape(answers)[0] == 1, tf.float32) * 1e-3}


def test_an_answer_that_depends_on_the_batch_size_is_found(reasons):
    found = reasons(DependsOnItsBatch)
    assert found[0].startswith("serve_examples, example ")
    assert found[0].endswith("within 1e-05 (in a batch of 1)")
    assert found[3] == "serve_examples: 37 more answers differ"
    assert reasons(DependsOnItsBatch, tolerance=1e-2) == []


class NeedsTheLabel(ColourModel):
    def transform_features(self, examples):
        label = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.string)})["label"]
        return {"label": label}


def test_a_signature_that_needs_the_label_is_found(reasons):
    (reason,) = reasons(NeedsTheLabel)
    assert reason.startswith("transform_features, batch from example ")
    assert "Feature: label (data type: string) is required" in reason


class NoClassify(ColourModel):
    classify = None


def test_a_missing_signature_is_named(reasons):
    assert reasons(NoClassify) == [
        "the model has no signature 'classify'; its signatures are serve_examples, serving_default, transform_features"
    ]


class OtherOutput(ColourModel):
    def serving_default(self, size, shape):
        return {"colour": super().serving_default(size, shape)["output_0"]}


def test_a_missing_output_is_named(reasons):
    assert reasons(OtherOutput) == ["serving_default has no output 'output_0'; its outputs are colour"]


class InfiniteFeatures(ColourModel):
    def transform_features(self, examples):
        return {"inverse": 1 / super().transform_features(examples)["size"]}


def test_transformed_features_that_are_not_finite_are_named(reasons):
    assert reasons(InfiniteFeatures) == ["transform_features: feature 'inverse' has values that are not finite"]


def test_only_so_many_examples_are_sent_and_always_the_same(trained, eval_examples):
    model = trained()
    files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
    chosen = [
        Candidate.read(f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}", files, 12).expected.ids
        for _ in range(2)
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 12
    batches = list(Candidate.read(f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}", files, 35).batches())
    assert batches[:3] == [slice(0, 32), slice(32, 35), slice(0, 1)]
    assert batches[-1] == slice(34, 35)


def test_examples_without_a_reference_are_left_out_and_counted(trained, eval_examples):
    model = trained()
    files = tf.io.gfile.glob(f"{eval_examples.uri}/Split-eval/*")
    path, reference = f"{model.uri}/Format-Serving", f"{model.uri}/{FILE_NAME}"
    full = Candidate.read(path, reference, files, 1000).expected
    write(reference, ReferencePredictions(full.ids[5:], full.labels[5:], full.probabilities[5:]))
    candidate = Candidate.read(path, reference, files, 1000)
    assert (candidate.looked_at, candidate.left_out, len(candidate.examples)) == (40, 5, 35)
    write(reference, ReferencePredictions(["other"], ["red"], full.probabilities[:1]))
    with pytest.raises(ModelUnavailable, match=r"none of the 40 examples in .* has a reference prediction"):
        Candidate.read(path, reference, files, 1000)


def test_reference_predictions_written_in_parts_are_read_whole_by_ids_or_as_a_drawn_share(tmp_path):
    path = str(tmp_path / FILE_NAME)
    ids = [example_id(f"{row}".encode()) for row in range(1000)]
    chance = np.random.default_rng(0).random([1000, 2]).astype(np.float32)
    parts = [slice(0, 700), slice(700, 701), slice(701, 1000)]
    write(path, (ReferencePredictions(ids[part], ["red"] * len(ids[part]), chance[part]) for part in parts))
    whole = read(path)
    assert whole.ids == ids and (whole.probabilities == chance).all() and whole.answers is None
    two = read(path, {ids[705], ids[3], "other"})
    assert two.ids == [ids[3], ids[705]] and (two.probabilities == chance[[3, 705]]).all()
    assert read(path, ["other"]).probabilities.shape == (0, 2)
    assert row_count(path) == 1000


def test_examples_are_chosen_by_the_smallest_ids_from_files_of_many_batches(tmp_path):
    records = [f"record {number % 2500}".encode() for number in range(4000)]  # many of them twice
    files = [f"{tmp_path}/a.gz", f"{tmp_path}/b.gz", f"{tmp_path}/plain", f"{tmp_path}/empty.gz"]
    for file, part in zip(files, (records[:1400], records[1400:2600], records[2600:], []), strict=True):
        with tf.io.TFRecordWriter(file, "GZIP" if file.endswith(".gz") else "") as writer:
            for record in part:
                writer.write(record)
    assert list(read_examples(files)) == records
    by_id = sorted((example_id(record), record) for record in records)
    for most in (1, 77, 1200, 5000):
        assert choose_examples(files, most) == (by_id[:most], 4000)


def test_of_many_files_the_first_examples_of_each_are_looked_at_and_others_are_still_found(tmp_path):
    files = [f"{tmp_path}/{number:02}.gz" for number in range(20)]
    records = [[f"{file} {row}".encode() for row in range(50)] for file in files]
    for file, part in zip(files, records, strict=True):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for record in part:
                writer.write(record)
    first = [record for part in records for record in part[:5]]
    assert list(read_examples(files, 100)) == list(read_examples(files, 81)) == first
    assert list(read_examples(files)) == [record for part in records for record in part]
    assert list(read_examples(files[:15], 100)) == [record for part in records[:15] for record in part]
    ids = {example_id(record): record for record in first}
    assert choose_examples(files, 7, among=100) == (sorted(ids.items())[:7], 100)
    assert choose_examples(files, 120, among=100)[1] == 120  # as many as are asked for
    assert choose_ids(files, 100) == sorted(ids)
    wanted = {example_id(record): record for record in (records[3][1], records[19][49])}
    assert find_examples(files, set(wanted), 100) == wanted
    assert find_examples(files, {*wanted, "of no example"}, 100) == wanted
