"""The serving check: load, ask, compare, measure, and report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.errors import ModelUnavailable, RequestRefused
from components.serving_check.candidate import BATCH_SIZE, Candidate
from components.serving_check.model_process import ModelProcess
from components.serving_check.model_server import ModelServer, Request, read_warmup_requests, write_warmup_requests
from serving.answers import Decision, UnknownRule
from serving.reference_predictions import ReferencePredictions
from serving.signatures.common import ANSWER, CLASSIFY, SERVE_EXAMPLES, SERVING_DEFAULT, TRANSFORM_FEATURES

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Report:
    """The verdict and the figures behind it.

    Attributes:
        reasons: why the model is not blessed; empty when it is.
        examples: among how many examples of the split a choice was made: all, or of very many a part.
        checked: how many of them were sent.
        left_out: how many were chosen and have no reference prediction: training left them out as unusable.
        tolerance: how far a probability might be from its reference.
        warmup_requests: how many requests the model was given to warm up with.
        loaders: what the model was loaded with.
        load_seconds: how long the session took to load it; None where it did not.
        latency_ms: signature -> batch size -> {"p50", "p99", "runs"}, in the session, without transport.
    """

    reasons: Sequence[str]
    examples: int
    checked: int
    left_out: int
    tolerance: float
    warmup_requests: int
    loaders: Sequence[str]
    load_seconds: float | None
    latency_ms: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def blessed(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """The report as it is written to the artifact."""
        return {"blessed": self.blessed, **asdict(self)}


def read_provenance(file: str) -> dict[str, Any]:
    """What the Trainer says of a model, or what is published with it; {} where there is no such file."""
    found: dict[str, Any] = json.loads(io_utils.read_string_file(file)) if fileio.exists(file) else {}
    return found


def remark(provenance: Mapping[str, Any]) -> str:
    """A sentence for people about what is wrapped, rows on disk or a lower precision; "" where there is nothing to say.

    Args:
        provenance: what the Trainer says of the model.
    """
    wrapped = provenance.get("wrapped")
    if wrapped:
        return (
            f"of all {wrapped['rows']:,} rows of the data, {wrapped['labels_equal']:,} labels are the library's; "
            f"probabilities are {wrapped['greatest_difference']:.1g} apart at most"
        )
    streamed = provenance.get("streamed")
    if streamed:
        sentence = f"learned from {streamed['rows']:,} rows on disk, for trainer.memory is {streamed['memory']:,} bytes"
        held = streamed.get("rows_in_memory", streamed["rows"])
        return sentence + (f"; what is no network, from {held:,} of them" if held < streamed["rows"] else "")
    return "; ".join(filter(None, [provenance.get("scalings", {}).get("said", ""), _precision_remark(provenance)]))


def _precision_remark(provenance: Mapping[str, Any]) -> str:
    refused = provenance.get("int8_refused")
    if refused:
        return f"exported in float32, for int8 is refused: {refused.get('reason') or _too_little_of(refused)}"
    gain = provenance.get("time_of_float32")
    if not gain:
        return ""
    remark = f"{provenance['precision']}: the network {_gain_of(provenance)}"
    if min(gain.values()) >= 1:
        remark += ", so nothing is gained on this machine; it is for CPUs with AVX512-BF16 or AMX"
    return remark


def _too_little_of(refused: Mapping[str, Any]) -> str:
    limits = refused["limits"]
    return (
        f"the network {_gain_of(refused)}; expected at most {limits['time_of_float32']} of the time, and at most "
        f"{limits['fewer_told']} fewer"
    )


def _gain_of(figures: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{share:.2f} at batch {batch}" for batch, share in figures["time_of_float32"].items())
    told = figures.get("told")
    photos = f", and tells {told['int8']:.4f} of the photos for {told['float32']:.4f}" if told else ""
    return f"takes {shares} of its time in float32{photos}"


def mismatches(
    outputs: Mapping[str, np.ndarray],
    expected: ReferencePredictions,
    vocabulary: Sequence[str],
    tolerance: float,
    decision: Decision | None = None,
    unknown: UnknownRule | None = None,
) -> list[str]:
    """A sentence for each row that one signature answered differently; [] when all agree.

    Which outputs there are decides what is compared: `output_0` (answers [n]); `labels` and `probabilities` [n, k],
    best first, with `error` [n], and `answer` [n] where that is not always the best label; or `probabilities`
    [n, classes] in vocabulary order.

    Args:
        outputs: what the signature answered to n examples.
        expected: the reference predictions of these n examples.
        vocabulary: the label of each class.
        tolerance: how far a probability may be from its reference. A label may differ only where the two classes'
            reference probabilities are closer to each other than that, and what a decision or the label for unknown
            changes only where a probability is so close to the threshold.
        decision: which label serving_default answers, where it is not the most probable one.
        unknown: when serving_default answers a label of its own.
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
    if "labels" in outputs:
        found |= _labels(outputs["labels"][:, 0], expected.labels, expected, vocabulary, tolerance)
    for name in ("output_0", ANSWER):
        if name in outputs:
            found |= _labels(outputs[name], expected.served, expected, vocabulary, tolerance, decision, unknown)
    found |= {
        row: f"answered the error {_text(error)!r}" for row, error in enumerate(outputs.get("error", ())) if error
    }
    return [f"example {expected.ids[row]}: {found[row]}" for row in sorted(found)]


