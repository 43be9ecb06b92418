"""Publish once what is not served yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.model_store import ModelVersion, WithdrawnModelError, publish, served_version

FINGERPRINTS = ("data_fingerprint", "code_fingerprint")


@dataclass(frozen=True)
class Publication:
    """What became of a model: the version that serves it, None where none does, and why."""

    version: ModelVersion | None
    reason: str


def publish_once(
    base_path: str, saved_model: str, fingerprints: Mapping[str, str], provenance: Callable[[], Mapping[str, Any]]
) -> Publication:
    """Publish a SavedModel unless the served version comes from the same data and code.

    An older version of the same origin does not count: since then another model has been served.

    Args:
        base_path: the model base path.
        saved_model: the directory to publish.
        fingerprints: the candidate's data_fingerprint and code_fingerprint.
        provenance: makes what is written beside the model; called only where something is published.

    Raises:
        ModelStoreError: the base path cannot be read or written.
    """
    served = served_version(base_path)
    if served is not None and all(served.provenance.get(key) == fingerprints[key] for key in FINGERPRINTS):
        return Publication(served, f"already published as version {served.number}")
    try:
        version = publish(base_path, saved_model, provenance())
    except WithdrawnModelError as withdrawn:
        return Publication(None, str(withdrawn))
    return Publication(version, f"published as version {version.number}")
