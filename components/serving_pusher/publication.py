"""Publish once what is not served yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.model_store import ModelVersion, WithdrawnModelError, publish, served_version
from serving.model_store.provenance import check_provenance, fingerprints


@dataclass(frozen=True)
class Publication:
    """What became of a model: the version that serves it, None where none does, and why."""

    version: ModelVersion | None
    reason: str


def publish_once(base_path: str, saved_model: str, provenance: Mapping[str, Any]) -> Publication:
    """Publish a SavedModel unless the served version comes from the same data and code.

    An older version of the same origin does not count: since then another model has been served.

    Args:
        base_path: the model base path.
        saved_model: the directory to publish.
        provenance: what is written beside it; holds data_fingerprint and code_fingerprint.

    Raises:
        ModelStoreError: a fingerprint is missing, or the base path cannot be read or written.
    """
    check_provenance(provenance)
    served = served_version(base_path)
    if served is not None and fingerprints(served.provenance) == fingerprints(provenance):
        return Publication(served, f"already published as version {served.number}")
    try:
        version = publish(base_path, saved_model, provenance)
    except WithdrawnModelError as withdrawn:
        return Publication(None, f"not published: {withdrawn}")
    return Publication(version, f"published as version {version.number}")
