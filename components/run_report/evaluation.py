"""The eval split of a run: TFMA's metrics, the predictions of the models, and examples of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from PIL import Image, ImageOps, UnidentifiedImageError
from tfx.dsl.io import fileio
from tfx.utils import io_utils, path_utils

from components.evaluator.eval_config import BASELINE, CANDIDATE, aligned, example_weight, slice_name
from components.run_report.finished_run import FinishedRun, RunArtifact
from components.run_report.statistics import EvalPredictions
from serving import reference_predictions
from serving.answers import read_decision
from serving.model_store import PROVENANCE_FILE as PUBLISHED_PROVENANCE_FILE
from serving.model_store import fingerprints
from serving.reference_predictions import choose_ids, example_id, find_examples, read_examples
from serving.session_model import SessionModel
from serving.signatures.common import LABEL, SERVE_EXAMPLES, TRANSFORM_FEATURES, read_labels
from trainers.artifacts import PROVENANCE_FILE


@dataclass(frozen=True)
class SliceMetrics:
    """The metrics of a part of the eval split.

    Attributes:
        slice: such as `sex=1`; "" for all examples.
        candidate: metric -> value of the new model.
        baseline: metric -> value of the model served before; {} where there is none.
    """

    slice: str
    candidate: Mapping[str, float]
    baseline: Mapping[str, float]


def read_evaluation(evaluation: RunArtifact) -> list[SliceMetrics]:
    """The slices of an evaluation, all examples first."""
    found = [_metrics(metrics) for metrics in tfma.load_metrics(evaluation.uri)]
    return sorted(found, key=lambda metrics: metrics.slice)


def _metrics(metrics: tfma.proto.metrics_for_slice_pb2.MetricsForSlice) -> SliceMetrics:
    models: dict[str, dict[str, float]] = {CANDIDATE: {}, BASELINE: {}}
    for metric in metrics.metric_keys_and_values:
        key = metric.key
        if key.is_diff or key.HasField("sub_key") or metric.value.WhichOneof("type") != "double_value":
            continue
        # TFMA names the model only where there are two.
        models[key.model_name or CANDIDATE][key.name] = metric.value.double_value.value
    return SliceMetrics(slice_name(metrics.slice_key), models[CANDIDATE], models[BASELINE])


# Figures and charts of more examples hardly differ from those of so many; the Evaluator looks at all of them.
MOST_EXAMPLES = 200_000
EVAL_SPLIT, TEST_SPLIT = "eval", "test"
BATCH_SIZE = 256


def read_predictions(run: FinishedRun, with_baseline: bool = True) -> EvalPredictions | None:
    """Probabilities and truth as the Trainer left them; None without a model, or where the truth was not left.

    The model served before is asked anew, in a session: it left no predictions for these examples. It is not asked
    where it comes from the same data and code as the new one. Of more than MOST_EXAMPLES, so many are drawn.

    Args:
        run: whose Trainer.
        with_baseline: whether the model served before is asked.
    """
    if not {"model", "examples"} <= set(run.artifacts):
        return None
    model = run.artifacts["model"]
    file = f"{model.uri}/{reference_predictions.FILE_NAME}"
    files, count = eval_files(run), reference_predictions.row_count(file)
    is_drawn = count > MOST_EXAMPLES
    reference = reference_predictions.read(file, choose_ids(files, MOST_EXAMPLES) if is_drawn else None)
    if reference.truth is None:
        return None
    usable = np.flatnonzero(reference.truth >= 0)
    if not len(usable):
        return None
    truth, reference = reference.truth[usable], reference.rows(usable.tolist())
    candidate = path_utils.serving_model_path(model.uri)
    labels = read_labels(candidate)
    baseline = run.artifacts.get("baseline_model") if with_baseline else None
    compared = baseline if baseline and baseline.flag("has_model") and not is_same_model(model, baseline) else None
    weight = run.config.get("data", {}).get("weight")
    most = MOST_EXAMPLES if is_drawn else None
    return EvalPredictions(
        ids=reference.ids,
        labels=labels,
        truth=truth,
        probabilities=reference.probabilities,
        baseline=_asked(compared, reference.ids, read_examples(files, most), labels) if compared else None,
        weights=_weights(reference.ids, read_examples(files, most), weight) if weight else None,
        decision=read_decision(candidate),
        baseline_decision=read_decision(path_utils.serving_model_path(compared.uri)) if compared else None,
        drawn_of=count if is_drawn else None,
    )


def read_test_predictions(run: FinishedRun, count: int) -> EvalPredictions | None:
    """What the exported model says of the test split, in a session; None without such a split, or without a model.

    Args:
        run: whose model.
        count: how many examples the split holds; of more than MOST_EXAMPLES, so many are drawn.
    """
    if not {"model", "examples"} <= set(run.artifacts):
        return None
    if TEST_SPLIT not in json.loads(run.artifacts["examples"].text("split_names") or "[]"):
        return None
    path = path_utils.serving_model_path(run.artifacts["model"].uri)
    ids: list[str] = []
    truth, probabilities = [], []
    weight = run.config.get("data", {}).get("weight")
    weights: list[float] = []
    model = SessionModel(path)
    try:
        for records in _batches(_drawn(_split_files(run, TEST_SPLIT), count)):
            examples = {"examples": np.array(records, dtype=object)}
            numbers = model.run(TRANSFORM_FEATURES, examples, [LABEL])[LABEL]
            usable = numbers >= 0
            if weight:
                used = [record for record, use in zip(records, usable, strict=True) if use]
                weights += [example_weight(tf.train.Example.FromString(record), weight) for record in used]
            ids += [example_id(record) for record, use in zip(records, usable, strict=True) if use]
            truth.append(numbers[usable])
            probabilities.append(model.run(SERVE_EXAMPLES, examples)["probabilities"][usable])
    finally:
        model.close()
    if not ids:
        return None
    return EvalPredictions(
        ids=ids,
        labels=read_labels(path),
        truth=np.concatenate(truth),
        probabilities=np.concatenate(probabilities),
        weights=np.array(weights) if weight else None,
        decision=read_decision(path),
        drawn_of=count if count > MOST_EXAMPLES else None,
    )


def _drawn(files: Sequence[str], count: int) -> Iterable[bytes]:
    """The examples of a split; of more than MOST_EXAMPLES, so many."""
    if count <= MOST_EXAMPLES:
        return read_examples(files)
    chosen = set(choose_ids(files, MOST_EXAMPLES))
    return (record for record in read_examples(files, MOST_EXAMPLES) if example_id(record) in chosen)


def eval_files(run: FinishedRun) -> list[str]:
    """The TFRecord files of the eval split."""
    return _split_files(run, EVAL_SPLIT)


def _split_files(run: FinishedRun, split: str) -> list[str]:
    return sorted(fileio.glob(f"{run.artifacts['examples'].uri}/Split-{split}/*"))


def is_same_model(model: RunArtifact, baseline: RunArtifact) -> bool:
    """Whether the served model comes from the same data and code as the new one."""
    new, old = f"{model.uri}/{PROVENANCE_FILE}", path_utils.serving_model_path(baseline.uri)
    published = f"{old}/{PUBLISHED_PROVENANCE_FILE}"
    if not fileio.exists(new) or not fileio.exists(published):
        return False
    mine, served = (fingerprints(json.loads(io_utils.read_string_file(path))) for path in (new, published))
    return mine == served


def _batches(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _weights(ids: Sequence[str], records: Iterable[bytes], column: str) -> np.ndarray:
    """float64 [n]: of the examples with these ids."""
    of_id = {example_id(record): example_weight(tf.train.Example.FromString(record), column) for record in records}
    return np.array([of_id[id_] for id_ in ids])


def _asked(baseline: RunArtifact, ids: Sequence[str], examples: Iterable[bytes], labels: Sequence[str]) -> np.ndarray:
    """The baseline's probabilities of the examples with these ids, in the order of the labels."""
    path = path_utils.serving_model_path(baseline.uri)
    wanted = set(ids)
    of_id: dict[str, np.ndarray] = {}
    model = SessionModel(path)
    try:
        for records in _batches(examples):
            chosen = {id_: record for record in records if (id_ := example_id(record)) in wanted}
            if chosen:
                asked = {"examples": np.array(list(chosen.values()), dtype=object)}
                of_id |= dict(zip(chosen, model.run(SERVE_EXAMPLES, asked)["probabilities"], strict=True))
    finally:
        model.close()
    return aligned(np.stack([of_id[id_] for id_ in ids]), read_labels(path), labels)


