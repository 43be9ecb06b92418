"""Where on Vertex AI a config means."""

from __future__ import annotations

from components.errors import BrokenInput
from pipeline.cluster_options import ClusterOptions

_EXAMPLES = {"project": "my-project", "region": "europe-west4"}


def vertex_location(cluster: ClusterOptions) -> str:
    """The resource name of a project's region, the parent of what runs there.

    Raises:
        BrokenInput: the config does not say which project and region.
    """
    for key, example in _EXAMPLES.items():
        if not getattr(cluster, key):
            raise BrokenInput(f"cluster.{key} is missing: Vertex AI needs it; `--set cluster.{key}={example}` gives it")
    return f"projects/{cluster.project}/locations/{cluster.region}"
