"""Errors of a model server, with the canonical status codes of gRPC and TensorFlow."""

from __future__ import annotations

from enum import IntEnum


class CanonicalCode(IntEnum):
    """A canonical status code, numbered as in gRPC's StatusCode and TensorFlow's error codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http_status(self) -> int:
        """The status that TensorFlow Serving's REST port answers with (http_server.cc)."""
        return _HTTP_STATUS[self]

    @classmethod
    def from_http_status(cls, status: int) -> CanonicalCode:
        """The most usual code behind an HTTP status; several share one, and UNKNOWN stands for any other."""
        return next((code for code in _USUAL_FIRST if code.http_status == status), cls.UNKNOWN)


_HTTP_STATUS = {
    CanonicalCode.OK: 200,
    CanonicalCode.CANCELLED: 499,
    CanonicalCode.UNKNOWN: 500,
    CanonicalCode.INVALID_ARGUMENT: 400,
    CanonicalCode.DEADLINE_EXCEEDED: 504,
    CanonicalCode.NOT_FOUND: 404,
    CanonicalCode.ALREADY_EXISTS: 409,
    CanonicalCode.PERMISSION_DENIED: 403,
    CanonicalCode.RESOURCE_EXHAUSTED: 429,
    CanonicalCode.FAILED_PRECONDITION: 400,
    CanonicalCode.ABORTED: 409,
    CanonicalCode.OUT_OF_RANGE: 400,
    CanonicalCode.UNIMPLEMENTED: 501,
    CanonicalCode.INTERNAL: 500,
    CanonicalCode.UNAVAILABLE: 503,
    CanonicalCode.DATA_LOSS: 500,
    CanonicalCode.UNAUTHENTICATED: 401,
}

_USUAL_FIRST = (CanonicalCode.INVALID_ARGUMENT, CanonicalCode.INTERNAL, *CanonicalCode)


class PredictionError(Exception):
    """A canonical code and the server's message.

    UNAVAILABLE also stands for a server that cannot be reached, DEADLINE_EXCEEDED for one that took too long. REST
    tells codes apart only as far as HTTP statuses do.
    """

    def __init__(self, code: CanonicalCode, message: str) -> None:
        super().__init__(f"{message} ({code.name})")
        self.code = code
        self.message = message
