"""A run whose data are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import RunConfig
from pipeline.run_screen import RunScreen

if TYPE_CHECKING:
    from pipeline.dag import Locations


@dataclass(frozen=True)
class PreparedRun:
    """What a pipeline is made from.

    Attributes:
        config: of the run, its data those that ExampleGen reads.
        described: the config as its file has it.
        locations: where the run reads and writes.
        beam_arguments: Beam's runner and its options.
        metadata: the SQLite file of ML Metadata.
        folder: of the runs of this pipeline.
        run_id: what the run is called.
        screen: what a person sees.
    """

    config: RunConfig
    described: RunConfig
    locations: Locations
    beam_arguments: list[str]
    metadata: str
    folder: Path
    run_id: str
    screen: RunScreen
