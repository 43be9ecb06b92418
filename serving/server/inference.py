"""Inference: requests through the models that they name, by Predict, Classify, Regress and MultiInference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, model_pb2, regression_pb2

from serving.client.errors import CanonicalCode
from serving.client.tensors import STRING_BYTES
from serving.server.batching import BatchScheduler
from serving.server.errors import ServingError, invalid_argument
from serving.server.metrics import ServerMetrics
from serving.server.models import ModelInUse, ModelManager
from serving.server.options import MemoryLease, RequestLimits
from serving.server.request_log import RequestLogger
from serving.server.signatures import (
    DEFAULT_SIGNATURE,
    INPUTS,
    OUTPUTS,
    checked_request,
    classification_outputs,
    classification_result,
    regression_outputs,
    regression_result,
    run_checked,
    serialized_examples,
)
from serving.session_model import SessionModel

# Smaller documents are converted on the event loop: in less time than handing them to a thread and back takes.
CONVERTED_AT_ONCE_BYTES = 64 * 1024

Result = TypeVar("Result")

# What the request that is being answered holds of the memory budget.
current_lease: ContextVar[MemoryLease] = ContextVar("current_lease")


class Inference:
    """Runs signatures in threads, and gives up waiting for them at the caller's deadline.

    Each model has threads of its own: one whose requests take long keeps none from the others.

    Args:
        threads: of each model, for what runs alone.
        converters: the threads that parse and write large documents: no model waits for them.
        batching: merges requests; None where each runs alone.
        metrics: notes what is answered; None where nothing does.
    """

    def __init__(
        self,
        threads: int,
        converters: Executor,
        batching: BatchScheduler | None = None,
        metrics: ServerMetrics | None = None,
    ) -> None:
        self._threads = threads
        self._executors: dict[str, ThreadPoolExecutor] = {}
        self._converters = converters
        self._batching = batching
        self._metrics = metrics

    async def run(
        self,
        served: ModelInUse,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs that the filter names, or all of the signature's, in the signature's order.

        Raises:
            ServingError: INVALID_ARGUMENT, inputs or filter do not fit the signature; UNAVAILABLE, too many requests
                wait already; DEADLINE_EXCEEDED after the time-out, while the model stays loaded until the graph, which
                is told to stop, has stopped; or the op's own code and message.
            KeyError: the model has no such signature.
        """
        feeds, fetches = checked_request(served.model.signatures[signature], inputs, output_filter)
        started = time.perf_counter()
        deadline = None if timeout_seconds is None else started + timeout_seconds
        work: Awaitable[dict[str, np.ndarray]]
        if self._batching is not None:
            work = self._batching.run(served, signature, feeds, fetches, timeout_seconds)
        else:
            # The caller may leave; the thread cannot.
            executor = self._executor(served.name)
            work = served.version.start(executor, _run_before, deadline, served.model, signature, feeds, fetches)
        try:
            async with asyncio.timeout(timeout_seconds):
                outputs = await work
        except TimeoutError:
            raise too_late() from None
        if self._metrics is not None:
            seconds = time.perf_counter() - started
            self._metrics.observe_outputs(served.name, served.number, signature, outputs, seconds)
        return outputs

    def close(self) -> None:
        """End the threads, once all versions are unloaded."""
        for executor in self._executors.values():
            executor.shutdown()

    def _executor(self, name: str) -> ThreadPoolExecutor:
        if name not in self._executors:
            self._executors[name] = ThreadPoolExecutor(self._threads, thread_name_prefix=f"inference-{name}")
        return self._executors[name]

    async def convert(
        self, size: int, deadline: float | None, function: Callable[..., Result], *arguments: object
    ) -> Result:
        """The function's result; called in a thread where what it converts is large.

        Args:
            size: of what is converted, in bytes or values.
            deadline: of the event loop's clock, or None.
            function: pure, such as a parser.
            arguments: the function's.

        Raises:
            ServingError: DEADLINE_EXCEEDED; what the request holds of the memory budget is given back when the thread,
                which cannot be stopped, is done.
        """
        if size <= CONVERTED_AT_ONCE_BYTES:
            return function(*arguments)
        lease = current_lease.get()
        lease.retain()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._converters, function, *arguments)
        thread = asyncio.ensure_future(_outlive(work, lease))
        thread.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there to see it
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(thread)
        except TimeoutError:
            raise too_late() from None


async def _outlive(work: asyncio.Future[Result], lease: MemoryLease) -> Result:
    try:
        return await work
    finally:
        lease.release()


def left(deadline: float | None) -> float | None:
    """Seconds until a deadline of the event loop's clock, at least none; None where there is none."""
    return None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0.0)


def array_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """What arrays take of the memory, strings with their bytes."""
    total = 0
    for array in arrays.values():
        total += array.nbytes
        if array.dtype.kind == "O":
            total += STRING_BYTES * array.size + sum(map(len, array.ravel().tolist()))
    return total


def _run_before(
    deadline: float | None, model: SessionModel, signature: str, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
) -> dict[str, np.ndarray]:
    """In a thread: what had to wait for the thread until nobody waits for the answer any more is not run at all."""
    if deadline is None:
        return run_checked(model, signature, feeds, fetches)
    left = deadline - time.perf_counter()
    if left <= 0:
        raise too_late()
    return run_checked(model, signature, feeds, fetches, left)


