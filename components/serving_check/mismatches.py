"""Served answers that differ from the trained model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.reference_predictions import ReferencePredictions


def mismatches(
    outputs: Mapping[str, np.ndarray], expected: ReferencePredictions, vocabulary: Sequence[str], tolerance: float
) -> list[str]:
    """A sentence for each row that one signature answered differently; [] when all agree.

    Which outputs there are decides what is compared: `output_0` (labels [n]); `labels` and `probabilities` [n, k], best
    first, with `error` [n]; or `probabilities` [n, classes] in vocabulary order.

    Args:
        outputs: what the signature answered to n examples.
        expected: the reference predictions of these n examples.
        vocabulary: the label of each class.
        tolerance: how far a probability may be from its reference. A label may differ only where the two classes'
            reference probabilities are closer to each other than that.
    """
    wrong_rows = [
        f"output {name!r} has {len(values)} rows for {len(expected.ids)} examples"
        for name, values in outputs.items()
        if len(values) != len(expected.ids)
    ]
    if wrong_rows:
        return wrong_rows
    found: dict[int, str] = {}
    if "probabilities" in outputs:
        served, shown = outputs["probabilities"], None
        if "labels" in outputs:
            served, shown = _in_vocabulary_order(outputs["labels"], served, vocabulary)
        found |= _probabilities(served, shown, expected, vocabulary, tolerance)
    # The sentence that says most of a row replaces the others.
    for name, labels in (("labels", outputs.get("labels")), ("output_0", outputs.get("output_0"))):
        if labels is not None:
            found |= _labels(labels[:, 0] if name == "labels" else labels, expected, vocabulary, tolerance)
    found |= {
        row: f"answered the error {_text(error)!r}" for row, error in enumerate(outputs.get("error", ())) if error
    }
    return [f"example {expected.ids[row]}: {found[row]}" for row in sorted(found)]


def _labels(
    served: np.ndarray, expected: ReferencePredictions, vocabulary: Sequence[str], tolerance: float
) -> dict[int, str]:
    found = {}
    classes = {label: number for number, label in enumerate(vocabulary)}
    for row, (label, wanted) in enumerate(zip(map(_text, served), expected.labels, strict=True)):
        if label == wanted:
            continue
        reference = expected.probabilities[row]
        if label not in classes:
            found[row] = f"served {label!r}, which is no label of the vocabulary; expected {wanted!r}"
        elif not abs(reference[classes[label]] - reference[classes[wanted]]) < tolerance:
            found[row] = (
                f"served {label!r}, expected {wanted!r} (their reference probabilities are "
                f"{reference[classes[label]]:.6f} and {reference[classes[wanted]]:.6f})"
            )
    return found


def _in_vocabulary_order(
    labels: np.ndarray, probabilities: np.ndarray, vocabulary: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, k] of ranked labels as [n, classes], and which classes are among the k."""
    classes = {label.encode(): number for number, label in enumerate(vocabulary)}
    # A label of no class lands in an extra column, and leaves a class without its probability.
    numbers = np.array([[classes.get(label, len(classes)) for label in row] for row in labels])
    ordered = np.full((len(labels), len(classes) + 1), np.nan, np.float32)
    np.put_along_axis(ordered, numbers, probabilities, axis=1)
    shown = np.zeros(ordered.shape, bool)
    np.put_along_axis(shown, numbers, True, axis=1)
    # All classes were asked for where k is their number; of a shorter ranking, those that it names.
    return ordered[:, :-1], shown[:, :-1] | (labels.shape[1] >= len(classes))


def _probabilities(
    served: np.ndarray,
    shown: np.ndarray | None,
    expected: ReferencePredictions,
    vocabulary: Sequence[str],
    tolerance: float,
) -> dict[int, str]:
    reference = expected.probabilities
    if served.shape != reference.shape:
        return {0: f"served {served.shape[-1]} probabilities, expected {reference.shape[-1]}"}
    distance = np.abs(served - reference)
    wrong = ~(distance <= tolerance)  # NaN is wrong too
    if shown is not None:
        wrong &= shown
    found = {}
    for row in np.flatnonzero(wrong.any(axis=1)):
        worst = int(np.argmax(np.where(wrong[row], np.nan_to_num(distance[row], nan=np.inf), -1)))
        found[int(row)] = (
            f"served probability {served[row, worst]:.8g} of {vocabulary[worst]!r}, "
            f"expected {reference[row, worst]:.8g} within {tolerance:g}"
        )
    return found


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
