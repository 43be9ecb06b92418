"""The page that compares two runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from components.evaluator.predict_examples import aligned
from components.run_report.artifact_json import artifact_json
from components.run_report.column_shift import column_shifts
from components.run_report.config_differences import config_differences
from components.run_report.data_summary import read_data_summary
from components.run_report.eval_predictions import EvalPredictions
from components.run_report.evaluation_results import read_evaluation
from components.run_report.finished_run import FinishedRun
from components.run_report.gate import Gate
from components.run_report.headline import headline
from components.run_report.metric_estimates import MetricEstimate, metric_estimates
from components.run_report.read_gates import read_gates
from components.run_report.read_predictions import read_predictions
from components.run_report.read_schema import read_schema
from components.run_report.read_statistics import read_statistics
from components.run_report.render import render
from components.run_report.shift_sentence import shift_sentence
from components.serving_check.report import REPORT_FILE


def comparison_page(before: FinishedRun, after: FinishedRun) -> str:
    """A self-contained HTML page: the answers, gates, metrics, data, config and times of two runs side by side.

    Where both measured the same examples, the change of each metric has a confidence interval of its own.
    """
    runs = (before, after)
    first, second = predictions = [read_predictions(run) for run in runs]
    common = common_examples(first, second) if first and second else None
    gates = [_gates(run) for run in runs]
    return render(
        "comparison.html",
        runs=runs,
        headlines=[headline(run, found) for run, found in zip(runs, gates, strict=True)],
        gates=list(dict.fromkeys(gate.name for found in gates for gate in found)),
        verdict_of=[{gate.name: gate.verdict for gate in found} for found in gates],
        estimates=[_estimates(found) for found in predictions],
        common=len(common.truth) if common else 0,
        changes={one.name: one for one in metric_estimates(common)} if common else {},
        examples=[summary.examples if summary else {} for summary in map(read_data_summary, runs)],
        shifts=_shifts(before, after),
        differences=config_differences(before.config, after.config),
        steps=list(dict.fromkeys(step.name for run in runs for step in run.steps)),
        step_of=[{step.name: step for step in run.steps} for run in runs],
    )


def common_examples(before: EvalPredictions, after: EvalPredictions) -> EvalPredictions | None:
    """The examples that both runs measured, the earlier model as the baseline; None where they have none in common."""
    rows = {id_: row for row, id_ in enumerate(before.ids)}
    chosen = [row for row, id_ in enumerate(after.ids) if id_ in rows]
    if not chosen:
        return None
    matching = [rows[after.ids[row]] for row in chosen]
    return EvalPredictions(
        ids=[after.ids[row] for row in chosen],
        labels=after.labels,
        truth=after.truth[chosen],
        probabilities=after.probabilities[chosen],
        baseline=aligned(before.probabilities[np.array(matching)], before.labels, after.labels),
    )


def _gates(run: FinishedRun) -> list[Gate]:
    evaluation = read_evaluation(run.artifacts["evaluation"]) if "evaluation" in run.artifacts else []
    return read_gates(run, evaluation, artifact_json(run, "infra_blessing", REPORT_FILE))


def _estimates(predictions: EvalPredictions | None) -> dict[str, MetricEstimate]:
    if predictions is None:
        return {}
    return {one.name: one for one in metric_estimates(replace(predictions, baseline=None))}


def _shifts(before: FinishedRun, after: FinishedRun) -> str:
    if "statistics" not in before.artifacts or "statistics" not in after.artifacts:
        return ""
    first, second = (read_statistics(run.artifacts["statistics"]) for run in (before, after))
    shifts = column_shifts(first["train"], second["train"], read_schema(after))
    return shift_sentence(shifts, "the train split of the second run", "that of the first")
