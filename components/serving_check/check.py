"""The check itself: load, ask, compare, measure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from components.serving_check.candidate import BATCH_SIZE, Candidate
from components.serving_check.failures import ModelUnavailable, RequestRefused
from components.serving_check.mismatches import mismatches
from components.serving_check.model_process import ModelProcess
from components.serving_check.model_server import ModelServer
from components.serving_check.report import Report
from components.serving_check.warmup_requests import Request, read_warmup_requests, write_warmup_requests
from serving.export import CLASSIFY, SERVE_EXAMPLES, SERVING_DEFAULT, TRANSFORM_FEATURES

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
    """
    candidate: Candidate | None = None
    reasons: list[str] = []
    loaders: list[str] = []
    latency: dict[str, dict[str, dict[str, float]]] = {}
    warmup_requests, load_seconds = 0, None
    try:
        candidate = Candidate.read(saved_model, reference, example_files, maximum_examples, feature_of_input)
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
        examples=candidate.examples_in_split if candidate else 0,
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
        for difference in mismatches(outputs, expected, candidate.vocabulary, tolerance):
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
