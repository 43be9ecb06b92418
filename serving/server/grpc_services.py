"""The gRPC port: PredictionService and ModelService of TensorFlow Serving on grpc.aio."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import from_proto, to_proto
from serving.server.example_inference import ExampleInference
from serving.server.inference import Inference
from serving.server.model_in_use import ModelInUse
from serving.server.model_info import model_metadata, model_status
from serving.server.model_manager import ModelManager
from serving.server.parsing_handlers import ParsingHandlers
from serving.server.reload_config import reload_config
from serving.server.request_logger import RequestLogger
from serving.server.request_record import RequestRecord
from serving.server.run_signature import DEFAULT_SIGNATURE
from serving.server.server_options import ServerOptions
from serving.server.service_descriptors import register_service_descriptors
from serving.server.serving_error import ServingError, invalid_argument

MAXIMUM_MESSAGE_BYTES = 1024  # of an error, as in grpc_status_util.cc

logger = logging.getLogger(__name__)

Observers = Iterable[Callable[[RequestRecord], None]]


async def add_services(
    server: grpc.aio.Server,
    manager: ModelManager,
    inference: Inference,
    request_logger: RequestLogger,
    options: ServerOptions,
    observers: Observers = (),
) -> None:
    """Register both services, and those for health and reflection where the options ask for them.

    Args:
        server: not started yet.
        manager: the models.
        inference: runs them.
        request_logger: gets what they have answered.
        options: of the server.
        observers: told of every request that was answered.
    """
    calls, parsing = _Calls(tuple(observers)), ParsingHandlers(server)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(calls, manager, inference, request_logger, options), parsing
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(calls, manager), parsing)
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
        convert = self._inference.convert
        inputs = await convert(request.ByteSize(), _inputs, request, self._limits.tensor_bytes)
        self._limits.check(inputs)
        outputs = await self._inference.run(served, signature, inputs, tuple(request.output_filter), timeout_seconds)
        response = await convert(sum(array.nbytes for array in outputs.values()), _response, outputs)
        response.model_spec.name = served.name
        response.model_spec.signature_name = signature
        response.model_spec.version.value = served.number
        self._request_logger.log_messages(served, signature, "predict_log", request, response)
        return response


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, calls: _Calls, manager: ModelManager) -> None:
        self._calls = calls
        self._manager = manager

    async def GetModelStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return model_status(self._manager, request.model_spec)

        return await self._calls.answer("GetModelStatus", request.model_spec.name, request, answer, context)

    async def HandleReloadConfigRequest(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            return await reload_config(self._manager, request)

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
            sizes = request.ByteSize(), response.ByteSize() if response is not None else 0
            seconds = time.perf_counter() - started
            record = RequestRecord("GRPC", method, model, code, seconds, context.peer(), *sizes)
            for observe in self._observers:
                observe(record)
        if response is None:
            await context.abort(grpc.StatusCode[code.name], _truncated(message))
        return response


def _inputs(request: predict_pb2.PredictRequest, maximum_bytes: int) -> dict[str, np.ndarray]:
    inputs = {}
    for alias, proto in request.inputs.items():
        try:
            inputs[alias] = from_proto(proto, maximum_bytes)
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
