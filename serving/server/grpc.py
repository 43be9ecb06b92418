"""The gRPC port: PredictionService and ModelService of TensorFlow Serving on grpc.aio."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import numpy as np
from google.protobuf import descriptor, descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.client.errors import CanonicalCode
from serving.client.tensors import DataType, array_of, check_shape, declared_bytes, to_proto
from serving.server.config import model_configs, within_roots
from serving.server.errors import ServingError, invalid_argument
from serving.server.inference import ExampleInference, Inference, array_bytes, current_lease, left
from serving.server.models import ModelInUse, ModelManager, model_metadata, model_status
from serving.server.options import ArrivingMessages, MemoryBudget, ReloadOptions, ServerOptions
from serving.server.request_log import RequestLogger, RequestRecord
from serving.server.signatures import DEFAULT_SIGNATURE

_PACKAGE = "tensorflow.serving"
_SERVICES = {
    "PredictionService": {
        "Classify": (classification_pb2, "ClassificationRequest", "ClassificationResponse"),
        "Regress": (regression_pb2, "RegressionRequest", "RegressionResponse"),
        "Predict": (predict_pb2, "PredictRequest", "PredictResponse"),
        "MultiInference": (inference_pb2, "MultiInferenceRequest", "MultiInferenceResponse"),
        "GetModelMetadata": (get_model_metadata_pb2, "GetModelMetadataRequest", "GetModelMetadataResponse"),
    },
    "ModelService": {
        "GetModelStatus": (get_model_status_pb2, "GetModelStatusRequest", "GetModelStatusResponse"),
        "HandleReloadConfigRequest": (model_management_pb2, "ReloadConfigRequest", "ReloadConfigResponse"),
    },
}
_FILES = {"PredictionService": "prediction_service", "ModelService": "model_service"}


def register_service_descriptors() -> list[str]:
    """The full names of both services, once they are in the default pool, where the reflection service looks for them.

    Source: tensorflow_serving/apis/{prediction,model}_service.proto.
    """
    pool = descriptor_pool.Default()
    for service_name, methods in _SERVICES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"tensorflow_serving/apis/{_FILES[service_name]}.proto", package=_PACKAGE, syntax="proto3"
        )
        file.dependency.extend(module.DESCRIPTOR.name for module, _, _ in methods.values())
        service = file.service.add(name=service_name)
        for name, (_, request, response) in methods.items():
            service.method.add(name=name, input_type=f".{_PACKAGE}.{request}", output_type=f".{_PACKAGE}.{response}")
        pool.AddSerializedFile(file.SerializeToString(deterministic=True))
    return [f"{_PACKAGE}.{name}" for name in _SERVICES]


# What the parser takes for parts of a message, measured: beside the bytes of a string, for a message, and for an entry
# of a map; for each byte of packed varints; and for each byte of what is not looked at, at its worst.
_STRING, _MESSAGE, _MAP_ENTRY, _VARINT, _ANYTHING = 40, 104, 180, 16, 90
_MOST_PARTS = 2_000_000  # that are looked at, in about two seconds
_LEAST_LOOKED_AT = 4096  # bytes; what is smaller counts at its worst
_VARINT_TYPES = {
    getattr(descriptor.FieldDescriptor, f"TYPE_{name}")
    for name in ("INT32", "INT64", "UINT32", "UINT64", "SINT32", "SINT64", "BOOL", "ENUM")
}


def parsed_bytes(data: bytes, kind: Any) -> int:
    """What a message takes once it is parsed, from above; a small one may take ninety times its size.

    Args:
        data: the serialized message; where it is none, the parser says so.
        kind: its descriptor.
    """
    if len(data) <= _LEAST_LOOKED_AT:
        return _ANYTHING * len(data)
    total, parts = len(data), 0
    ahead = [(0, len(data), kind)]
    while ahead:
        at, end, kind = ahead.pop()
        fields = kind.fields_by_number
        while at < end:
            parts += 1
            if parts > _MOST_PARTS:
                return total + _ANYTHING * (end - at + sum(stop - start for start, stop, _ in ahead))
            begin = at
            tag, at = _varint(data, at, end)
            wire = tag & 7
            if wire != 2:
                skipped = {1: at + 8, 5: at + 4}.get(wire, end)
                at = _varint(data, at, end)[1] if wire == 0 else skipped
                total += _STRING
                continue
            size, at = _varint(data, at, end)
            field = fields.get(tag >> 3)
            if field is None:
                total += size
            elif field.message_type is not None:
                total += _MAP_ENTRY if field.message_type.GetOptions().map_entry else _MESSAGE
                ahead.append((at, min(at + size, end), field.message_type))
            elif field.type in _VARINT_TYPES:
                total += _VARINT * size
            else:
                total += _STRING + 2 * size
            at += size
            # Strings by the million, of up to 127 bytes each: the same again without looking things up.
            if field is not None and field.message_type is None and at - begin == size + 2:
                first, strings = data[begin], 0
                while at + 1 < end and data[at] == first and data[at + 1] < 128:
                    size = data[at + 1]
                    at += 2 + size
                    total += 2 * size
                    strings += 1
                total += _STRING * strings
                parts += strings // 8
    return total


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends; one that is cut off ends everything."""
    value, shift = 0, 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end


