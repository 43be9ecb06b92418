"""One line of JSON per request."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TextIO

import orjson

from serving.server.request_record import RequestRecord


class AccessLog:
    """Appends one JSON object per request to a file; what clients have sent appears in it only as escaped strings.

    Args:
        path: the file, which is opened when the first request is logged; "-" is standard output.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __call__(self, record: RequestRecord) -> None:
        """Write the line of one request."""
        if self._file is None:
            self._file = sys.stdout if self._path == "-" else Path(self._path).open("a", encoding="utf-8")  # noqa: SIM115
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "entrypoint": record.entrypoint,
            "method": record.method,
            "model": record.model,
            "code": record.code.name,
            "milliseconds": round(record.seconds * 1000, 3),
            "peer": record.peer,
            "request_bytes": record.request_bytes,
            "response_bytes": record.response_bytes,
        }
        self._file.write(orjson.dumps(line).decode() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._path != "-":
            self._file.close()
