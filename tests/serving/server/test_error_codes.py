"""Every canonical code on its way to a client, over both ports."""

from __future__ import annotations

import pytest

from serving.client.errors import CanonicalCode, PredictionError
from serving.client.grpc import GrpcClient
from serving.client.retries import RetryPolicy
from serving.server.errors import ServingError
from serving.server.inference import Inference

# http_server.cc, ToHTTPStatusCode.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


@pytest.fixture(params=HTTP_STATUS)
def code(request, monkeypatch) -> CanonicalCode:
    """What every call of a model ends with."""
    code = CanonicalCode[request.param]

    async def fail(*_: object, **__: object) -> None:
        raise ServingError(code, f"it ended with {code.name}")

    monkeypatch.setattr(Inference, "run", fail)
    return code


def test_a_canonical_code_is_answered_with_its_http_status(code, rest):
    answer = rest.predict("half_plus_two", {"instances": [1.0]})
    assert answer.status == HTTP_STATUS[code.name]
    assert answer.error == f"it ended with {code.name}"


def test_a_canonical_code_reaches_a_grpc_client_unchanged(code, server):
    with (
        GrpcClient(port=server.grpc_port, retry=RetryPolicy(attempts=1)) as client,
        pytest.raises(PredictionError) as raised,
    ):
        client.predict("half_plus_two", {"x": [1.0]})
    assert raised.value.code is code
    assert raised.value.message == f"it ended with {code.name}"
