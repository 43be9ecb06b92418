"""The published model that scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

from tensorflow.core.protobuf import meta_graph_pb2

from components.errors import BrokenInput, ModelUnavailable
from components.serving_check.candidate import read_signatures
from serving.client.metadata import IMAGE_INPUTS, ModelMetadata, TensorDescription
from serving.model_store import ModelStoreError, ModelVersion, list_versions, served_version

# The first that a model has is asked.
_SIGNATURES = ("classify", "serving_default")
_RANKED_OUTPUTS = {"labels", "probabilities"}
_FINGERPRINT_CHARACTERS = 8


@dataclass(frozen=True)
class PublishedModel:
    """A version of a model, and what is asked of it.

    Attributes:
        base_path: the model base path.
        number: of the version.
        path: the SavedModel's directory.
        origin: where the version comes from, for a person; "" where nothing is known.
        signature: `classify` where there is one, else `serving_default`.
        inputs: of the signature.
        outputs: of the signature, those that are read.
    """

    base_path: str
    number: int
    path: str
    origin: str
    signature: str
    inputs: Mapping[str, TensorDescription]
    outputs: tuple[str, ...]

    @property
    def takes(self) -> Literal["photos", "texts", "tables"]:
        """What kind of data goes in."""
        if len(self.inputs) > 1:
            return "tables"
        (name,) = self.inputs
        if name in IMAGE_INPUTS:
            return "photos"
        return "texts" if name == "text" else "tables"


def find_model(base_path: str, number: int | None = None) -> PublishedModel:
    """A version in a base path, by default the one that servers load by default.

    Raises:
        BrokenInput: there is no such version, it is withdrawn, or it does not answer with labels.
    """
    try:
        version = _find_version(base_path, number)
        signatures = read_signatures(version.path)
    except (ModelStoreError, ModelUnavailable) as error:
        raise BrokenInput(str(error)) from error
    meta_graph = meta_graph_pb2.MetaGraphDef(signature_def=signatures)
    spec = SimpleNamespace(name=base_path, version=SimpleNamespace(value=version.number))
    described = ModelMetadata.from_messages(spec, meta_graph).signatures
    for name in _SIGNATURES:
        if name in described:
            signature = described[name]
            outputs = _outputs_read(signature.outputs)
            if outputs:
                return PublishedModel(
                    base_path, version.number, version.path, _origin(version), name, signature.inputs, outputs
                )
    raise BrokenInput(
        f"version {version.number} in {base_path} answers with no labels: expected a signature classify with the "
        f"outputs labels and probabilities, or serving_default with one string, found {', '.join(sorted(described))}"
    )


def _find_version(base_path: str, number: int | None) -> ModelVersion:
    if number is None:
        served = served_version(base_path)
        if served is None:
            raise BrokenInput(f"{base_path}: no published version there; `ingraph run` publishes one")
        return served
    versions = {version.number: version for version in list_versions(base_path)}
    if number not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise BrokenInput(f"{base_path}: there is no version {number}, it has {known or 'none'}")
    if versions[number].withdrawn:
        raise BrokenInput(
            f"{base_path}: version {number} is withdrawn; `ingraph models restore {base_path} {number}` brings it back"
        )
    return versions[number]


def _outputs_read(outputs: Mapping[str, TensorDescription]) -> tuple[str, ...]:
    if outputs.keys() >= _RANKED_OUTPUTS:
        return tuple(sorted(outputs.keys() & {*_RANKED_OUTPUTS, "error"}))
    return tuple(outputs) if [output.dtype for output in outputs.values()] == ["string"] else ()


def _origin(version: ModelVersion) -> str:
    fingerprints = {name: version.provenance.get(f"{name}_fingerprint") for name in ("data", "code")}
    return ", ".join(f"{name} {str(value)[:_FINGERPRINT_CHARACTERS]}" for name, value in fingerprints.items() if value)
