"""The runs that a folder holds."""

from __future__ import annotations

from pathlib import Path

from pipeline.metadata_store import RUN, open_metadata_store

# What the ids of `ingraph tune` begin with, which makes no model.
TUNING = "tune-"


def run_ids(folder: Path) -> list[str]:
    """The ids of the runs in the folder of a pipeline that were to make a model, the newest first."""
    contexts = open_metadata_store(str(folder / "metadata.sqlite")).get_contexts_by_type(RUN)
    newest_first = sorted(contexts, key=lambda context: context.id, reverse=True)
    return [context.name for context in newest_first if not context.name.startswith(TUNING)]
