"""Rehearsal of a compiled pipeline: its container commands, one at a time, without a cluster."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import BrokenInput, RunStopped

_EXECUTOR_INPUT = "{{$}}"
_RUN_ID = "{{$.pipeline_job_uuid}}"
# What pipeline.container_main imports once it runs.
_TFX_ENTRY_MODULE = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"


class StepFailed(RunStopped):
    """The command of a step ended with another status than 0.

    Attributes:
        status: of the command.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def rehearse_spec(
    spec_file: str,
    root: Path,
    parameters: Mapping[str, str] | None = None,
    on_step: Callable[[str, float], None] = lambda step, seconds: None,
    reported: Mapping[str, pipeline_spec_pb2.ExecutorOutput] = MappingProxyType({}),
) -> dict[str, pipeline_spec_pb2.ExecutorOutput]:
    """Run every step of a compiled spec in a process of its own, in an order that its dependencies allow.

    What a backend does is done here: executor inputs with artifact URIs below `root`, runtime parameters, the hook of
    a FileBasedExampleGen, and handing on what each step reports. Nothing is cached, and the images are not used:
    the commands run in this Python, forked from a process that loads TFX once for all of them.

    Args:
        spec_file: what `ingraph compile` wrote, JSON or YAML.
        root: takes the artifacts, and each step's log.
        parameters: values of runtime parameters, instead of their defaults.
        on_step: called with a step's name and its seconds after it ran.
        reported: what steps have reported that are not run again.

    Returns:
        What each step reported, by its name.

    Raises:
        BrokenInput: the file is no pipeline spec, or a parameter has no value.
        StepFailed: a command failed; the message has the last line it wrote.
    """
    spec = read_spec(spec_file)
    run = _Run(spec, root.resolve(), dict(parameters or {}))
    run.outputs.update(reported)
    for name in _in_order(spec.root.dag.tasks):
        if name in run.outputs:
            continue
        started = time.monotonic()
        run.step(name)
        on_step(name, time.monotonic() - started)
    return run.outputs


