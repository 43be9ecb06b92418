"""The runs that a folder holds."""

from __future__ import annotations

from pathlib import Path

from pipeline.metadata_store import RUN, open_metadata_store


def run_ids(folder: Path) -> list[str]:
    """The ids of the runs in the folder of a pipeline, the newest first."""
    contexts = open_metadata_store(str(folder / "metadata.sqlite")).get_contexts_by_type(RUN)
    return [context.name for context in sorted(contexts, key=lambda context: context.id, reverse=True)]