THUMBNAIL_PIXELS = 160
SHOWN_CHARACTERS = 600
_IMAGE_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


@dataclass(frozen=True)
class ShownInput:
    """The input of an example.

    Attributes:
        fields: name and text of each feature but the label.
        picture: a data URI of a small copy, where the input is a photo; "" where it is none.
    """

    fields: tuple[tuple[str, str], ...]
    picture: str = ""


def shown_input(record: bytes, hidden: Sequence[str]) -> ShownInput:
    """What a serialized tf.Example holds.

    Args:
        record: the example.
        hidden: features that are not shown: the label.
    """
    fields, picture = [], ""
    for name, feature in sorted(tf.train.Example.FromString(record).features.feature.items()):
        if name in hidden:
            continue
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if values and isinstance(values[0], bytes) and values[0].startswith(_IMAGE_BEGINNINGS):
            picture = _thumbnail(values[0])
        else:
            fields.append((name, ", ".join(_text(value) for value in values) or "(missing)"))
    return ShownInput(tuple(fields), picture)


def _text(value: bytes | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def _thumbnail(photo: bytes) -> str:
    try:
        with Image.open(io.BytesIO(photo)) as opened:
            opened.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            small = ImageOps.exif_transpose(opened).convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


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
    confidence = predictions.probabilities[np.arange(len(predictions.truth)), predictions.predicted]
    return _shown(run, predictions, wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN_MISTAKES].tolist())


def one_of_each_class(run: FinishedRun, predictions: EvalPredictions, at_most: int = 6) -> list[ShownExample]:
    """The first example of each class, of the first few classes."""
    rows = [np.flatnonzero(predictions.truth == number) for number in range(len(predictions.labels))]
    return _shown(run, predictions, [int(found[0]) for found in rows if len(found)][:at_most])


def _shown(run: FinishedRun, predictions: EvalPredictions, rows: list[int]) -> list[ShownExample]:
    records = find_examples(eval_files(run), {predictions.ids[row] for row in rows}, MOST_EXAMPLES)
    inputs = {id_: shown_input(record, [run.label_column()]) for id_, record in records.items()}
    return [
        ShownExample(
            id=predictions.ids[row],
            truth=predictions.labels[predictions.truth[row]],
            predicted=predictions.labels[predictions.predicted[row]],
            probability=float(predictions.probabilities[row, predictions.predicted[row]]),
            input=inputs[predictions.ids[row]],
        )
        for row in rows
    ]
