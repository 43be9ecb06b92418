"""Which schema a run's examples are held against."""

from __future__ import annotations

from pathlib import Path

from components import image_example_gen
from pipeline.config import RunConfig

_PHOTOS = Path(image_example_gen.__file__).parent / "schema.pbtxt"


def schema_file(config: RunConfig) -> str | None:
    """The config's curated schema, what ImageExampleGen writes for photos, or None: one is inferred."""
    return config.data.schema_file or (str(_PHOTOS) if config.task == "image" else None)
