"""The predictions of the eval split, put together from the artifacts of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from tfx.dsl.io import fileio
from tfx.utils import io_utils, path_utils

from components.evaluator.predict_examples import aligned
from components.run_report.eval_predictions import EvalPredictions
from components.run_report.finished_run import FinishedRun
from components.run_report.run_artifact import RunArtifact
from components.serving_check.eval_examples import read_examples
from serving import reference_predictions
from serving.export import LABEL, SERVE_EXAMPLES, TRANSFORM_FEATURES
from serving.labels import read_labels
from serving.model_store.provenance import PROVENANCE_FILE as PUBLISHED_PROVENANCE_FILE
from serving.model_store.provenance import fingerprints
from serving.reference_predictions import example_id
from serving.session_model import SessionModel
from trainers.leave_beside_export import PROVENANCE_FILE

EVAL_SPLIT = "eval"
BATCH_SIZE = 256


def read_predictions(run: FinishedRun) -> EvalPredictions | None:
    """Probabilities as the Trainer left them, the truth as the exported graph reads the label; None without a model.

    The model served before is asked anew, in a session: it left no predictions for these examples. It is not asked
    where it comes from the same data and code as the new one.
    """
    if not {"model", "examples"} <= set(run.artifacts):
        return None
    model = run.artifacts["model"]
    reference = reference_predictions.read(f"{model.uri}/{reference_predictions.FILE_NAME}")
    row_of = {id_: row for row, id_ in enumerate(reference.ids)}
    candidate = path_utils.serving_model_path(model.uri)
    labels = read_labels(candidate)
    baseline = run.artifacts.get("baseline_model")
    compared = baseline if baseline and baseline.flag("has_model") and not is_same_model(model, baseline) else None

    truth, rows, ids = [], [], []
    for records, numbers in _with_truth(candidate, eval_files(run)):
        for record, number in zip(records, numbers.tolist(), strict=True):
            row = row_of.get(id_ := example_id(record))
            if number >= 0 and row is not None:
                truth.append(number)
                rows.append(row)
                ids.append(id_)
    if not rows:
        return None
    return EvalPredictions(
        ids=ids,
        labels=labels,
        truth=np.array(truth, np.int64),
        probabilities=reference.probabilities[rows],
        baseline=_asked(compared, set(ids), eval_files(run), labels) if compared else None,
    )


def eval_files(run: FinishedRun) -> list[str]:
    """The TFRecord files of the eval split."""
    return sorted(fileio.glob(f"{run.artifacts['examples'].uri}/Split-{EVAL_SPLIT}/*"))


def is_same_model(model: RunArtifact, baseline: RunArtifact) -> bool:
    """Whether the served model comes from the same data and code as the new one."""
    new, old = f"{model.uri}/{PROVENANCE_FILE}", path_utils.serving_model_path(baseline.uri)
    published = f"{old}/{PUBLISHED_PROVENANCE_FILE}"
    if not fileio.exists(new) or not fileio.exists(published):
        return False
    mine, served = (fingerprints(json.loads(io_utils.read_string_file(path))) for path in (new, published))
    return mine == served


def _batches(files: Sequence[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for record in read_examples(files):
        batch.append(record)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _with_truth(saved_model: str, files: Sequence[str]) -> Iterator[tuple[list[bytes], np.ndarray]]:
    model = SessionModel(saved_model)
    try:
        for records in _batches(files):
            examples = {"examples": np.array(records, dtype=object)}
            yield records, model.run(TRANSFORM_FEATURES, examples, [LABEL])[LABEL]
    finally:
        model.close()


def _asked(baseline: RunArtifact, ids: set[str], files: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The baseline's probabilities of the chosen examples, in the order of the files and of the labels."""
    path = path_utils.serving_model_path(baseline.uri)
    model = SessionModel(path)
    try:
        answers = [
            model.run(SERVE_EXAMPLES, {"examples": np.array(chosen, dtype=object)})["probabilities"]
            for records in _batches(files)
            if (chosen := [record for record in records if example_id(record) in ids])
        ]
    finally:
        model.close()
    return aligned(np.concatenate(answers), read_labels(path), labels)
