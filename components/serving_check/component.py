"""ServingCheck: whether the exported model answers, as a server loads it, what the trained model says."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.serving_check.executor import Executor


class ServingCheckSpec(ComponentSpec):
    """Inputs and output are named as InfraValidator's, which this component stands in for."""

    PARAMETERS = {
        "eval_split": ExecutionParameter(type=str),
        "tolerance": ExecutionParameter(type=str),
        "maximum_examples": ExecutionParameter(type=int),
        "timeout_seconds": ExecutionParameter(type=int),
        "feature_of_input": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


# Float32 rounding depends on the batch size: the order of the sums differs between the kernels that TensorFlow picks.
TOLERANCE = 1e-5


class ServingCheck(base_component.BaseComponent):
    """Blesses a model that a server can load and that answers raw requests as the trained model does.

    Stands in for InfraValidator, which needs Docker and does not run on Kubeflow v2 or Vertex. The blessing holds the
    model with warm-up requests in it (raw examples of the eval split), and report.json.

    Args:
        model: the Trainer's, with its reference predictions.
        examples: the raw examples, ExampleGen's.
        eval_split: the split that the reference predictions are of.
        tolerance: how far a probability may be from its reference; a label may differ only where the two classes'
            reference probabilities are closer to each other than that.
        maximum_examples: how many examples are sent at most; of more, the same choice in each run.
        timeout_seconds: how long the model may take to load, and for each answer.
        feature_of_input: the feature behind each input of another name.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        eval_split: str = "eval",
        tolerance: float = TOLERANCE,
        maximum_examples: int = 1000,
        timeout_seconds: int = 300,
        feature_of_input: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            ServingCheckSpec(
                model=model,
                examples=examples,
                eval_split=eval_split,
                tolerance=repr(float(tolerance)),
                maximum_examples=maximum_examples,
                timeout_seconds=timeout_seconds,
                feature_of_input=json.dumps(feature_of_input or {}),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
