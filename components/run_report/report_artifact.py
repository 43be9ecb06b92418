"""The artifact that holds a report."""

from __future__ import annotations

from tfx.types.artifact import Artifact

REPORT_PAGE = "report.html"


class RunReportArtifact(Artifact):
    """A directory with report.html."""

    TYPE_NAME = "RunReport"