def _labels(
    served: np.ndarray,
    wanted_labels: Sequence[str],
    expected: ReferencePredictions,
    vocabulary: Sequence[str],
    tolerance: float,
    decision: Decision | None = None,
    unknown: UnknownRule | None = None,
) -> dict[int, str]:
    found = {}
    classes = {label: number for number, label in enumerate(vocabulary)}
    for row, (label, wanted) in enumerate(zip(map(_text, served), wanted_labels, strict=True)):
        if label == wanted:
            continue
        reference = expected.probabilities[row]
        of_decided = reference[classes[decision.label]] if decision is not None else np.nan
        decision_is_close = decision is not None and abs(of_decided - decision.threshold) < tolerance
        if unknown and unknown.label in (label, wanted):
            if not unknown.is_close(reference[None], tolerance)[0] and not decision_is_close:
                found[row] = (
                    f"served {label!r}, expected {wanted!r} (the greatest reference probability is "
                    f"{reference.max():.6f}, a label needs {unknown.threshold:.6f})"
                )
        elif label not in classes:
            found[row] = f"served {label!r}, which is no label of the vocabulary; expected {wanted!r}"
        elif decision is not None and decision.label in (label, wanted):
            if not decision_is_close:
                found[row] = (
                    f"served {label!r}, expected {wanted!r} (the reference probability of {decision.label!r} is "
                    f"{of_decided:.6f}, the threshold {decision.threshold:.6f})"
                )
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


# Signature -> outputs that it must have.
COMPARED = {SERVING_DEFAULT: ("output_0",), CLASSIFY: ("labels", "probabilities"), SERVE_EXAMPLES: ("probabilities",)}

SHOWN_EXAMPLES = 3
TIMED_RUNS = 30
MODEL_SERVER = "tensorflow_model_server"

