"""The gates between raw data and a published model, and what each said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tfx.utils import path_utils

from components.compatibility_check import answer_changes, signature_changes
from components.data_gate.verdict import VERDICT_FILE
from components.drift import measured_drift, read_span_anomalies
from components.drift_gate import DRIFT_FILE
from components.evaluator.eval_config import SLICE_BOUNDS_FILE, SliceBound
from components.evaluator.options import LOWER_IS_BETTER, EvaluationOptions, ReplayOptions
from components.replay_gate.component import REPLAY_FILE
from components.replay_gate.replay import Replay, slices_beyond
from components.run_report.evaluation import SliceMetrics
from components.run_report.finished_run import FinishedRun, artifact_json
from components.serving_check.candidate import read_signatures
from serving.signatures.common import read_labels

GateVerdict = Literal["passed", "failed", "not reached", "not needed"]


@dataclass(frozen=True)
class Check:
    """A demand of a gate, what was found, and whether it holds."""

    demand: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Gate:
    """A gate's verdict.

    Attributes:
        name: of the component.
        question: what it asks.
        verdict: its answer; `not needed` where the pipeline left the gate out, since there was nothing to judge.
        reasons: why, in sentences.
        checks: the demands behind it.
    """

    name: str
    question: str
    verdict: GateVerdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()


_COMPATIBILITY_CHECK = "CompatibilityCheck"
_COMPATIBILITY_QUESTION = "Can whoever asks the served model ask the new one just so, and read its answer?"


def compatibility_gate(run: FinishedRun) -> Gate:
    """The verdict on what clients see, compared anew from the two models."""
    if run.failed_in(_COMPATIBILITY_CHECK):
        return Gate(
            _COMPATIBILITY_CHECK,
            _COMPATIBILITY_QUESTION,
            "failed",
            tuple(run.ended.splitlines()),
            _compatibility_checks(run),
        )
    if not _passed(run):
        return Gate(_COMPATIBILITY_CHECK, _COMPATIBILITY_QUESTION, "not reached", ())
    if not run.artifacts["baseline_model"].flag("has_model"):
        said = "Nothing was served before this run, so nobody has to change a request."
        return Gate(_COMPATIBILITY_CHECK, _COMPATIBILITY_QUESTION, "passed", (said,))
    version = run.artifacts["baseline_model"].text("served_version")
    said = f"Who asks version {version}, served when the run began, can ask the new model in the same way."
    return Gate(_COMPATIBILITY_CHECK, _COMPATIBILITY_QUESTION, "passed", (said,), _compatibility_checks(run))


def _passed(run: FinishedRun) -> bool:
    """Inside of a run the steps are not known; the Evaluator waits for this check."""
    if not run.steps:
        return "model_blessing" in run.artifacts
    return any(step.name == _COMPATIBILITY_CHECK and step.state in ("done", "unchanged") for step in run.steps)


def _compatibility_checks(run: FinishedRun) -> tuple[Check, ...]:
    if not {"model", "baseline_model"} <= run.artifacts.keys() or not run.artifacts["baseline_model"].flag("has_model"):
        return ()
    before, after = (path_utils.serving_model_path(run.artifacts[role].uri) for role in ("baseline_model", "model"))
    signatures, others = read_signatures(before), read_signatures(after)
    checks = []
    for name in sorted(name for name in signatures if not name.startswith("__")):
        changes = signature_changes({name: signatures[name]}, others)
        checks.append(Check(f"{name}: inputs and outputs as before", "; ".join(changes) or "the same", not changes))
    changes = answer_changes(before, run.artifacts["model"].uri)
    allowed = run.config["data"]["spans"].get("class_changes") == "allow"
    found = "; ".join(changes) or f"the same {len(read_labels(after))} classes"
    demand = "classes as before" + ", or any others (data.spans.class_changes is allow)" * allowed
    return (*checks, Check(demand, found, allowed or not changes))


_DRIFT_GATE = "DriftGate"
_DRIFT_QUESTION = (
    "Do the new spans of data (days, for example) look like the newest that the served model learned from?"
)
_DRIFT_SCALE = (
    "A divergence (Jensen-Shannon, measured by TFDV) of 0 is the same distribution of values; at 1 the two spans have "
    "no value in common."
)


def drift_gate(run: FinishedRun) -> Gate:
    """The verdict on new spans, with the span in which each column moved furthest."""
    checks = _drift_checks(run)
    if run.failed_in(_DRIFT_GATE):
        return Gate(_DRIFT_GATE, _DRIFT_QUESTION, "failed", (*run.ended.splitlines(), _DRIFT_SCALE), checks)
    if "drift" in run.artifacts:
        found = artifact_json(run, "drift", DRIFT_FILE)
        spans = ", ".join(found["spans"])
        said = f"Span {spans} was" if len(found["spans"]) == 1 else f"Spans {spans} were"
        reason = f"{said} compared with span {found['previous']}; no column moved further than the config allows."
        return Gate(_DRIFT_GATE, _DRIFT_QUESTION, "passed", (reason, _DRIFT_SCALE), checks)
    if run.has_step(_DRIFT_GATE):
        return Gate(_DRIFT_GATE, _DRIFT_QUESTION, "not reached", ())
    return Gate(_DRIFT_GATE, _DRIFT_QUESTION, "not needed", (_why_not_needed(run),))


def _why_not_needed(run: FinishedRun) -> str:
    baseline = run.artifacts.get("baseline_model")
    if baseline and not baseline.flag("has_model"):
        return "Nothing was served before this run, so there is no span to compare with."
    return (
        "There was nothing to compare: no span is new to the served model, or none that it learned from is there any "
        "more, or the config sets no bound (data.spans.maximum_drift)."
    )


def _drift_checks(run: FinishedRun) -> tuple[Check, ...]:
    """A demand for each column: of several spans, the one that is furthest away."""
    if "span_anomalies" not in run.artifacts:
        return ()
    furthest: dict[str, tuple[float, str, float]] = {}
    incomparable: dict[str, str] = {}
    for span, anomalies in read_span_anomalies(run.artifacts["span_anomalies"].uri).items():
        measured = measured_drift(anomalies)
        for column, drift in measured.items():
            furthest[column] = max(furthest.get(column, (-1.0, "", 0.0)), (drift.divergence, span, drift.bound))
        for key, anomaly in anomalies.anomaly_info.items():
            column = ".".join(anomaly.path.step) or key
            if column not in measured:
                incomparable[column] = span
    return (
        *(Check(f"{column} can be compared", f"not in span {span}", False) for column, span in incomparable.items()),
        *(
            Check(f"{column} moved by at most {bound:g}", f"{divergence:.4f}, in span {span}", divergence <= bound)
            for column, (divergence, span, bound) in sorted(furthest.items())
        ),
    )


def read_gates(run: FinishedRun, evaluation: list[SliceMetrics], serving_check: Mapping[str, Any]) -> list[Gate]:
    """The gates of the pipeline, in the order in which a model comes to them."""
    gates = [_data_gate(run)]
    if run.config.get("data", {}).get("spans"):
        gates += [drift_gate(run), compatibility_gate(run)]
    gates += [_evaluator(run, evaluation), _serving_check(run, serving_check)]
    if (run.config.get("evaluation") or {}).get("replay"):
        gates.append(_replay_gate(run))
    return [*gates, _pusher(run)]


def _data_gate(run: FinishedRun) -> Gate:
    question = "Is the data what the schema says, and can it be learned from?"
    if run.failed_in("DataGate"):
        return Gate("DataGate", question, "failed", tuple(run.ended.splitlines()))
    if "verdict" not in run.artifacts:
        return Gate("DataGate", question, "not reached", ())
    warnings = tuple(artifact_json(run, "verdict", VERDICT_FILE).get("warnings", ()))
    said = "Nothing in the data stops the run."
    if warnings:
        said = f"Nothing in the data stops the run; {len(warnings)} finding(s) to look at:"
    return Gate("DataGate", question, "passed", (said, *warnings))


def _evaluator(run: FinishedRun, evaluation: list[SliceMetrics]) -> Gate:
    question = "Is the model good enough, and no worse than the one served before?"
    if run.failed_in("Evaluator"):
        return Gate("Evaluator", question, "failed", (run.ended,))
    if "model_blessing" not in run.artifacts:
        return Gate("Evaluator", question, "not reached", ())
    blessing = run.artifacts["model_blessing"]
    checks = _thresholds(run, evaluation)
    if blessing.flag("blessed"):
        return Gate("Evaluator", question, "passed", ("Every threshold holds.",), checks)
    return Gate("Evaluator", question, "failed", tuple(blessing.text("reason").split("; ")), checks)


def _thresholds(run: FinishedRun, evaluation: list[SliceMetrics]) -> tuple[Check, ...]:
    if "evaluation" not in run.config or not evaluation:
        return ()
    options = EvaluationOptions.model_validate(run.config["evaluation"])
    metrics, before = evaluation[0].candidate, evaluation[0].baseline
    checks = []
    for name, bound in options.at_least.items():
        checks.append(Check(f"{name} at least {bound:g}", f"{metrics[name]:.4f}", metrics[name] >= bound))
    for name, bound in options.at_most.items():
        checks.append(Check(f"{name} at most {bound:g}", f"{metrics[name]:.4f}", metrics[name] <= bound))
    for name, allowed in options.may_worsen_by.items():
        demand = f"{name} at most {allowed:g} worse than the served model's"
        if name not in before:
            checks.append(Check(demand, "nothing was served to compare with", True))
            continue
        change = metrics[name] - before[name]
        worse = change if name in LOWER_IS_BETTER else -change
        checks.append(Check(demand, f"{metrics[name]:.4f}, was {before[name]:.4f} ({change:+.4f})", worse <= allowed))
    if options.has_slice_bounds:
        of_slices = artifact_json(run, "evaluation", SLICE_BOUNDS_FILE).get("bounds", [])
        checks += [Check(one.demand, one.found, not one.fails) for one in (SliceBound(**found) for found in of_slices)]
    return tuple(checks)


def _serving_check(run: FinishedRun, report: Mapping[str, Any]) -> Gate:
    wraps = run.config.get("trainer", {}).get("mode") == "wrap"
    original = "wrapped model in its own library" if wraps else "trained model"
    question = f"Does the exported model answer, as a server loads it, what the {original} says?"
    if run.failed_in("ServingCheck"):
        return Gate("ServingCheck", question, "failed", (run.ended,))
    if not report:
        return Gate("ServingCheck", question, "not reached", ())
    if not report["blessed"]:
        return Gate("ServingCheck", question, "failed", tuple(report["reasons"]))
    said = (
        f"{report['checked']:,} of {report['examples']:,} examples of the eval split were sent; every label is that "
        f"of the {original}, every probability within {report['tolerance']:g} of it, and the "
        f"{report['warmup_requests']} warm-up requests were answered."
    )
    return Gate("ServingCheck", question, "passed", (said,))


def _replay_gate(run: FinishedRun) -> Gate:
    question = "Does the new model answer what was asked as the served one does, but for what may change?"
    if run.failed_in("ReplayGate"):
        return Gate("ReplayGate", question, "failed", (run.ended,))
    content = artifact_json(run, "replay_blessing", REPLAY_FILE)
    if not content:
        remark = run.artifacts["replay_blessing"].text("remark") if "replay_blessing" in run.artifacts else ""
        return Gate("ReplayGate", question, "not needed" if remark else "not reached", (remark,) if remark else ())
    replay, options = Replay.of_json(content), ReplayOptions.model_validate(run.config["evaluation"]["replay"])
    whole = replay.whole
    checks = [
        Check(
            f"at most {options.may_flip:.2%} of all rows answered otherwise",
            f"{whole.changed:,} of {whole.rows:,} rows",
            whole.rows > 0 and whole.changed <= options.may_flip * whole.rows,
        )
    ]
    checks += [
        Check(f"likewise of {one.name}", f"{one.changed:,} of {one.rows:,} rows", False)
        for one in slices_beyond(replay, options.may_flip)
    ]
    if options.at_most_slower is not None and replay.latency is not None:
        ratio, low, high = replay.latency.ratio
        found = f"{ratio:.2f} times ({low:.2f} to {high:.2f})"
        checks.append(Check(f"at most {options.at_most_slower:g} times as slow", found, low <= options.at_most_slower))
    reasons = tuple(run.artifacts["replay_blessing"].text("reason").splitlines())
    if reasons:
        return Gate("ReplayGate", question, "failed", reasons, tuple(checks))
    said = (
        f"{whole.rows:,} rows of {replay.requests:,} logged requests were answered by both models; no bound is broken."
    )
    return Gate("ReplayGate", question, "passed", (said,), tuple(checks))


def _pusher(run: FinishedRun) -> Gate:
    question = "Did the model base path take the model?"
    if run.failed_in("ServingPusher") or (run.ended and run.failed_in("Baseline")):
        return Gate("ServingPusher", question, "failed", (run.ended,))
    if "pushed_model" not in run.artifacts:
        return Gate("ServingPusher", question, "not reached", ())
    pushed = run.artifacts["pushed_model"]
    verdict: GateVerdict = "passed" if pushed.flag("pushed") else "failed"
    return Gate("ServingPusher", question, verdict, (pushed.text("reason"),))


@dataclass(frozen=True)
class Headline:
    """The answer of a report.

    Attributes:
        mood: `good` where a model of this run is live, `bad` where none is.
        title: the answer, a short sentence.
        reasons: why.
        consequence: what is served now.
    """

    mood: Literal["good", "bad"]
    title: str
    reasons: tuple[str, ...]
    consequence: str


def headline(run: FinishedRun, gates: Sequence[Gate]) -> Headline:
    """The answer, from the gates and what is served."""
    served = f"Version {run.served.version} is served now." if run.served else "No version is served now."
    pushed = run.artifacts.get("pushed_model")
    if pushed and pushed.flag("pushed"):
        passed = [gate for gate in gates if gate.verdict == "passed"]
        reason = f"All {len(passed)} gates passed. {pushed.text('reason').capitalize()}."
        left_out = (f"{gate.name} had nothing to judge." for gate in gates if gate.verdict == "not needed")
        return Headline("good", "The new model may go live.", (reason, *left_out, *_demands(gates)), served)
    stopped = next((gate for gate in gates if gate.verdict == "failed"), None)
    if stopped is not None:
        return Headline("bad", f"The new model may not go live: {stopped.name} says no.", stopped.reasons, served)
    failed = next((step.name for step in run.steps if step.state == "failed"), "")
    where = f"the run ended in {failed}" if failed else "the run did not come to its end"
    return Headline("bad", f"There is no new model: {where}.", tuple(run.ended.splitlines()), served)


def _demands(gates: Sequence[Gate]) -> tuple[str, ...]:
    """How good the model had to be, and how good it is."""
    checks = [check for gate in gates if gate.name == "Evaluator" for check in gate.checks]
    if not checks:
        return ()
    return ("It is as good as the config demands: " + "; ".join(f"{one.demand}: {one.found}" for one in checks) + ".",)
