import numpy as np
import pytest

from components.serving_check.check import mismatches
from serving.reference_predictions import ReferencePredictions

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