Run = Callable[[str, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def check(
    process: ModelProcess,
    saved_model: str,
    reference: str,
    example_files: Sequence[str],
    tolerance: float,
    maximum_examples: int,
    timeout_seconds: float,
    feature_of_input: Mapping[str, str] | None = None,
    unknown: UnknownRule | None = None,
) -> Report:
    """Ask the model and compare; what goes wrong is a reason in the report, never an exception.

    Args:
        process: a started process, for the model to be loaded in.
        saved_model: the model; it is given warm-up requests.
        reference: the file of reference predictions.
        example_files: TFRecord files of raw tf.Examples.
        tolerance: how far a probability may be from its reference.
        maximum_examples: how many examples are sent at most.
        timeout_seconds: how long a model server may take to start, and for each answer.
        feature_of_input: the feature behind each input of another name.
        unknown: when serving_default answers a label of its own.
    """
    candidate: Candidate | None = None
    reasons: list[str] = []
    loaders: list[str] = []
    latency: dict[str, dict[str, dict[str, float]]] = {}
    warmup_requests, load_seconds = 0, None
    try:
        candidate = Candidate.read(saved_model, reference, example_files, maximum_examples, feature_of_input, unknown)
        warmup_requests = write_warmup_requests(saved_model, _warmup(candidate))
        load_seconds = process.load(saved_model)
        loaders.append("session")
        reasons += disagreements(process.run, candidate, tolerance)
        reasons += _replay(process.run, saved_model)
        if not reasons:
            latency = _latency(process, candidate)
        binary = shutil.which(MODEL_SERVER)
        if binary:
            with ModelServer(binary, saved_model, timeout_seconds) as server:
                loaders.append(binary)
                reasons += [f"{MODEL_SERVER}: {reason}" for reason in disagreements(server.run, candidate, tolerance)]
    except (ModelUnavailable, RequestRefused) as failure:
        reasons.append(str(failure))
    return Report(
        reasons=reasons,
        examples=candidate.looked_at if candidate else 0,
        checked=len(candidate.examples) if candidate else 0,
        left_out=candidate.left_out if candidate else 0,
        tolerance=tolerance,
        warmup_requests=warmup_requests,
        loaders=loaders,
        load_seconds=load_seconds,
        latency_ms=latency,
    )


def disagreements(run: Run, candidate: Candidate, tolerance: float) -> list[str]:
    """Where the signatures do not answer, or not what the trained model says; a few sentences for each.

    Raises:
        ModelUnavailable: what runs the model has ended.
    """
    reasons = []
    for signature, required in COMPARED.items():
        reason = _lacking(candidate, signature, required)
        found = [reason] if reason else list(_compare(run, candidate, signature, tolerance))
        reasons += found[:SHOWN_EXAMPLES]
        if len(found) > SHOWN_EXAMPLES:
            reasons.append(f"{signature}: {len(found) - SHOWN_EXAMPLES} more answers differ")
    reason = _lacking(candidate, TRANSFORM_FEATURES, ())
    return reasons + ([reason] if reason else list(_transformed(run, candidate)))


def _lacking(candidate: Candidate, signature: str, outputs: Sequence[str]) -> str | None:
    if signature not in candidate.signatures:
        names = ", ".join(sorted(name for name in candidate.signatures if not name.startswith("__"))) or "none"
        return f"the model has no signature {signature!r}; its signatures are {names}"
    for output in outputs:
        if output not in candidate.signatures[signature].outputs:
            names = ", ".join(sorted(candidate.signatures[signature].outputs))
            return f"{signature} has no output {output!r}; its outputs are {names}"
    return None


def _compare(run: Run, candidate: Candidate, signature: str, tolerance: float) -> Iterator[str]:
    for batch in candidate.batches():
        size = batch.stop - batch.start
        expected = candidate.expectation(batch)
        try:
            outputs = run(signature, candidate.inputs(signature, batch))
        except RequestRefused as refusal:
            yield f"{signature}, batch of {size} from example {expected.ids[0]} on: {refusal}"
            return
        except ModelUnavailable as end:
            raise ModelUnavailable(f"{signature}, batch of {size} from example {expected.ids[0]} on: {end}") from end
        differences = mismatches(
            outputs, expected, candidate.vocabulary, tolerance, candidate.decision, candidate.unknown
        )
        for difference in differences:
            yield f"{signature}, {difference} (in a batch of {size})"


def _transformed(run: Run, candidate: Candidate) -> Iterator[str]:
    try:
        features = run(TRANSFORM_FEATURES, candidate.inputs(TRANSFORM_FEATURES, slice(0, BATCH_SIZE)))
    except RequestRefused as refusal:
        yield f"{TRANSFORM_FEATURES}, batch from example {candidate.expected.ids[0]} on: {refusal}"
        return
    for name, values in features.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{TRANSFORM_FEATURES}: feature {name!r} has values that are not finite"


def _warmup(candidate: Candidate) -> Iterator[Request]:
    """Each signature at both sizes: the first request of a shape is the slow one."""
    for signature in COMPARED:
        if signature in candidate.signatures:
            for batch in _sizes(candidate):
                yield signature, candidate.inputs(signature, batch)


def _sizes(candidate: Candidate) -> list[slice]:
    largest = min(BATCH_SIZE, len(candidate.examples))
    return [slice(0, size) for size in sorted({1, largest})]


def _replay(run: Run, saved_model: str) -> Iterator[str]:
    for number, (signature, inputs) in enumerate(read_warmup_requests(saved_model), start=1):
        try:
            run(signature, inputs)
        except RequestRefused as refusal:
            yield f"warm-up request {number}, to {signature}: {refusal}"


def _latency(process: ModelProcess, candidate: Candidate) -> dict[str, dict[str, dict[str, float]]]:
    return {
        signature: {
            str(batch.stop): _percentiles(process.time(signature, candidate.inputs(signature, batch), TIMED_RUNS))
            for batch in _sizes(candidate)
        }
        for signature in COMPARED
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "runs": len(seconds)}
