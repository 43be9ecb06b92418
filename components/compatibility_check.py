"""CompatibilityCheck: whether clients of the served model could talk to the candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import path_utils

from components.errors import IncompatibleModel
from components.serving_check.candidate import read_signatures
from components.serving_check.check import read_provenance
from serving.answers import UnknownRule
from serving.model_store import PROVENANCE_FILE as PUBLISHED_PROVENANCE_FILE
from serving.signatures.common import ANSWER, read_labels
from trainers.artifacts import PROVENANCE_FILE

_ALLOWED = "or set data.spans.class_changes to allow"


def class_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """A sentence for each kind of difference; none where the classes and their order are the same.

    Args:
        before: the labels of the served model, in the order of their probabilities.
        after: those of the candidate.
    """
    new = [label for label in after if label not in before]
    vanished = [label for label in before if label not in after]
    changes = []
    if new:
        changes.append(f"new class {_quoted(new)}; correct the label in the data, {_ALLOWED}")
    if vanished:
        changes.append(f"class {_quoted(vanished)} is gone; add examples of it, {_ALLOWED}")
    if not changes and list(before) != list(after):
        changes.append(
            f"the classes are in another order, {_quoted(after)}, before {_quoted(before)}; put "
            f"preprocessing.label.order back, {_ALLOWED}"
        )
    return changes


def answer_changes(served: str, candidate: str) -> list[str]:
    """A sentence for each kind of difference between what the models answer: classes, and the label for unknown.

    Args:
        served: a published SavedModel's directory.
        candidate: the directory of the Trainer's model.
    """
    model = path_utils.serving_model_path(candidate)
    files = f"{served}/{PUBLISHED_PROVENANCE_FILE}", f"{candidate}/{PROVENANCE_FILE}"
    before, after = (UnknownRule.of(read_provenance(file)) for file in files)
    return class_changes(read_labels(served), read_labels(model)) + unknown_changes(before, after)


def unknown_changes(before: UnknownRule | None, after: UnknownRule | None) -> list[str]:
    """A sentence where serving_default has another label for unknown, or begins or ceases to have one.

    Args:
        before: of the served model; None where it always answers a label of its classes.
        after: of the candidate.
    """
    was, now = (rule.label if rule else "" for rule in (before, after))
    if was == now:
        return []
    if not now:
        return [f"the answer {was!r} for unknown is gone; set serving.unknown again, {_ALLOWED}"]
    before_that = f"before {was!r}" if was else "which the served model never does"
    return [f"serving_default may answer {now!r} for unknown, {before_that}; set serving.unknown back, {_ALLOWED}"]


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))


Signatures = Mapping[str, meta_graph_pb2.SignatureDef]
Tensors = Mapping[str, meta_graph_pb2.TensorInfo]


def signature_changes(before: Signatures, after: Signatures) -> list[str]:
    """A sentence for each signature, input and output that vanished or changed, and for each input that is new.

    A new signature or output harms nobody. The shapes of outputs follow the number of classes, and are not compared.

    Args:
        before: of the served model.
        after: of the candidate.
    """
    changes = []
    for name, signature in sorted(before.items()):
        if name.startswith("__"):  # TensorFlow's own
            continue
        if name not in after:
            changes.append(f"the signature {name!r} is gone; export it again")
            continue
        changes += _input_changes(name, signature.inputs, after[name].inputs)
        changes += _output_changes(name, signature.outputs, after[name].outputs)
    return changes


def _input_changes(signature: str, before: Tensors, after: Tensors) -> Iterator[str]:
    advice = "clients send what the served model takes: keep the columns of the data and their types"
    for name in sorted(after.keys() - before.keys()):
        yield f"{signature}: new input {name!r}, {_described(after[name])}; {advice}"
    for name in sorted(before.keys() - after.keys()):
        yield (
            f"{signature}: the input {name!r} is gone, and TensorFlow Serving refuses clients that still send it; keep "
            "the column in the data and out of the ignored ones, or publish the model under another name"
        )
    for name in sorted(before.keys() & after.keys()):
        if _described(before[name]) != _described(after[name]):
            was, now = _described(before[name]), _described(after[name])
            yield f"{signature}: input {name!r} is {now}, before {was}; {advice}"


def _output_changes(signature: str, before: Tensors, after: Tensors) -> Iterator[str]:
    # What the answer can be is compared as a class is, and may be allowed.
    for name in sorted(before.keys() - after.keys() - {ANSWER}):
        yield f"{signature}: the output {name!r} is gone; clients read it: export it again"
    for name in sorted(before.keys() & after.keys()):
        if before[name].dtype != after[name].dtype:
            yield f"{signature}: output {name!r} is {_dtype(after[name])}, before {_dtype(before[name])}"


def _described(tensor: meta_graph_pb2.TensorInfo) -> str:
    return f"{_dtype(tensor)} {_shape(tensor.tensor_shape)}"


def _dtype(tensor: meta_graph_pb2.TensorInfo) -> str:
    return str(tf.dtypes.as_dtype(tensor.dtype).name)


def _shape(shape: tensor_shape_pb2.TensorShapeProto) -> str:
    return "of any shape" if shape.unknown_rank else str([dimension.size for dimension in shape.dim])


class Executor(base_executor.BaseExecutor):
    """Raises where it stops the run."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compare the models.

        Raises:
            IncompatibleModel: a client of the served model could not use the candidate.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        served = artifact_utils.get_single_instance(input_dict["baseline_model"])
        if not served.get_int_custom_property("has_model"):
            return
        candidate = artifact_utils.get_single_uri(input_dict["model"])
        before, after = path_utils.serving_model_path(served.uri), path_utils.serving_model_path(candidate)
        changes = signature_changes(read_signatures(before), read_signatures(after))
        if exec_properties["class_changes"] == "stop":
            changes += answer_changes(before, candidate)
        if changes:
            version = served.get_int_custom_property("served_version")
            raise IncompatibleModel("\n".join(f"compared with version {version}, served now: {c}" for c in changes))


class CompatibilityCheckSpec(ComponentSpec):
    """No outputs: it stops the run, or does not."""

    PARAMETERS = {"class_changes": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: dict[str, ChannelParameter] = {}


class CompatibilityCheck(base_component.BaseComponent):
    """Ends the run where requests to the served model would fail, or mean something else, with the candidate.

    Args:
        model: the candidate.
        baseline_model: the output of Baseline; without a model in it everything is compatible.
        class_changes: "allow" lets classes come and go.
    """

    SPEC_CLASS = CompatibilityCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self, model: types.BaseChannel, baseline_model: types.BaseChannel, class_changes: Literal["stop", "allow"]
    ) -> None:
        super().__init__(
            CompatibilityCheckSpec(model=model, baseline_model=baseline_model, class_changes=class_changes)
        )
