"""What a report calls the outputs of the steps."""

from __future__ import annotations

# Where two components call an output the same.
_ROLES = {
    ("Baseline", "model"): "baseline_model",
    ("Evaluator", "blessing"): "model_blessing",
    ("ServingCheck", "blessing"): "infra_blessing",
    ("SpanExampleGen", "examples"): "span_examples",
    ("SpanStatisticsGen", "statistics"): "span_statistics",
    ("DistributionValidator", "anomalies"): "span_anomalies",
}


def artifact_role(step: str, output: str) -> str:
    """The role of an output of a step, see components.run_report.finished_run."""
    return _ROLES.get((step, output), output)
