"""Which models and versions a person can choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.server.served_model import ServedModel
from serving.server.served_version import VersionState


def available_models(models: Mapping[str, ServedModel]) -> list[dict[str, Any]]:
    """Each model by name, with its available versions, highest first, and their labels."""
    return [
        {
            "name": name,
            "versions": [
                {
                    "number": version.number,
                    "labels": sorted(label for label, number in model.labels.items() if number == version.number),
                }
                for version in model.versions
                if version.state is VersionState.AVAILABLE
            ],
        }
        for name, model in sorted(models.items())
    ]
