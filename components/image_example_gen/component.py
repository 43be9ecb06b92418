"""Reads photos into examples."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.image_example_gen.executor import Executor


class ImageExampleGenSpec(ComponentSpec):
    """Shares are text, as parameters of the other components are that are no whole numbers."""

    PARAMETERS = {
        "path": ExecutionParameter(type=str),
        "input_fingerprint": ExecutionParameter(type=str),
        "eval_share": ExecutionParameter(type=str),
        "max_unreadable_share": ExecutionParameter(type=str),
        "max_pixels": ExecutionParameter(type=int),
        "labels_required": ExecutionParameter(type=int),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Photos in class folders, or listed in a CSV file, as examples: `image`, `label`, `path` and `checksum`.

    Photos stay encoded. The artifact's splits are train and eval, and test where there is a folder of that name;
    its `ingestion.json` says how many photos each split and class has, and which were left out.

    Args:
        path: as image_files.list_images takes it.
        input_fingerprint: what image_files.input_fingerprint says of that path. TFX's cache compares parameters, and
            does not look at files.
        eval_share: which share is held out, where no folders say what is.
        max_unreadable_share: the run stops where more photos than that cannot be used.
        max_pixels: the largest photo that is taken, by the size that its header declares.
        labels_required: the run stops where a photo of a CSV file has no label.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        path: str,
        input_fingerprint: str,
        eval_share: float = 0.2,
        max_unreadable_share: float = 0.01,
        max_pixels: int = 50_000_000,
        labels_required: bool = True,
    ) -> None:
        super().__init__(
            ImageExampleGenSpec(
                path=path,
                input_fingerprint=input_fingerprint,
                eval_share=str(eval_share),
                max_unreadable_share=str(max_unreadable_share),
                max_pixels=max_pixels,
                labels_required=int(labels_required),
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
