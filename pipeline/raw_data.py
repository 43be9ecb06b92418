"""The data of a run, found and looked through before the pipeline starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.table_file import TableFile
from pipeline import datasets
from pipeline.check_table import check_table
from pipeline.config import RunConfig
from pipeline.plain_csv import plain_csv
from serving.uncollected_imports import uncollected_imports
from transform.image_options import ImageOptions


@dataclass(frozen=True)
class RawData:
    """Data that an ExampleGen can read.

    Attributes:
        path: of a table's file, or of what components.image_example_gen.list_photos takes.
        findings: what is in it, for a person.
        fingerprint: of photos, see components.image_example_gen.input_fingerprint; "" for tables, which TFX looks at.
    """

    path: str
    findings: str
    fingerprint: str = ""


def raw_data(config: RunConfig, folder: Path) -> RawData:
    """Find the data that a config names.

    Args:
        config: of the run.
        folder: where a copy of a table is made, if the ExampleGen cannot read it as it is.

    Raises:
        BrokenInput: there are none, or they cannot be used; the message says where and why.
    """
    path = config.data.path or str(datasets.fetch(config.data.dataset or ""))
    if isinstance(config.preprocessing, ImageOptions):
        return _photos(path)
    table = TableFile(path, config.data.format)
    findings = str(check_table(table, config.preprocessing))
    if config.task != "text":  # texts go in as they are
        table = plain_csv(table, folder)
    return RawData(table.path, findings)


def _photos(path: str) -> RawData:
    with uncollected_imports():
        from components.image_example_gen.input_fingerprint import input_fingerprint
        from components.image_example_gen.list_photos import list_photos

    photos = list_photos(path)
    classes = {photo.label for photo in photos}
    return RawData(path, f"{len(photos):,} photos of {_counted(sorted(classes))}", input_fingerprint(path))


def _counted(classes: Sequence[str]) -> str:
    return f"1 class, {classes[0]!r}" if len(classes) == 1 else f"{len(classes):,} classes"
