"""A copy of what is served."""

from __future__ import annotations

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from serving.model_store import ModelVersion, served_version


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
