"""Baseline: brings the model that is served now into a run."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration import data_types
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.errors import NotPublished
from serving.model_store import ModelStoreError, ModelVersion, served_version


def copy_served_model(base_path: str, destination: str) -> ModelVersion | None:
    """Copy the served SavedModel to `destination`; None, and no copy, where nothing is served.

    A version that is withdrawn or removed while it is copied is not what is served: then the copy starts again.

    Raises:
        ModelStoreError: the model base path cannot be read.
    """
    version = served_version(base_path)
    while version is not None:
        try:
            io_utils.copy_dir(version.path, destination)
        except fileio.NotFoundError:
            if served_version(base_path) == version:
                raise
        still_served = served_version(base_path)
        if still_served == version:
            return version
        fileio.rmtree(destination)
        version = still_served
    return None


class Executor(base_executor.BaseExecutor):
    """Leaves the artifact empty where nothing is served."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copy the served model.

        Raises:
            NotPublished: the model base path cannot be read, so nothing could be published into it either.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict["model"])
        try:
            version = copy_served_model(exec_properties["base_path"], path_utils.serving_model_dir(model.uri))
        except ModelStoreError as error:
            raise NotPublished(str(error)) from error
        model.set_int_custom_property("has_model", int(version is not None))
        model.set_int_custom_property("served_version", version.number if version else 0)


class BaselineSpec(ComponentSpec):
    """No inputs: what is served is known to the model base path alone."""

    PARAMETERS = {"base_path": ExecutionParameter(type=str), "run_id": ExecutionParameter(type=str)}
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class Baseline(base_component.BaseComponent):
    """Copies the served model into its output `model`, whose `has_model` is 0 where nothing is served.

    TFX's own way, a Resolver for the latest blessed model, does not run on the open-source Kubeflow backend, and
    answers another question: a blessed model may never have been published, or may have been withdrawn since.

    Args:
        base_path: the model base path.
        run_id: a string that no earlier run had, so that no cached copy of an earlier served model is used.
    """

    SPEC_CLASS = BaselineSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, base_path: str, run_id: str | data_types.RuntimeParameter) -> None:
        super().__init__(
            BaselineSpec(base_path=base_path, run_id=run_id, model=types.Channel(type=standard_artifacts.Model))
        )
