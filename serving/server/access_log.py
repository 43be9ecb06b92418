"""One line of JSON per request."""

from __future__ import annotations

import datetime
import logging
import sys
from typing import TextIO

import orjson

from serving.server.request_record import RequestRecord
from serving.server.text_proto import ConfigFileError

logger = logging.getLogger(__name__)


class AccessLog:
    """Appends one JSON object per request to a file; what clients have sent appears in it only as escaped strings.

    Args:
        path: the file; "-" is standard output.

    Raises:
        ConfigFileError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            # Open as long as the server.
            self._file: TextIO = sys.stdout if path == "-" else open(path, "a", encoding="utf-8")  # noqa: PTH123, SIM115
        except OSError as error:
            raise ConfigFileError(f"the access log {path} cannot be opened: {error.strerror}") from error

    def __call__(self, record: RequestRecord) -> None:
        """Write the line of one request."""
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
        try:
            self._file.write(orjson.dumps(line).decode() + "\n")
            self._file.flush()
        except OSError as error:  # a full disk; requests are answered all the same
            logger.warning("a line of the access log %s is lost: %s", self._path, error.strerror)

    def close(self) -> None:
        """Close the file."""
        if self._path != "-":
            self._file.close()
