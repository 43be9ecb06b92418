"""Paths in a config."""

from __future__ import annotations

import posixpath
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


def beside_config(path: str, info: ValidationInfo) -> str:
    """The path, which is relative to the folder of the config file where it is relative.

    A config is validated with that folder as `folder` in pydantic's validation context; without one, paths are taken
    for absolute ones already. Addresses (`https://...`, `gs://...`) stay as they are.
    """
    folder = (info.context or {}).get("folder", "")
    return path if "://" in path else posixpath.normpath(posixpath.join(folder, path))


PathBesideConfig = Annotated[str, AfterValidator(beside_config)]
