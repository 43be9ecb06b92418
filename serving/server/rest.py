"""The REST port: TensorFlow Serving's HTTP API on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import aiohttp
import numpy as np
from aiohttp import web
from google.protobuf import json_format, message
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, input_pb2, model_pb2, regression_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import DataType, data_type
from serving.loading import free_in_parts, garbage_collection_off
from serving.server.errors import ServingError, debug_string, invalid_argument
from serving.server.inference import ExampleInference, Inference, array_bytes, current_lease, left, too_late
from serving.server.json_requests import (
    IN_PARTS_FROM_BYTES,
    document_bytes,
    input_from_json,
    parse_document,
)
from serving.server.json_tensors import (
    classifications_to_json,
    columns_to_json,
    error_to_json,
    regressions_to_json,
    rows_to_json,
    tensors_from_columns,
    tensors_from_rows,
)
from serving.server.models import SIGNATURE_FIELD, ModelInUse, ModelManager, model_metadata, model_status
from serving.server.options import MemoryBudget, MemoryLease, ServerOptions
from serving.server.request_log import RequestLogger, RequestRecord
from serving.server.signatures import DEFAULT_SIGNATURE

_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_FLAGS = re.IGNORECASE | re.ASCII
_ROUTED = re.compile(r"/v1/.*", _FLAGS)
_GRAMMAR = {
    "POST": re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", _FLAGS),
    "GET": re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<verb>metadata))?", _FLAGS),
}
_METHODS = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}


@dataclass(frozen=True)
class RestCall:
    """What a request asks of a model, as the gRPC method that asks the same: "Predict", "GetModelStatus" …"""

    method: str
    spec: model_pb2.ModelSpec


def is_routed(path: str) -> bool:
    """Whether the REST API answers for this path at all; every other path is a plain 404."""
    return _ROUTED.fullmatch(path) is not None


def parse_call(method: str, path: str) -> RestCall:
    """The call that a method and a URL path (still percent-encoded, with its query) make.

    Raises:
        ServingError: INVALID_ARGUMENT, no such call.
    """
    malformed = invalid_argument(f"Malformed request: {method} {path}")
    match = _GRAMMAR[method].fullmatch(path) if method in _GRAMMAR else None
    if match is None:
        raise malformed
    spec = model_pb2.ModelSpec(name=unquote(match["name"] or ""))
    if match["version"]:
        if len(match["version"].lstrip("0")) > 19 or int(match["version"]) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = unquote(match["label"])
    if method == "POST":
        # The path is matched in any case, the verb is then compared as it is.
        if match["verb"] not in _METHODS:
            raise malformed
        return RestCall(_METHODS[match["verb"]], spec)
    if not spec.name:
        raise invalid_argument("Missing model name in request.")
    return RestCall("GetModelMetadata" if match["verb"] == "metadata" else "GetModelStatus", spec)


_ZLIB, _RAW_DEFLATE = 15, -15  # wbits of zlib.decompressobj
_PIECE_BYTES = 64 * 1024
_SENT_BYTES = 2**20


class BodyTooLargeError(Exception):
    """A body is larger than it may be once it is decompressed."""


def decode_body(body: bytes | bytearray, encoding: str, limit: int, grow: Callable[[int], None]) -> bytes | bytearray:
    """Decompress gzip and deflate (RFC 9110, 8.4.1); another encoding is left to the parser of JSON, as there.

    TensorFlow Serving decompresses what has gzip anywhere in its name, so "x-gzip" too, and no deflate
    (util/net_http/server/internal/evhttp_request.cc).

    Args:
        body: as it was sent.
        encoding: the header's value.
        limit: in bytes; a small body may stand for gigabytes.
        grow: told of bytes before there are more of them.

    Raises:
        BodyTooLargeError: it is larger.
        zlib.error, gzip.BadGzipFile, EOFError: it is not compressed like that, or ends too early.
    """
    encoding = encoding.strip().lower()
    if not body or not ("gzip" in encoding or encoding == "deflate"):
        return body
    decoded = bytearray()
    for piece in _from_gzip(body) if "gzip" in encoding else _from_deflate(body):
        if len(decoded) + len(piece) > limit:
            raise BodyTooLargeError
        grow(len(piece))
        decoded += piece
    return decoded


def _from_gzip(body: bytes | bytearray) -> Iterator[bytes]:
    """Over all its members: each takes as long where there are many of them as where there are few."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _from_deflate(body: bytes | bytearray) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(_wbits_of_deflate(body))
    ahead: bytes | bytearray = body
    while piece := decompressor.decompress(ahead, _PIECE_BYTES):
        ahead = decompressor.unconsumed_tail
        yield piece
    if not decompressor.eof:
        raise EOFError