def read_spec(path: str) -> pipeline_spec_pb2.PipelineSpec:
    """Read a PipelineSpec from a JSON file (a PipelineJob) or a YAML file (the spec alone)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text)["pipelineSpec"] if path.endswith(".json") else yaml.safe_load(text)
        return json_format.ParseDict(content, pipeline_spec_pb2.PipelineSpec())
    except OSError as error:
        raise BrokenInput(f"{path}: the compiled pipeline cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, yaml.YAMLError, json_format.ParseError) as error:
        raise BrokenInput(
            f"{path}: not a compiled pipeline; `ingraph compile` writes one: {' '.join(str(error).split())[:200]}"
        ) from error


class _Run:
    """One pass over the spec; `outputs` grows with each step."""

    def __init__(self, spec: pipeline_spec_pb2.PipelineSpec, root: Path, parameters: dict[str, Any]) -> None:
        self.outputs: dict[str, pipeline_spec_pb2.ExecutorOutput] = {}
        self._spec = spec
        self._root = root
        self._parameters = parameters
        self._run_id = uuid.uuid4().hex
        deployment = pipeline_spec_pb2.PipelineDeploymentConfig()
        json_format.ParseDict(json_format.MessageToDict(spec.deployment_spec), deployment)
        self._executors = deployment.executors

    def step(self, name: str) -> None:
        folder = self._root / self._run_id / name
        folder.mkdir(parents=True)
        component = self._spec.components[self._spec.root.dag.tasks[name].component_ref.name]
        container = self._executors[component.executor_label].container
        executor_input = self._executor_input(name, folder)
        if container.lifecycle.HasField("pre_cache_check"):
            hook = container.lifecycle.pre_cache_check
            self._call(name, [*hook.command, *hook.args], executor_input, folder)
        self._call(name, [*container.command, *container.args], executor_input, folder)
        output = pipeline_spec_pb2.ExecutorOutput()
        json_format.Parse(Path(executor_input.outputs.output_file).read_text(encoding="utf-8"), output)
        self.outputs[name] = output

    def _executor_input(self, name: str, folder: Path) -> pipeline_spec_pb2.ExecutorInput:
        task = self._spec.root.dag.tasks[name]
        definitions = self._spec.components[task.component_ref.name]
        result = pipeline_spec_pb2.ExecutorInput()
        for key, parameter in task.inputs.parameters.items():
            value = self._parameter(name, key, parameter)
            json_format.ParseDict(value, result.inputs.parameter_values[key])
        for key, source in task.inputs.artifacts.items():
            produced = self.outputs[source.task_output_artifact.producer_task].artifacts
            artifacts = produced[source.task_output_artifact.output_artifact_key]
            for artifact in artifacts.artifacts:
                given = result.inputs.artifacts[key].artifacts.add()
                given.CopyFrom(artifact)
                given.type.CopyFrom(definitions.input_definitions.artifacts[key].artifact_type)
        for key, output in definitions.output_definitions.artifacts.items():
            artifact = result.outputs.artifacts[key].artifacts.add(
                name=f"{self._run_id}/{name}/{key}", uri=str(folder / key), type=output.artifact_type
            )
            artifact.metadata.CopyFrom(output.metadata)
        result.outputs.output_file = str(folder / "executor_output.json")
        return result

    def _parameter(self, step: str, key: str, parameter: Any) -> Any:
        if parameter.WhichOneof("kind") == "component_input_parameter":
            name = parameter.component_input_parameter
            if name in self._parameters:
                return self._parameters[name]
            definition = self._spec.root.input_definitions.parameters[name]
            if not definition.HasField("default_value"):
                raise BrokenInput(f"the runtime parameter {name!r} of step {step} has no default; give it a value")
            return json_format.MessageToDict(definition.default_value)
        value = json_format.MessageToDict(parameter.runtime_value.constant)
        return self._run_id if value == _RUN_ID else value

    def _call(
        self, step: str, command: Sequence[str], executor_input: pipeline_spec_pb2.ExecutorInput, folder: Path
    ) -> None:
        given = json_format.MessageToJson(executor_input)
        arguments = [argument.replace(_EXECUTOR_INPUT, given) for argument in command]
        arguments[0] = sys.executable if arguments[0] in ("python", "python3") else arguments[0]
        log = folder / "log.txt"
        if arguments[:2] == [sys.executable, "-m"]:
            status = _run_forked(arguments[2:], log)
        else:
            with log.open("ab") as stream:
                status = subprocess.run(
                    arguments, stdout=stream, stderr=subprocess.STDOUT, env=dict(os.environ), check=False
                ).returncode
        if status:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise StepFailed(f"{step} failed: {lines[-1] if lines else 'no output'} (status {status}, {log})", status)


def _run_forked(arguments: Sequence[str], log: Path) -> int:
    """Run `python -m` in a fork of a process that has loaded TFX, which takes longer than most steps; its status.

    Args:
        arguments: the module and its own arguments.
        log: takes what it writes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_TFX_ENTRY_MODULE])
    process = context.Process(target=_run_module, args=(list(arguments), str(log), dict(os.environ)))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    assert status is not None  # it was joined
    return status


def _run_module(arguments: list[str], log: str, environment: Mapping[str, str]) -> None:
    """What the fork does."""
    os.environ.clear()
    os.environ.update(environment)
    with Path(log).open("ab", buffering=0) as stream:
        for output in (1, 2):
            os.dup2(stream.fileno(), output)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _in_order(tasks: Mapping[str, pipeline_spec_pb2.PipelineTaskSpec]) -> list[str]:
    """Names of tasks, each after those it depends on."""
    order: list[str] = []
    while len(order) < len(tasks):
        ready = [name for name, task in tasks.items() if name not in order and set(task.dependent_tasks) <= set(order)]
        if not ready:
            raise BrokenInput(f"the steps {', '.join(set(tasks) - set(order))} of the spec wait for each other")
        order.extend(sorted(ready))
    return order
