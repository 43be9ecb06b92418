"""Why a model server did not answer as asked."""

from __future__ import annotations

from serving.client.canonical_code import CanonicalCode


class PredictionError(Exception):
    """A canonical code and the server's message.

    UNAVAILABLE also stands for a server that cannot be reached, DEADLINE_EXCEEDED for one that took too long. REST
    tells codes apart only as far as HTTP statuses do.
    """

    def __init__(self, code: CanonicalCode, message: str) -> None:
        super().__init__(f"{message} ({code.name})")
        self.code = code
        self.message = message
