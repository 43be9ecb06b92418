"""model_config_file: model base paths with their labels, as TensorFlow Serving and `ingraph serve` read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from serving.model_store.base import ModelStoreError
from serving.model_store.operations import labels, list_versions

_HEADER = """\
# tensorflow.serving.ModelServerConfig, made by `ingraph models config`. Where labels are given, exactly the labelled
# versions and the largest one are served: the default, the latest one only, unloads what a label points to. So make it
# again after publishing, labelling or withdrawing. Servers need --allow_version_labels_for_unavailable_models to start.
"""


@dataclass(frozen=True)
class ConfiguredModel:
    """A model in the config: its name, where it is now, and the absolute path at which the server finds it."""

    name: str
    base_path: str
    served_path: str


def model_server_config(models: Iterable[ConfiguredModel]) -> str:
    """The text of a ModelServerConfig.

    Raises ModelStoreError where a base path holds no version, or a label points to one that is not there.
    """
    blocks = "".join(_block(model) for model in models)
    return f"{_HEADER}model_config_list {{\n{blocks}}}\n"


def _block(model: ConfiguredModel) -> str:
    numbers = {version.number for version in list_versions(model.base_path) if not version.withdrawn}
    if not numbers:
        raise ModelStoreError(f"{model.base_path} has no version to serve: publish one first.")
    labelled = labels(model.base_path)
    for label, number in sorted(labelled.items()):
        if number not in numbers:
            raise ModelStoreError(
                f"label {label} in {model.base_path} points to version {number}, which is not there: "
                f"move it with `ingraph models label {model.base_path} {label} VERSION`."
            )
    lines = [
        f"name: {json.dumps(model.name)}",
        f"base_path: {json.dumps(model.served_path)}",
        'model_platform: "tensorflow"',
    ]
    if labelled:
        served = " ".join(f"versions: {number}" for number in sorted({*labelled.values(), max(numbers)}))
        lines.append(f"model_version_policy {{ specific {{ {served} }} }}")
    lines += [
        f"version_labels {{ key: {json.dumps(label)} value: {number} }}" for label, number in sorted(labelled.items())
    ]
    return "  config {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"
