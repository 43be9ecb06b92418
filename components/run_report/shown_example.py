"""Examples that a report shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.run_report.eval_predictions import EvalPredictions
from components.run_report.finished_run import FinishedRun
from components.run_report.read_predictions import eval_files
from components.run_report.shown_input import ShownInput, shown_input
from components.serving_check.eval_examples import read_examples
from serving.reference_predictions import example_id

SHOWN_MISTAKES = 8


@dataclass(frozen=True)
class ShownExample:
    """An example, what is true of it, and what the model says.

    Attributes:
        id: see serving.reference_predictions.
        truth: its label.
        predicted: the model's label.
        probability: the model's probability of that label.
        input: the raw input.
    """

    id: str
    truth: str
    predicted: str
    probability: float
    input: ShownInput


def confident_mistakes(run: FinishedRun, predictions: EvalPredictions) -> list[ShownExample]:
    """The examples that the model was most sure of and wrong about, the surest first."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    confidence = predictions.probabilities.max(axis=1)
    return _shown(run, predictions, wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN_MISTAKES].tolist())


def one_of_each_class(run: FinishedRun, predictions: EvalPredictions, at_most: int = 6) -> list[ShownExample]:
    """The first example of each class, of the first few classes."""
    rows = [np.flatnonzero(predictions.truth == number) for number in range(len(predictions.labels))]
    return _shown(run, predictions, [int(found[0]) for found in rows if len(found)][:at_most])


def _shown(run: FinishedRun, predictions: EvalPredictions, rows: list[int]) -> list[ShownExample]:
    wanted = {predictions.ids[row] for row in rows}
    inputs: dict[str, ShownInput] = {}
    for record in read_examples(eval_files(run)):
        if len(inputs) == len(wanted):
            break
        if (id_ := example_id(record)) in wanted:
            inputs[id_] = shown_input(record, [run.label_column()])
    return [
        ShownExample(
            id=predictions.ids[row],
            truth=predictions.labels[predictions.truth[row]],
            predicted=predictions.labels[predictions.predicted[row]],
            probability=float(predictions.probabilities[row].max()),
            input=inputs[predictions.ids[row]],
        )
        for row in rows
    ]
