"""The Evaluator: TFMA's metrics of the graph that is served."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.evaluator.executor import Executor
from components.evaluator.options import EvaluationOptions


class EvaluatorSpec(ComponentSpec):
    """See component.py."""

    PARAMETERS = {
        "options": ExecutionParameter(type=str),
        "positive": ExecutionParameter(type=str),
        "weight": ExecutionParameter(type=str),
        "split": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Measures `model` on a split of raw examples, and blesses it where every threshold holds.

    TFX's own Evaluator runs a model by Python's SavedModel loader; this one by a session, as TensorFlow Serving does,
    so that what is measured is what is served. It leaves examples without a usable label out, and lines up the classes
    of a baseline that knows other labels.

    Args:
        examples: raw examples.
        model: the candidate.
        baseline_model: the output of Baseline; one without a model (`has_model` 0) is no baseline.
        options: thresholds and slices.
        positive: the label that precision, recall and the like are about; "" for none.
        weight: the column of the examples' weights; "" where all count the same.
        split: the split of `examples` to measure on.

    Outputs:
        evaluation: TFMA's files, as TFX's Evaluator writes them.
        blessing: `blessed` 1 or 0, as TFX's Evaluator sets it, and `reason`, why not.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        options: EvaluationOptions,
        positive: str = "",
        weight: str = "",
        split: str = "eval",
    ) -> None:
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                options=options.model_dump_json(exclude={"replay", "truth"}),
                positive=positive,
                weight=weight,
                split=split,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
