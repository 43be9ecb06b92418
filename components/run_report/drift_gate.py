"""What DriftGate found."""

from __future__ import annotations

from components.drift_gate.executor import DRIFT_FILE
from components.drift_gate.measured_drift import measured_drift
from components.drift_gate.read_span_anomalies import read_span_anomalies
from components.run_report.artifact_json import artifact_json
from components.run_report.finished_run import FinishedRun
from components.run_report.gate import Check, Gate

NAME = "DriftGate"
QUESTION = "Do the new spans of data (days, for example) look like the newest that the served model learned from?"
SCALE = (
    "A divergence (Jensen-Shannon, measured by TFDV) of 0 is the same distribution of values; at 1 the two spans have "
    "no value in common."
)


def drift_gate(run: FinishedRun) -> Gate:
    """The verdict on new spans, with the span in which each column moved furthest."""
    checks = _checks(run)
    if run.failed_in(NAME):
        return Gate(NAME, QUESTION, "failed", (*run.ended.splitlines(), SCALE), checks)
    if "drift" in run.artifacts:
        found = artifact_json(run, "drift", DRIFT_FILE)
        spans = ", ".join(found["spans"])
        said = f"Span {spans} was" if len(found["spans"]) == 1 else f"Spans {spans} were"
        reason = f"{said} compared with span {found['previous']}; no column moved further than the config allows."
        return Gate(NAME, QUESTION, "passed", (reason, SCALE), checks)
    if run.has_step(NAME):
        return Gate(NAME, QUESTION, "not reached", ())
    return Gate(NAME, QUESTION, "not needed", (_why_not_needed(run),))


def _why_not_needed(run: FinishedRun) -> str:
    baseline = run.artifacts.get("baseline_model")
    if baseline and not baseline.flag("has_model"):
        return "Nothing was served before this run, so there is no span to compare with."
    return (
        "There was nothing to compare: no span is new to the served model, or none that it learned from is there any "
        "more, or the config sets no bound (data.spans.maximum_drift)."
    )


def _checks(run: FinishedRun) -> tuple[Check, ...]:
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
