"""Why a model answers so: the signature `explain`, asked about the eval split."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tfx.utils import path_utils

from components.errors import printable
from components.run_report.evaluation import MOST_EXAMPLES, ShownExample, eval_files
from components.run_report.finished_run import FinishedRun
from components.serving_check.candidate import read_signatures, request_inputs, without_label
from serving.reference_predictions import choose_examples, find_examples
from serving.session_model import SessionModel
from serving.signatures.explain import BASE, CONTRIBUTIONS, ERROR, EXPLAIN, LABEL, PARTS, PROBABILITY

# Of more rows a mean is hardly another; and so long at most, of which the first row is always there.
MOST_ROWS, MOST_SECONDS = 64, 15.0
SHOWN_REASONS = 6
SHOWN_PARTS = 30


@dataclass(frozen=True)
class Reasons:
    """What speaks for an answer and against it.

    Attributes:
        label: that is answered.
        probability: of it.
        base: that it has without the input.
        largest: parts and what they add, the largest first.
        heat: what each region of a photo adds, row by row, the largest scaled to 1 or -1; () where there are none.
    """

    label: str
    probability: float
    base: float
    largest: tuple[tuple[str, float], ...]
    heat: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Importance:
    """How much parts add, either way.

    Attributes:
        rows: of how many rows of the eval split.
        parts: columns and the mean of their contributions' magnitudes, the largest first.
    """

    rows: int
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explained:
    """What a report says of reasons.

    Attributes:
        importance: of columns; None where the inputs are none.
        of_mistakes: id of an example -> why it is answered so; as many as there was time for.
    """

    importance: Importance | None
    of_mistakes: Mapping[str, Reasons]


def explained_run(run: FinishedRun, mistakes: Sequence[ShownExample]) -> Explained | None:
    """Ask the exported model in a session; None where it does not explain, or there is nothing to ask about.

    Args:
        run: that ended.
        mistakes: examples of the eval split.
    """
    if not {"model", "examples"} <= set(run.artifacts):
        return None
    path = path_utils.serving_model_path(run.artifacts["model"].uri)
    if EXPLAIN not in read_signatures(path):
        return None
    model = SessionModel(path)
    try:
        records = find_examples(eval_files(run), {one.id for one in mistakes}, MOST_EXAMPLES)
        found = dict(_asked(model, run, [(one.id, records[one.id]) for one in mistakes if one.id in records]))
        of_mistakes = {id_: _reasons(answer) for id_, answer in found.items() if not answer[ERROR]}
        importance = None
        if len(model.signatures[EXPLAIN].inputs) > 1:
            chosen, _ = choose_examples(eval_files(run), MOST_ROWS)
            importance = _importance([answer for _, answer in _asked(model, run, chosen)])
        return Explained(importance, of_mistakes)
    finally:
        model.close()


def _asked(
    model: SessionModel, run: FinishedRun, examples: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
    """Id and the outputs of a row, of as many examples as there is time for."""
    signature = model.signatures[EXPLAIN]
    column = run.config.get("preprocessing", {}).get("column", "")
    renamed = dict.fromkeys(signature.inputs, column) if column and len(signature.inputs) == 1 else {}
    until = time.monotonic() + MOST_SECONDS
    for number, (id_, record) in enumerate(examples):
        if number and time.monotonic() > until:
            return
        example = without_label(tf.train.Example.FromString(record), signature.inputs, renamed)
        answer = model.run(EXPLAIN, request_inputs(signature, [example]))
        yield id_, {name: values[0] for name, values in answer.items()}


def _reasons(answer: Mapping[str, np.ndarray]) -> Reasons:
    contributions = answer[CONTRIBUTIONS]
    heat: tuple[tuple[float, ...], ...] = ()
    if PARTS in answer:
        names = [printable(_text(part)) for part in answer[PARTS]]
    else:
        names = [f"region {row + 1}/{column + 1}" for row, column in np.ndindex(contributions.shape)]
        largest = float(np.abs(contributions).max()) or 1.0
        heat = tuple(tuple((line / largest).tolist()) for line in contributions)
    values = contributions.reshape(-1)
    order = np.argsort(-np.abs(values), kind="stable")[:SHOWN_REASONS]
    return Reasons(
        label=_text(answer[LABEL]),
        probability=float(answer[PROBABILITY]),
        base=float(answer[BASE]),
        largest=tuple((names[place], float(values[place])) for place in order if values[place]),
        heat=heat,
    )


def _importance(answers: Sequence[Mapping[str, np.ndarray]]) -> Importance | None:
    if not answers:
        return None
    means = np.mean([np.abs(answer[CONTRIBUTIONS]) for answer in answers], axis=0)
    order = np.argsort(-means, kind="stable")[:SHOWN_PARTS]
    return Importance(len(answers), tuple((_text(answers[0][PARTS][place]), float(means[place])) for place in order))


def _text(value: Any) -> str:
    text: str = value.decode("utf-8", "replace")
    return text
