"""The gates of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data_gate.executor import VERDICT_FILE
from components.evaluator.evaluation_options import EvaluationOptions
from components.run_report.artifact_json import artifact_json
from components.run_report.compatibility_gate import compatibility_gate
from components.run_report.drift_gate import drift_gate
from components.run_report.evaluation_results import SliceMetrics
from components.run_report.finished_run import FinishedRun
from components.run_report.gate import Check, Gate, GateVerdict


def read_gates(run: FinishedRun, evaluation: list[SliceMetrics], serving_check: Mapping[str, Any]) -> list[Gate]:
    """The gates of the pipeline, in the order in which a model comes to them."""
    gates = [_data_gate(run)]
    if run.config.get("data", {}).get("spans"):
        gates += [drift_gate(run), compatibility_gate(run)]
    return [*gates, _evaluator(run, evaluation), _serving_check(run, serving_check), _pusher(run)]


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
        worse = change if name == "cross_entropy" else -change
        checks.append(Check(demand, f"{metrics[name]:.4f}, was {before[name]:.4f} ({change:+.4f})", worse <= allowed))
    return tuple(checks)


def _serving_check(run: FinishedRun, report: Mapping[str, Any]) -> Gate:
    question = "Does the exported model answer, as a server loads it, what the trained model says?"
    if run.failed_in("ServingCheck"):
        return Gate("ServingCheck", question, "failed", (run.ended,))
    if not report:
        return Gate("ServingCheck", question, "not reached", ())
    if not report["blessed"]:
        return Gate("ServingCheck", question, "failed", tuple(report["reasons"]))
    said = (
        f"{report['checked']:,} of {report['examples']:,} examples of the eval split were sent; every label is the "
        f"trained model's, every probability within {report['tolerance']:g} of it, and the "
        f"{report['warmup_requests']} warm-up requests were answered."
    )
    return Gate("ServingCheck", question, "passed", (said,))


def _pusher(run: FinishedRun) -> Gate:
    question = "Did the model base path take the model?"
    if run.failed_in("ServingPusher") or (run.ended and run.failed_in("Baseline")):
        return Gate("ServingPusher", question, "failed", (run.ended,))
    if "pushed_model" not in run.artifacts:
        return Gate("ServingPusher", question, "not reached", ())
    pushed = run.artifacts["pushed_model"]
    verdict: GateVerdict = "passed" if pushed.flag("pushed") else "failed"
    return Gate("ServingPusher", question, verdict, (pushed.text("reason"),))
