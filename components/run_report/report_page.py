"""The page of a run."""

from __future__ import annotations

from datetime import UTC, datetime

from components.run_report.artifact_json import artifact_json
from components.run_report.charts.latency_chart import latency_chart
from components.run_report.charts.learning_curves_chart import NAMES, learning_curves_chart
from components.run_report.charts.steps_chart import steps_chart
from components.run_report.data_section import data_section
from components.run_report.data_summary import read_data_summary
from components.run_report.evaluation_results import read_evaluation
from components.run_report.finished_run import FinishedRun
from components.run_report.headline import headline
from components.run_report.model_section import model_section
from components.run_report.read_gates import read_gates
from components.run_report.read_predictions import is_same_model, read_predictions
from components.run_report.render import render
from components.serving_check.report import REPORT_FILE
from trainers.learning_curves import LEARNING_CURVES_FILE
from trainers.leave_beside_export import PROVENANCE_FILE


def report_page(run: FinishedRun) -> str:
    """A self-contained HTML page: whether the new model may go live, and why.

    Every figure is read or recomputed from the run's artifacts; what the run did not come to is said to be missing.
    """
    evaluation = read_evaluation(run.artifacts["evaluation"]) if "evaluation" in run.artifacts else []
    serving_check = artifact_json(run, "infra_blessing", REPORT_FILE)
    gates = read_gates(run, evaluation, serving_check)
    predictions = read_predictions(run)
    summary = read_data_summary(run)
    curves = artifact_json(run, "model", LEARNING_CURVES_FILE)
    return render(
        "report.html",
        run=run,
        made_at=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
        headline=headline(run, gates),
        gates=gates,
        steps_picture=steps_chart(run.steps) if run.steps else "",
        data=data_section(summary) if summary else None,
        curves=curves,
        curve_names=NAMES,
        curves_picture=learning_curves_chart(curves) if curves.get("loss") else "",
        model=model_section(run, predictions, evaluation) if predictions else None,
        evaluation=evaluation,
        same_as_served=_same_as_served(run),
        serving_check=serving_check,
        latency_picture=latency_chart(latency) if (latency := serving_check.get("latency_ms")) else "",
        provenance=artifact_json(run, "model", PROVENANCE_FILE),
    )


def _same_as_served(run: FinishedRun) -> bool:
    baseline = run.artifacts.get("baseline_model")
    if baseline is None or "model" not in run.artifacts or not baseline.flag("has_model"):
        return False
    return is_same_model(run.artifacts["model"], baseline)