class ParsingHandlers:
    """Takes the place of a grpc.aio.Server where a generated function adds a servicer of unary methods to it.

    A request that is no message of its type ends with INTERNAL, as with C++ servers; left to itself the library answers
    UNKNOWN with the name of a Python class, and logs a stack trace. One that does not arrive in time ends with
    DEADLINE_EXCEEDED; left to itself the library waits for ever. Large messages are parsed and written in threads, and
    within the memory budget.

        add_PredictionServiceServicer_to_server(servicer, ParsingHandlers(server, Messages(…)))
    """

    def __init__(self, server: grpc.aio.Server, messages: Messages) -> None:
        self._server = server
        self._messages = messages

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's."""
        self._server.add_generic_rpc_handlers([_ParsingHandler(handler, self._messages) for handler in handlers])


@dataclass(frozen=True)
class Messages:
    """How messages are read and written.

    Attributes:
        inference: converts large ones.
        budget: of the memory that they take.
        arriving: those that are not whole yet.
        seconds: in which one has to arrive.
    """

    inference: Inference
    budget: MemoryBudget
    arriving: ArrivingMessages
    seconds: float

    def handler(self, handler: grpc.RpcMethodHandler, kind: Any) -> grpc.RpcMethodHandler:
        """Of a method whose requests have this descriptor."""
        parse, respond, serialize = handler.request_deserializer, handler.unary_unary, handler.response_serializer

        # On the wire a call of one message is a stream of one: only of a stream the server says itself when it reads.
        async def call(_: Any, context: grpc.aio.ServicerContext) -> Any:
            data = await self._read(context)
            lease = self.budget.lease()
            lease.request_bytes = len(data)
            current_lease.set(lease)
            # What is sent stays in memory until the client has read it.
            context.add_done_callback(lambda _: lease.release())
            deadline = _deadline(context)
            try:
                size = await self.inference.convert(len(data), deadline, parsed_bytes, data, kind)
                await lease.take(len(data) + size)
                request = await self.inference.convert(len(data), deadline, parse, data)
            except DecodeError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
            except ServingError as error:
                await context.abort(grpc.StatusCode[error.code.name], _truncated(error.message))
            lease.shrink(size)
            del data
            response = await respond(request, context)
            return await self.inference.convert(lease.answer_bytes, deadline, serialize, response)

        return grpc.stream_unary_rpc_method_handler(call)

    async def _read(self, context: grpc.aio.ServicerContext) -> bytes:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(self.seconds)
        arrival = self.arriving.start(
            context.peer(), lambda: None if limit.expired() else limit.reschedule(loop.time())
        )
        data: Any = None
        try:
            async with limit:
                data = await context.read()
        except TimeoutError:
            pass
        finally:
            self.arriving.end(arrival, len(data) if isinstance(data, bytes) else 0)
        if data is None and arrival.given_up:
            message = "Messages that are still arriving hold too much memory, this one's client most; send it later."
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        if data is None:
            message = f"The request's message did not arrive within {self.seconds:g} s."
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)
        if data is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INTERNAL, "The call has ended without a message.")
        return bytes(data)


class _ParsingHandler(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler, messages: Messages) -> None:
        self._handler = handler
        self._messages = messages
        self._parsing: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if method not in self._parsing:
            handler = self._handler.service(handler_call_details)
            if handler is None:
                return None
            self._parsing[method] = self._messages.handler(handler, _request_descriptor(method))
        return self._parsing[method]


def _request_descriptor(method: str) -> Any:
    _, service, name = method.split("/") if method.count("/") == 2 else ("", "", "")
    module, request, _ = _SERVICES[service.rpartition(".")[2]][name]
    return module.DESCRIPTOR.message_types_by_name[request]


def _deadline(context: grpc.aio.ServicerContext) -> float | None:
    """The client's, of the event loop's clock."""
    remaining = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


