"""The pages: the report of a run, and the comparison of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.drift import column_shifts, shift_sentence
from components.evaluator.eval_config import aligned
from components.replay_gate.component import REPLAY_FILE
from components.replay_gate.replay import Replay
from components.run_report.charts import (
    NAMES,
    calibration_chart,
    importance_chart,
    latency_chart,
    learning_curves_chart,
    live_chart,
    steps_chart,
)
from components.run_report.dataset import read_data_summary, read_schema, read_statistics
from components.run_report.evaluation import (
    TEST_SPLIT,
    is_same_model,
    read_evaluation,
    read_predictions,
    read_test_predictions,
)
from components.run_report.finished_run import FinishedRun, artifact_json
from components.run_report.gates import Gate, headline, read_gates
from components.run_report.reasons import explained_run
from components.run_report.sections import data_section, model_section
from components.run_report.statistics import (
    EvalPredictions,
    Interval,
    LiveFigures,
    MetricEstimate,
    metric_estimates,
    unknown_result,
    wilson_interval,
)
from components.serving_check.check import REPORT_FILE
from serving.answers import UnknownRule
from trainers.artifacts import LEARNING_CURVES_FILE, PROVENANCE_FILE

NONE = "\N{EN DASH}"


def render(template: str, **content: Any) -> str:
    """Fill a template of templates/; everything but our own pictures is escaped."""
    environment = Environment(
        loader=PackageLoader("components.run_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": _interval,
        "picture": Markup,
        "number": _number,
        "changed_share": lambda one: _interval(wilson_interval(one.changed, one.rows)),
        "share_of": lambda one, rows: _interval(wilson_interval(one.rows, rows)),
    }
    return environment.get_template(template).render(**content)


def _number(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def _interval(found: Interval | None, signed: bool = False) -> str:
    if found is None or not math.isfinite(found.value):
        return NONE
    sign = "+" if signed else ""
    if not math.isfinite(found.high - found.low):
        return f"{found.value:{sign}.4f}"
    return f"{found.value:{sign}.4f} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"


def config_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key (with dots), value before and value after of each key that differs; "" where a config does not have it."""
    first, second = dict(_flat(before)), dict(_flat(after))
    return [
        (key, first.get(key, ""), second.get(key, ""))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", orjson.dumps(value).decode()


def report_page(run: FinishedRun) -> str:
    """A self-contained HTML page: whether the new model may go live, and why.

    Every figure is read or recomputed from the run's artifacts; what the run did not come to is said to be missing.
    """
    evaluation = read_evaluation(run.artifacts["evaluation"]) if "evaluation" in run.artifacts else []
    serving_check = artifact_json(run, "infra_blessing", REPORT_FILE)
    gates = read_gates(run, evaluation, serving_check)
    predictions, summary = read_predictions(run), read_data_summary(run)
    tested = read_test_predictions(run, summary.examples.get(TEST_SPLIT, 0) if summary else 0)
    curves = artifact_json(run, "model", LEARNING_CURVES_FILE)
    provenance = artifact_json(run, "model", PROVENANCE_FILE)
    replayed = artifact_json(run, "replay_blessing", REPLAY_FILE)
    rule = UnknownRule.of(provenance)
    model = model_section(run, predictions, evaluation) if predictions else None
    explained = explained_run(run, model.mistakes if model else [])
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
        model=model,
        explained=explained,
        importance_picture=importance_chart(explained.importance.parts) if explained and explained.importance else "",
        tested=metric_estimates(tested) if tested else [],
        tested_examples=len(tested.ids) if tested else 0,
        tested_drawn_of=tested.drawn_of if tested else None,
        evaluation=evaluation,
        same_as_served=_same_as_served(run),
        serving_check=serving_check,
        replay=Replay.of_json(replayed) if replayed else None,
        latency_picture=latency_chart(latency) if (latency := serving_check.get("latency_ms")) else "",
        provenance=provenance,
        unknown=unknown_result(predictions, rule) if predictions and rule else None,
        live=run.live,
        **_live_pictures(run.live),
    )


def _live_pictures(live: LiveFigures | None) -> dict[str, str]:
    return {
        "live_picture": live_chart(live.figures) if live else "",
        "live_calibration_picture": calibration_chart(live.calibration) if live and live.calibration else "",
    }


def truth_page(name: str, live: LiveFigures) -> str:
    """A self-contained HTML page: how good a model is in the field, by labels that came later."""
    return render("truth.html", name=name, live=live, **_live_pictures(live))


def _same_as_served(run: FinishedRun) -> bool:
    baseline = run.artifacts.get("baseline_model")
    if baseline is None or "model" not in run.artifacts or not baseline.flag("has_model"):
        return False
    return is_same_model(run.artifacts["model"], baseline)


def comparison_page(before: FinishedRun, after: FinishedRun) -> str:
    """A self-contained HTML page: the answers, gates, metrics, data, config and times of two runs side by side.

    Where both measured the same examples, the change of each metric has a confidence interval of its own.
    """
    runs = (before, after)
    first, second = predictions = [read_predictions(run, with_baseline=False) for run in runs]
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


def metric_changes(before: FinishedRun, after: FinishedRun) -> dict[str, Interval]:
    """Metric -> its change between two runs on the examples that both measured, with its confidence interval.

    Returns:
        what can be told: nothing where the runs have no example in common, or one has no model.
    """
    first, second = (read_predictions(run, with_baseline=False) for run in (before, after))
    common = common_examples(first, second) if first and second else None
    return {one.name: one.change for one in metric_estimates(common) if one.change} if common else {}


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
        weights=None if after.weights is None else after.weights[chosen],
        decision=after.decision,
        baseline_decision=before.decision,
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
