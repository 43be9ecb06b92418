"""The artifact that holds a report."""

from __future__ import annotations

from tfx.types.experimental.simple_artifacts import File

REPORT_PAGE = "report.html"

# A directory with the page, of a type that Kubeflow v2 knows: it takes none of ours.
RunReportArtifact = File
