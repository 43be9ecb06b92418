"""What is asked of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cluster_options import ClusterOptions


@dataclass(frozen=True)
class RunRequest:
    """A run of a compiled pipeline.

    Attributes:
        spec_file: what pipeline.runners.write_job wrote.
        name: what to call it.
        parameters: values of its runtime parameters, where the compiled ones are not meant.
        cluster: where to run it.
    """

    spec_file: str
    name: str
    parameters: Mapping[str, str]
    cluster: ClusterOptions