def _wbits_of_deflate(body: bytes | bytearray) -> int:
    """Some clients leave out the header that zlib's format has: its lower four bits are 8."""
    return _ZLIB if body[0] & 0xF == 8 else _RAW_DEFLATE


COMPRESSED_FROM_BYTES = 1024  # smaller answers grow by compression, or gain nothing
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

logger = logging.getLogger(__name__)


class RestService:
    """Answers HTTP requests.

    Args:
        manager: the models.
        inference: runs them, and converts large documents.
        request_logger: gets what they have answered.
        options: of the server.
        budget: of the memory that requests take.
        observers: told of every request under /v1/ that was answered.
    """

    def __init__(
        self,
        manager: ModelManager,
        inference: Inference,
        request_logger: RequestLogger,
        options: ServerOptions,
        budget: MemoryBudget,
        observers: Iterable[Callable[[RequestRecord], None]] = (),
    ) -> None:
        self._budget = budget
        self._manager = manager
        self._inference = inference
        self._request_logger = request_logger
        self._options = options
        self._observers = tuple(observers)
        self._examples = ExampleInference(manager, inference, request_logger, options.limits)

    def application(self, routes: Iterable[web.RouteDef] = ()) -> web.Application:
        """The aiohttp application: these routes, and the REST API for everything else."""
        application = web.Application(client_max_size=self._options.limits.body_bytes)
        application.add_routes(routes)  # first: of two that match, the earlier one answers
        application.router.add_route("*", "/{path:(?s:.*)}", self._respond)
        return application

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        # Bytes that are no UTF-8 cannot be part of any name.
        # A query is a part of the path here, as there.
        path = request.raw_path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if not is_routed(path):
            return web.Response(status=404)
        lease = self._budget.lease()
        current_lease.set(lease)
        with lease:
            return await self._exchange(request, path)

    async def _exchange(self, request: web.Request, path: str) -> web.StreamResponse:
        started = time.perf_counter()
        exchange = _Exchange()
        response = await self._answer(request, path, exchange)
        if self._options.cors:
            response.headers.update(_CORS)
        if "gzip" in request.headers.get("Accept-Encoding", "") and exchange.response_bytes >= COMPRESSED_FROM_BYTES:
            response.enable_compression(web.ContentCoding.gzip)
        record = RequestRecord(
            "REST",
            exchange.method,
            exchange.model,
            exchange.code,
            time.perf_counter() - started,
            request.remote or "",
            exchange.request_bytes,
            exchange.response_bytes,
        )
        for observe in self._observers:
            observe(record)
        if exchange.response_bytes <= _PIECE_BYTES:
            return response
        return await _send(request, response, self._options.connections.body_seconds)

    async def _answer(self, request: web.Request, path: str, exchange: _Exchange) -> web.Response:
        if request.method == "OPTIONS":
            return _preflight(request, exchange)
        status = None
        try:
            call = parse_call(request.method, path)
            exchange.method, exchange.model = call.method, call.spec.name
            body = await self._dispatch(call, request, exchange)
        except ServingError as error:
            body, exchange.code = error_to_json(error.message), error.code
        except _BodyError as error:
            body, exchange.code, status = error_to_json(error.message), error.code, error.status
        except ConnectionError:
            raise  # nobody is there to read an answer
        except Exception:
            logger.exception("%s %s failed", request.method, path)
            body = error_to_json("Internal error; the server's log says more.")
            exchange.code = CanonicalCode.INTERNAL
        exchange.response_bytes = len(body)
        response = web.Response(
            body=body, status=status or exchange.code.http_status, content_type="application/json", zlib_executor_size=1
        )
        if status is not None:
            response.force_close()  # the rest of the body is still on its way
        return response

    async def _dispatch(self, call: RestCall, request: web.Request, exchange: _Exchange) -> bytes | bytearray:
        if call.method == "GetModelMetadata":
            return self._metadata(call.spec)
        if call.method == "GetModelStatus":
            return _to_json(model_status(self._manager, call.spec)).encode()
        body = await _read(request, self._options, self._inference)
        exchange.request_bytes = len(body)
        deadline = asyncio.get_running_loop().time() + self._options.rest_timeout_seconds
        lease = current_lease.get()
        await lease.take(await self._inference.convert(len(body), deadline, document_bytes, body, lease.left))
        ends = time.monotonic() + deadline - asyncio.get_running_loop().time()
        with contextlib.ExitStack() as collector:
            if len(body) >= IN_PARTS_FROM_BYTES:
                collector.enter_context(garbage_collection_off())  # it would walk over the whole of a document at once
            document = await self._inference.convert(len(body), deadline, _parse_in_time, body, lease, ends)
            try:
                call.spec.signature_name = _signature_name(document)
                if call.method == "Predict":
                    return await self._predict(call.spec, document, len(body), deadline, collector)
                return await self._infer_examples(call, document, len(body), deadline, collector)
            finally:
                if document:
                    await self._inference.convert(len(body), None, _way_to_free(len(body)), document)

    async def _predict(
        self,
        spec: model_pb2.ModelSpec,
        document: dict[str, Any],
        size: int,
        deadline: float,
        collector: contextlib.ExitStack,
    ) -> bytes | bytearray:
        convert, lease = self._inference.convert, current_lease.get()
        with self._manager.use(spec) as served:
            signature = spec.signature_name or DEFAULT_SIGNATURE
            data_types = _input_types(served, signature)
            by_rows = "instances" in document
            tensors = await convert(size, deadline, _to_tensors, document, data_types, _way_to_free(size))
            collector.close()
            self._options.limits.check(tensors)
            lease.shrink(size + 2 * array_bytes(tensors))  # what they were made of is gone
            outputs = await self._inference.run(served, signature, tensors, timeout_seconds=left(deadline))
            answered = sum(array.size * 8 for array in outputs.values())
            await lease.take(_ANSWER * array_bytes(outputs))
            self._request_logger.log_arrays(served, spec, signature, tensors, outputs, size + answered)
        written = rows_to_json if by_rows else columns_to_json
        return await convert(answered, deadline, written, outputs)

    async def _infer_examples(
        self, call: RestCall, document: dict[str, Any], size: int, deadline: float, collector: contextlib.ExitStack
    ) -> bytes | bytearray:
        convert = self._inference.convert
        input_ = await convert(size, deadline, _to_input, document, _way_to_free(size))
        collector.close()
        if call.method == "Classify":
            asked = classification_pb2.ClassificationRequest(model_spec=call.spec, input=input_)
            classified = (await self._examples.classify(asked, left(deadline))).result
            return await convert(classified.ByteSize(), deadline, classifications_to_json, classified)
        request = regression_pb2.RegressionRequest(model_spec=call.spec, input=input_)
        regressed = (await self._examples.regress(request, left(deadline))).result
        return await convert(regressed.ByteSize(), deadline, regressions_to_json, regressed)

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
        response = model_metadata(self._manager, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_FIELD].Unpack(signatures)
        return (
            f'{{\n"model_spec":{_to_json(response.model_spec)},\n'
            f'"metadata": {{"{SIGNATURE_FIELD}": {_to_json(signatures)}}}\n}}\n'
        ).encode()


