"""The REST port: TensorFlow Serving's HTTP API on aiohttp."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import Any

from aiohttp import web
from google.protobuf import json_format, message
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import data_type
from serving.server.json_document import debug_string, parse_document
from serving.server.json_to_tensors import tensors_from_columns, tensors_from_rows
from serving.server.model_info import SIGNATURE_FIELD, model_metadata, model_status
from serving.server.model_manager import ModelManager
from serving.server.rest_call import RestCall, is_routed, parse_call
from serving.server.run_signature import DEFAULT_SIGNATURE, run_signature
from serving.server.serving_error import ServingError, invalid_argument
from serving.server.tensors_to_json import columns_to_json, error_to_json, rows_to_json
from serving.session_model import SessionModel

MAXIMUM_BODY_BYTES = 2**31 - 1
# Smaller bodies are parsed on the event loop: in less time than handing them to a thread and back takes.
PARSED_AT_ONCE_BYTES = 64 * 1024

logger = logging.getLogger(__name__)


class RestService:
    """Answers HTTP requests; inference and large documents are worked on in `executor`."""

    def __init__(self, manager: ModelManager, executor: Executor) -> None:
        self._manager = manager
        self._executor = executor

    def application(self) -> web.Application:
        """The aiohttp application with the one route there is."""
        application = web.Application(client_max_size=MAXIMUM_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        # Bytes that are no UTF-8 cannot be part of any name.
        path = request.raw_path.partition("?")[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if not is_routed(path):
            return web.Response(status=404)
        try:
            body = await self._dispatch(parse_call(request.method, path), request)
            code = CanonicalCode.OK
        except ServingError as error:
            body, code = error_to_json(error.message), error.code
        except (asyncio.CancelledError, web.HTTPException):
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, path)
            body, code = error_to_json("Internal error; the server's log says more."), CanonicalCode.INTERNAL
        return web.Response(body=body, status=code.http_status, content_type="application/json")

    async def _dispatch(self, call: RestCall, request: web.Request) -> bytes:
        match call.verb:
            case "predict":
                return await self._predict(call.spec, await request.read())
            case "metadata":
                return self._metadata(call.spec)
            case "":
                return _to_json(model_status(self._manager, call.spec)).encode()
            case _:
                raise ServingError(CanonicalCode.UNIMPLEMENTED, f"The method {call.verb} is not offered.")

    async def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        if len(body) <= PARSED_AT_ONCE_BYTES:
            document = parse_document(body)
        else:
            document = await loop.run_in_executor(self._executor, parse_document, body)
        signature = document.get("signature_name", "")
        if not isinstance(signature, str):
            raise invalid_argument(
                f"JSON Value: {debug_string(document)} not formatted correctly. 'signature_name' key must be a string "
                "value."
            )
        with self._manager.use(spec) as served:
            return await loop.run_in_executor(
                self._executor, _run, served.model, signature or DEFAULT_SIGNATURE, document
            )

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
        response = model_metadata(self._manager, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_FIELD].Unpack(signatures)
        return (
            f'{{\n"model_spec":{_to_json(response.model_spec)},\n'
            f'"metadata": {{"{SIGNATURE_FIELD}": {_to_json(signatures)}}}\n}}\n'
        ).encode()


def _run(model: SessionModel, signature: str, document: dict[str, Any]) -> bytes:
    """A parsed request -> the body of its answer."""
    if signature not in model.signatures:
        raise invalid_argument(f'Serving signature name: "{signature}" not found in signature def')
    infos = model.signatures[signature].inputs
    if not infos:
        raise invalid_argument(f"Failed to get input map for signature: {signature}")
    try:
        data_types = {name: data_type(infos[name].dtype) for name in sorted(infos)}
    except ValueError as error:
        raise ServingError(CanonicalCode.UNIMPLEMENTED, f"Signature {signature}: {error}") from error
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {debug_string(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if "instances" in document:
        tensors = tensors_from_rows(document["instances"], data_types, document)
        return rows_to_json(run_signature(model, signature, tensors))
    if "inputs" in document:
        tensors = tensors_from_columns(document["inputs"], data_types)
        return columns_to_json(run_signature(model, signature, tensors))
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _to_json(proto: message.Message) -> str:
    return json_format.MessageToJson(proto, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
