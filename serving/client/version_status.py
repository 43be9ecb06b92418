"""What a server says of a model's versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.client.canonical_code import CanonicalCode


@dataclass(frozen=True)
class VersionStatus:
    """One version: START, LOADING, AVAILABLE, UNLOADING or END, and what went wrong where something did."""

    version: int
    state: str
    code: CanonicalCode
    message: str

    @classmethod
    def from_message(cls, response: Any) -> list[VersionStatus]:
        """From a GetModelStatusResponse, highest version first."""
        states = response.model_version_status
        return [
            cls(
                status.version,
                status.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[status.state].name,
                CanonicalCode(status.status.error_code),
                status.status.error_message,
            )
            for status in sorted(states, key=lambda status: status.version, reverse=True)
        ]
