"""What is known of a request once it is answered."""

from __future__ import annotations

from dataclasses import dataclass

from serving.client.canonical_code import CanonicalCode


@dataclass(frozen=True)
class RequestRecord:
    """One answered request, for the access log and for metrics.

    Attributes:
        entrypoint: "REST" or "GRPC".
        method: as in gRPC: "Predict", "Classify", "GetModelStatus" …; "" where the request is none.
        model: the name it asked for, or "".
        code: what it was answered with.
        seconds: from its head to its answer, without the writing of the answer.
        peer: the client's address.
        request_bytes: of the body, decompressed, or of the message.
        response_bytes: likewise.
    """

    entrypoint: str
    method: str
    model: str
    code: CanonicalCode
    seconds: float
    peer: str
    request_bytes: int
    response_bytes: int