async def _send(request: web.Request, answer: web.Response, seconds: float) -> web.StreamResponse:
    """Send a large answer piece by piece, so that what its reader has not taken yet counts as the request's memory.

    Raises:
        ConnectionError: a piece was not taken within so many seconds.
    """
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.compression:
        response.enable_compression(web.ContentCoding.gzip)
    elif request.version >= aiohttp.HttpVersion11 and request.method != "HEAD":
        response.content_length = answer.content_length
    if not answer.keep_alive and answer.keep_alive is not None:
        response.force_close()
    await response.prepare(request)
    assert isinstance(answer.body, bytes | bytearray)
    view = memoryview(answer.body)
    try:
        for start in range(0, len(view), _SENT_BYTES):
            async with asyncio.timeout(seconds):
                await response.write(view[start : start + _SENT_BYTES])
    except TimeoutError:
        raise ConnectionResetError(f"an answer was not read within {seconds:g} s") from None
    await response.write_eof()
    return response


class _Exchange:
    """What a request turns out to be while it is answered."""

    method = ""
    model = ""
    code = CanonicalCode.OK
    request_bytes = 0
    response_bytes = 0


class _BodyError(Exception):
    """A body that cannot be read, for which HTTP has a status of its own."""

    def __init__(self, status: int, code: CanonicalCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def _preflight(request: web.Request, exchange: _Exchange) -> web.Response:
    """What a browser asks before it sends another site's request (http_server.cc)."""
    if not request.headers.get("Origin", "").startswith(("http://", "https://")):
        exchange.code = CanonicalCode.FAILED_PRECONDITION
    return web.Response(status=exchange.code.http_status)


# The arrays, and at the most 24 characters for each number, of four bytes, while the answer grows.
_ANSWER = 8


async def _read(request: web.Request, options: ServerOptions, inference: Inference) -> bytes | bytearray:
    limit, seconds, lease = options.limits.body_bytes, options.connections.body_seconds, current_lease.get()
    too_large = _BodyError(
        413, CanonicalCode.RESOURCE_EXHAUSTED, f"The request's body is too large; this server takes {limit} bytes."
    )
    if (request.content_length or 0) > limit:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            body = await _received(request, limit, lease)
        encoding = request.headers.get("Content-Encoding")
        if not encoding:
            return body
        deadline = asyncio.get_running_loop().time() + options.rest_timeout_seconds
        # Even a short one may take long.
        decoded = await inference.convert(_ANY_SIZE, deadline, decode_body, body, encoding, limit, lease.grow)
        lease.shrink(len(decoded))
        return decoded
    except ServingError as error:
        if request.content.is_eof():
            raise
        raise _BodyError(error.code.http_status, error.code, error.message) from error
    except (web.HTTPRequestEntityTooLarge, BodyTooLargeError):
        raise too_large from None
    except TimeoutError:
        message = f"The request's body did not arrive within {seconds:g} s."
        raise _BodyError(408, CanonicalCode.DEADLINE_EXCEEDED, message) from None
    except (
        aiohttp.ClientPayloadError,
        web.RequestPayloadError,
        aiohttp.http_exceptions.PayloadEncodingError,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
    ):
        message = "The request's body is not encoded as its headers say."
        raise _BodyError(400, CanonicalCode.INVALID_ARGUMENT, message) from None


_ANY_SIZE = 2**62


async def _received(request: web.Request, limit: int, lease: MemoryLease) -> bytes | bytearray:
    """The body, each piece of which is taken from the budget when it comes."""
    if request.content_length is not None and request.content_length <= _PIECE_BYTES:
        await lease.take(request.content_length)
        return await request.read()
    body = bytearray()
    async for piece in request.content.iter_any():
        await lease.take(len(piece))
        body += piece
        if len(body) > limit:
            raise BodyTooLargeError
    return body


def _signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {debug_string(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    # Half a surrogate pair is no character of a name.
    return name.encode("utf-8", "replace").decode()


def _input_types(served: ModelInUse, signature: str) -> dict[str, DataType]:
    if signature not in served.model.signatures:
        raise invalid_argument(f'Serving signature name: "{signature}" not found in signature def')
    infos = served.model.signatures[signature].inputs
    if not infos:
        raise invalid_argument(f"Failed to get input map for signature: {signature}")
    try:
        return {name: data_type(infos[name].dtype) for name in sorted(infos)}
    except ValueError as error:
        raise ServingError(CanonicalCode.UNIMPLEMENTED, f"Signature {signature}: {error}") from error


def _parse_in_time(body: bytes | bytearray, lease: MemoryLease, ends: float) -> dict[str, Any]:
    """The document of a body; given up where nobody waits for it any longer, by the clock of time.monotonic."""

    def grow(more: int) -> None:
        if time.monotonic() > ends:
            raise too_late()
        if more:
            lease.grow(more)

    return parse_document(body, grow)


def _to_input(document: dict[str, Any], free: Callable[[dict[str, Any]], None]) -> input_pb2.Input:
    """As `_to_tensors`."""
    input_ = input_from_json(document)
    free(document)
    return input_


def _to_tensors(
    document: dict[str, Any], data_types: Mapping[str, DataType], free: Callable[[dict[str, Any]], None]
) -> dict[str, np.ndarray]:
    """The tensors of a document, which is empty afterwards: what it held may be much larger, and takes long to free."""
    tensors = _tensors(document, data_types)
    free(document)
    return tensors


def _way_to_free(size: int) -> Callable[[dict[str, Any]], None]:
    """Of the document of a body of so many bytes."""
    return free_in_parts if size >= IN_PARTS_FROM_BYTES else dict.clear


def _tensors(document: Mapping[str, Any], data_types: Mapping[str, DataType]) -> dict[str, np.ndarray]:
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {debug_string(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if "instances" in document:
        return tensors_from_rows(document["instances"], data_types, document)
    if "inputs" in document:
        return tensors_from_columns(document["inputs"], data_types)
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _to_json(proto: message.Message) -> str:
    return json_format.MessageToJson(proto, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