def too_late() -> ServingError:
    """What a request ends with that takes longer than it may."""
    return ServingError(CanonicalCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")


CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


class ExampleInference:
    """The three calls, the same for both ports; each raises ServingError as TensorFlow Serving does.

    Signatures are told by their inputs and outputs: like TensorFlow Serving without
    --enable_signature_method_name_check, which is its default.
    """

    def __init__(
        self, manager: ModelManager, inference: Inference, request_logger: RequestLogger, limits: RequestLimits
    ) -> None:
        self._manager = manager
        self._inference = inference
        self._request_logger = request_logger
        self._limits = limits

    async def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_seconds: float | None
    ) -> classification_pb2.ClassificationResponse:
        """The classes and scores of each example."""
        response = classification_pb2.ClassificationResponse()
        with self._manager.use(request.model_spec) as served:
            signature = _signature(served, request.model_spec, "No signature was found with the name: ")
            classification_outputs(served.model.signatures[signature])
            response.result.CopyFrom(await self._classify(served, signature, request.input, timeout_seconds))
            _resolve(response.model_spec, served, signature)
            self._request_logger.log_messages(served, signature, "classify_log", request, response)
        return response

    async def regress(
        self, request: regression_pb2.RegressionRequest, timeout_seconds: float | None
    ) -> regression_pb2.RegressionResponse:
        """The number of each example."""
        response = regression_pb2.RegressionResponse()
        with self._manager.use(request.model_spec) as served:
            signature = _signature(served, request.model_spec, "No signature was found with the name: ")
            regression_outputs(served.model.signatures[signature])
            response.result.CopyFrom(await self._regress(served, signature, request.input, timeout_seconds))
            _resolve(response.model_spec, served, signature)
            self._request_logger.log_messages(served, signature, "regress_log", request, response)
        return response

    async def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, timeout_seconds: float | None
    ) -> inference_pb2.MultiInferenceResponse:
        """Several classify and regress signatures of one version on the same examples, in the order of the tasks."""
        response = inference_pb2.MultiInferenceResponse()
        with self._manager.use(request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()) as served:
            _check_tasks(served, request)
            for task in request.tasks:
                signature = task.model_spec.signature_name or DEFAULT_SIGNATURE
                result = response.results.add()
                if task.method_name == CLASSIFY:
                    classified = await self._classify(served, signature, request.input, timeout_seconds)
                    result.classification_result.CopyFrom(classified)
                else:
                    regressed = await self._regress(served, signature, request.input, timeout_seconds)
                    result.regression_result.CopyFrom(regressed)
                _resolve(result.model_spec, served, signature)
            self._request_logger.log_messages(served, "", "multi_inference_log", request, response)
        return response

    async def _classify(
        self, served: ModelInUse, signature: str, input_: input_pb2.Input, timeout_seconds: float | None
    ) -> classification_pb2.ClassificationResult:
        names = classification_outputs(served.model.signatures[signature])
        outputs, examples = await self._run(served, signature, input_, names, timeout_seconds)
        return classification_result(outputs, examples)

    async def _regress(
        self, served: ModelInUse, signature: str, input_: input_pb2.Input, timeout_seconds: float | None
    ) -> regression_pb2.RegressionResult:
        names = regression_outputs(served.model.signatures[signature])
        outputs, examples = await self._run(served, signature, input_, names, timeout_seconds)
        return regression_result(outputs[OUTPUTS], examples)

    async def _run(
        self,
        served: ModelInUse,
        signature: str,
        input_: input_pb2.Input,
        names: tuple[str, ...],
        timeout_seconds: float | None,
    ) -> tuple[Any, int]:
        await current_lease.get().take(examples_bytes(input_))
        feeds = {INPUTS: serialized_examples(input_)}
        self._limits.check(feeds)
        return await self._inference.run(served, signature, feeds, names, timeout_seconds), len(feeds[INPUTS])


def examples_bytes(input_: input_pb2.Input) -> int:
    """What serialized examples take, each with the context before it."""
    context = 0
    examples = input_.example_list.examples
    if input_.WhichOneof("kind") == "example_list_with_context":
        context = input_.example_list_with_context.context.ByteSize()
        examples = input_.example_list_with_context.examples
    return 2 * (input_.ByteSize() + context * len(examples)) + STRING_BYTES * len(examples)


def _signature(served: ModelInUse, spec: model_pb2.ModelSpec, unknown: str) -> str:
    name: str = spec.signature_name or DEFAULT_SIGNATURE
    if name not in served.model.signatures:
        raise invalid_argument(f"{unknown}{name}")
    return name


def _check_tasks(served: ModelInUse, request: inference_pb2.MultiInferenceRequest) -> None:
    seen: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != served.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        named = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if named in seen:
            raise invalid_argument(f"Duplicate evaluation of signature: {named}")
        seen.add(named)
        name = _signature(served, task.model_spec, "Requested signature not found in model graph: ")
        _check_method(task.method_name, served.model.signatures[name])


def _check_method(method: str, signature: meta_graph_pb2.SignatureDef) -> None:
    if method == CLASSIFY:
        classification_outputs(signature)
    elif method == REGRESS:
        regression_outputs(signature)
    else:
        raise ServingError(CanonicalCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")


def _resolve(spec: model_pb2.ModelSpec, served: ModelInUse, signature: str) -> None:
    spec.name = served.name
    spec.signature_name = signature
    spec.version.value = served.number
