"""What CompatibilityCheck found."""

from __future__ import annotations

from tfx.utils import path_utils

from components.compatibility_check.class_changes import class_changes
from components.compatibility_check.signature_changes import signature_changes
from components.run_report.finished_run import FinishedRun
from components.run_report.gate import Check, Gate
from components.serving_check.read_signatures import read_signatures
from serving.labels import read_labels

NAME = "CompatibilityCheck"
QUESTION = "Can whoever asks the served model ask the new one just so, and read its answer?"


def compatibility_gate(run: FinishedRun) -> Gate:
    """The verdict on what clients see, compared anew from the two models."""
    if run.failed_in(NAME):
        return Gate(NAME, QUESTION, "failed", tuple(run.ended.splitlines()), _checks(run))
    if not _passed(run):
        return Gate(NAME, QUESTION, "not reached", ())
    if not run.artifacts["baseline_model"].flag("has_model"):
        said = "Nothing was served before this run, so nobody has to change a request."
        return Gate(NAME, QUESTION, "passed", (said,))
    version = run.artifacts["baseline_model"].text("served_version")
    said = f"Who asks version {version}, served when the run began, can ask the new model in the same way."
    return Gate(NAME, QUESTION, "passed", (said,), _checks(run))


def _passed(run: FinishedRun) -> bool:
    """Inside of a run the steps are not known; the Evaluator waits for this check."""
    if not run.steps:
        return "model_blessing" in run.artifacts
    return any(step.name == NAME and step.state in ("done", "unchanged") for step in run.steps)


def _checks(run: FinishedRun) -> tuple[Check, ...]:
    if not {"model", "baseline_model"} <= run.artifacts.keys() or not run.artifacts["baseline_model"].flag("has_model"):
        return ()
    before, after = (path_utils.serving_model_path(run.artifacts[role].uri) for role in ("baseline_model", "model"))
    signatures, others = read_signatures(before), read_signatures(after)
    checks = []
    for name in sorted(name for name in signatures if not name.startswith("__")):
        changes = signature_changes({name: signatures[name]}, others)
        checks.append(Check(f"{name}: inputs and outputs as before", "; ".join(changes) or "the same", not changes))
    labels = read_labels(after)
    changes = class_changes(read_labels(before), labels)
    allowed = run.config["data"]["spans"].get("class_changes") == "allow"
    found = "; ".join(changes) or f"the same {len(labels)} classes"
    demand = "classes as before" + ", or any others (data.spans.class_changes is allow)" * allowed
    return (*checks, Check(demand, found, allowed or not changes))
