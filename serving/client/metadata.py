"""Metadata of a served model: its signatures and its versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.client.errors import CanonicalCode

# What the signatures of image models call their input.
IMAGE_INPUTS = ("image", "image_bytes")


@dataclass(frozen=True)
class TensorDescription:
    """An input or output: its dtype as TensorFlow's messages name it ("float", "int64", "string" …) and its shape.

    In the shape -1 is any size; None is any shape.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one signature, by name."""

    inputs: Mapping[str, TensorDescription]
    outputs: Mapping[str, TensorDescription]


@dataclass(frozen=True)
class ModelMetadata:
    """A model's version and its signatures, by name; without those that the loader runs itself ("__…")."""

    name: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def from_messages(cls, spec: Any, signatures: Any) -> ModelMetadata:
        """From a ModelSpec and a SignatureDefMap."""
        return cls(
            spec.name,
            spec.version.value,
            {
                name: Signature(_describe(signature.inputs), _describe(signature.outputs))
                for name, signature in signatures.signature_def.items()
                if not name.startswith("__")
            },
        )


def _describe(tensors: Any) -> dict[str, TensorDescription]:
    return {name: TensorDescription(_dtype(info), _shape(info.tensor_shape)) for name, info in sorted(tensors.items())}


def _dtype(info: Any) -> str:
    types = info.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    name: str = types[info.dtype].name if info.dtype in types else f"DT_{info.dtype}"
    return name.removeprefix("DT_").lower()


def _shape(shape: Any) -> tuple[int, ...] | None:
    return None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)


@dataclass(frozen=True)
class VersionStatus:
    """One version: START, LOADING, AVAILABLE, UNLOADING or END, and what went wrong where something did."""

    version: int
    state: str
    code: CanonicalCode
    message: str

    @classmethod
    def from_message(cls, response: Any) -> list[VersionStatus]:
        """From a GetModelStatusResponse, highest version first."""
        states = response.model_version_status
        return [
            cls(
                status.version,
                status.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[status.state].name,
                CanonicalCode(status.status.error_code),
                status.status.error_message,
            )
            for status in sorted(states, key=lambda status: status.version, reverse=True)
        ]
