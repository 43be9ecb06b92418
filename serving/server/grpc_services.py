"""The gRPC port: PredictionService and ModelService of TensorFlow Serving on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client.canonical_code import CanonicalCode
from serving.client.tensor_proto import from_proto, to_proto
from serving.server.model_info import model_metadata, model_status
from serving.server.model_manager import ModelInUse, ModelManager
from serving.server.run_signature import DEFAULT_SIGNATURE, run_signature
from serving.server.serving_error import ServingError, invalid_argument

MAXIMUM_MESSAGE_CHARACTERS = 1024  # of an error, as in grpc_status_util.cc

logger = logging.getLogger(__name__)


def add_services(server: grpc.aio.Server, manager: ModelManager, executor: Executor) -> None:
    """Register both services; inference runs in `executor`."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(manager, executor), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(manager), server)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, manager: ModelManager, executor: Executor) -> None:
        self._manager = manager
        self._executor = executor

    async def Predict(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> predict_pb2.PredictResponse:
            _check_spec(request)
            with self._manager.use(request.model_spec) as served:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, _predict, served, request)

        return await _answer(answer, context)

    async def GetModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return model_metadata(self._manager, request)

        return await _answer(answer, context)

    async def Classify(self, request: Any, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        await _refuse("Classify", context)

    async def Regress(self, request: Any, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        await _refuse("Regress", context)

    async def MultiInference(self, request: Any, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        await _refuse("MultiInference", context)


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    async def GetModelStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        async def answer() -> Any:
            _check_spec(request)
            return model_status(self._manager, request.model_spec)

        return await _answer(answer, context)

    async def HandleReloadConfigRequest(  # noqa: N802
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> None:
        await _refuse("HandleReloadConfigRequest", context)


def _predict(served: ModelInUse, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if signature not in served.model.signatures:
        raise ServingError(CanonicalCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
    inputs = {}
    for alias, proto in request.inputs.items():
        try:
            inputs[alias] = from_proto(proto)
        except ValueError as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
    outputs = run_signature(served.model, signature, inputs, tuple(request.output_filter))
    response = predict_pb2.PredictResponse()
    response.model_spec.name = served.name
    response.model_spec.signature_name = signature
    response.model_spec.version.value = served.number
    for alias, array in outputs.items():
        to_proto(array, response.outputs[alias], as_content=False)
    return response


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


async def _answer(answer: Callable[[], Awaitable[Any]], context: grpc.aio.ServicerContext) -> Any:
    try:
        return await answer()
    except ServingError as error:
        code, message = error.code, error.message
    except Exception:
        logger.exception("a gRPC request failed")
        code, message = CanonicalCode.INTERNAL, "Internal error; the server's log says more."
    if len(message) > MAXIMUM_MESSAGE_CHARACTERS:
        message = f"{message[:MAXIMUM_MESSAGE_CHARACTERS]}...TRUNCATED"
    return await context.abort(grpc.StatusCode[code.name], message)


async def _refuse(method: str, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"The method {method} is not offered.")