logger = logging.getLogger(__name__)


def may_reload(options: ReloadOptions, mutual_tls: bool, peer: str) -> None:
    """Refuse who may not tell the server what to serve.

    Args:
        options: of the server.
        mutual_tls: whether the client has shown a certificate that the server asks for.
        peer: as gRPC names it: "ipv4:127.0.0.1:50000", "ipv6:[::1]:50000", "unix:/path".

    Raises:
        ServingError: PERMISSION_DENIED.
    """
    if not options.roots:
        reason = "This server takes no config from clients: start it with --allow-reload-config ROOT."
    elif not (options.from_anywhere or mutual_tls or _is_local(peer)):
        reason = (
            "This server takes configs from its own machine and from clients with a certificate only: see "
            "--allow-reload-config-from-anywhere."
        )
    else:
        return
    raise ServingError(CanonicalCode.PERMISSION_DENIED, reason)


def _is_local(peer: str) -> bool:
    kind, _, address = unquote(peer).partition(":")
    if kind == "unix":
        return True
    try:
        ip = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


async def reload_config(
    manager: ModelManager, request: model_management_pb2.ReloadConfigRequest, roots: tuple[str, ...]
) -> model_management_pb2.ReloadConfigResponse:
    """Serve exactly the models of the request; answered when those that are new are available.

    Args:
        manager: the models.
        request: what to serve.
        roots: what base paths and request logs have to lie below.

    Raises:
        ServingError: INVALID_ARGUMENT, the config is none; PERMISSION_DENIED, a path outside of the roots;
            FAILED_PRECONDITION, a label for a version that is not available; UNKNOWN, a new model did not become
            available.
    """
    try:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        await manager.reload(within_roots(model_configs(request.config), roots))
    except ServingError as error:
        logger.error("the model config was not taken over: %s", error.message)
        raise
    return model_management_pb2.ReloadConfigResponse()


MAXIMUM_MESSAGE_BYTES = 1024  # of an error, as in grpc_status_util.cc


Observers = Iterable[Callable[[RequestRecord], None]]


async def add_services(
    server: grpc.aio.Server,
    manager: ModelManager,
    inference: Inference,
    request_logger: RequestLogger,
    options: ServerOptions,
    budget: MemoryBudget,
    observers: Observers = (),
) -> None:
    """Register both services, and those for health and reflection where the options ask for them.

    Args:
        server: not started yet.
        manager: the models.
        inference: runs them.
        request_logger: gets what they have answered.
        options: of the server.
        budget: of the memory that requests take.
        observers: told of every request that was answered.
    """
    calls = _Calls(tuple(observers))
    parsing = ParsingHandlers(
        server, Messages(inference, budget, ArrivingMessages(budget), options.connections.body_seconds)
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(calls, manager, inference, request_logger, options), parsing
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(calls, manager, options), parsing)
    if options.grpc_health:
        health_pb2_grpc.add_HealthServicer_to_server(await _healthy(), server)
    if options.grpc_reflection:
        services = [
            *register_service_descriptors(),
            *([health.SERVICE_NAME] if options.grpc_health else []),
            reflection.SERVICE_NAME,
        ]
        reflection.enable_server_reflection(services, server)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(
        self,
        calls: _Calls,
        manager: ModelManager,
        inference: Inference,
        request_logger: RequestLogger,
        options: ServerOptions,
    ) -> None:
        self._calls = calls
        self._manager = manager
        self._inference = inference
        self._request_logger = request_logger
        self._limits = options.limits
        self._examples = ExampleInference(manager, inference, request_logger, options.limits)

    async def Predict(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> predict_pb2.PredictResponse:
            _check_spec(request)
            with self._manager.use(request.model_spec) as served:
                return await self._predict(served, request, context.time_remaining())

        return await self._calls.answer("Predict", request.model_spec.name, request, answer, context)

    async def Classify(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return await self._examples.classify(request, context.time_remaining())

        return await self._calls.answer("Classify", request.model_spec.name, request, answer, context)

    async def Regress(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return await self._examples.regress(request, context.time_remaining())

        return await self._calls.answer("Regress", request.model_spec.name, request, answer, context)

    async def MultiInference(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            return await self._examples.multi_inference(request, context.time_remaining())

        name = request.tasks[0].model_spec.name if request.tasks else ""
        return await self._calls.answer("MultiInference", name, request, answer, context)

    async def GetModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return model_metadata(self._manager, request)

        return await self._calls.answer("GetModelMetadata", request.model_spec.name, request, answer, context)

    async def _predict(
        self, served: ModelInUse, request: predict_pb2.PredictRequest, timeout_seconds: float | None
    ) -> predict_pb2.PredictResponse:
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature not in served.model.signatures:
            raise ServingError(CanonicalCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        convert, lease = self._inference.convert, current_lease.get()
        now = asyncio.get_running_loop().time()
        deadline = None if timeout_seconds is None else now + timeout_seconds
        received = lease.request_bytes
        tensors, declared = await convert(received, deadline, _checked, request, self._limits.tensor_bytes)
        await lease.take(declared)
        inputs = await convert(max(received, declared), deadline, _inputs, tensors)
        self._limits.check(inputs)
        outputs = await self._inference.run(served, signature, inputs, tuple(request.output_filter), left(deadline))
        answered = lease.answer_bytes = array_bytes(outputs)
        # The arrays, the message, while it grows, and what is sent.
        await lease.take(_ANSWER * answered)
        response = await convert(answered, deadline, _response, outputs)
        response.model_spec.name = served.name
        response.model_spec.signature_name = signature
        response.model_spec.version.value = served.number
        self._request_logger.log_messages(served, signature, "predict_log", request, response)
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, calls: _Calls, manager: ModelManager, options: ServerOptions) -> None:
        self._calls = calls
        self._manager = manager
        self._reload = options.reload
        self._mutual_tls = options.tls is not None and bool(options.tls.client_ca)

    async def GetModelStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return model_status(self._manager, request.model_spec)

        return await self._calls.answer("GetModelStatus", request.model_spec.name, request, answer, context)

    async def HandleReloadConfigRequest(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            may_reload(self._reload, self._mutual_tls, context.peer())
            return await reload_config(self._manager, request, self._reload.roots)

        return await self._calls.answer("HandleReloadConfigRequest", "", request, answer, context)


class _Calls:
    """What every method does around its answer."""

    def __init__(self, observers: tuple[Callable[[RequestRecord], None], ...]) -> None:
        self._observers = observers

    async def answer(
        self,
        method: str,
        model: str,
        request: Any,
        answer: Callable[[], Awaitable[Any]],
        context: grpc.aio.ServicerContext,
    ) -> Any:
        """The answer, or the call's end with a code and a message."""
        started = time.perf_counter()
        response, code, message = None, CanonicalCode.OK, ""
        try:
            response = await answer()
        except ServingError as error:
            code, message = error.code, error.message
        except Exception:
            logger.exception("%s of %s failed", method, model)
            code, message = CanonicalCode.INTERNAL, "Internal error; the server's log says more."
        if self._observers:
            sizes = current_lease.get().request_bytes, response.ByteSize() if response is not None else 0
            seconds = time.perf_counter() - started
            record = RequestRecord("GRPC", method, model, code, seconds, context.peer(), *sizes)
            for observe in self._observers:
                observe(record)
        if response is None:
            await context.abort(grpc.StatusCode[code.name], _truncated(message))
        return response


_ANSWER = 6


_Checked = tuple[str, Any, DataType, tuple[int, ...]]


def _checked(request: predict_pb2.PredictRequest, maximum_bytes: int) -> tuple[list[_Checked], int]:
    """The inputs, of which the shapes are possible, and how many bytes they will take."""
    tensors, declared = [], 0
    for alias, proto in request.inputs.items():
        try:
            kind, shape = check_shape(proto, maximum_bytes)
        except ValueError as error:
            raise invalid_argument(f"tensor parsing error: {alias}: {error}") from error
        declared += declared_bytes(proto, kind, shape)
        tensors.append((alias, proto, kind, shape))
    return tensors, declared


def _inputs(tensors: Sequence[_Checked]) -> dict[str, np.ndarray]:
    inputs = {}
    for alias, proto, kind, shape in tensors:
        try:
            inputs[alias] = array_of(proto, kind, shape)
        except ValueError as error:
            raise invalid_argument(f"tensor parsing error: {alias}: {error}") from error
    return inputs


def _response(outputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    for alias, array in outputs.items():
        to_proto(array, response.outputs[alias], as_content=False)
    return response


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _truncated(message: str) -> str:
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= MAXIMUM_MESSAGE_BYTES:
        return message
    return f"{encoded[:MAXIMUM_MESSAGE_BYTES].decode('utf-8', 'ignore')}...TRUNCATED"


async def _healthy() -> health.aio.HealthServicer:
    """TensorFlow Serving's health service: its ports open when the models are there, so it is well from the start."""
    servicer = health.aio.HealthServicer()
    for name in ("ModelService", "PredictionService"):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer
