"""Classify, Regress and MultiInference: tf.Examples in, classes or numbers out."""

from __future__ import annotations

from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from serving.client.canonical_code import CanonicalCode
from serving.server.classification import INPUTS, classification_outputs, classification_result
from serving.server.inference import Inference
from serving.server.model_in_use import ModelInUse
from serving.server.model_manager import ModelManager
from serving.server.regression import OUTPUTS, regression_outputs, regression_result
from serving.server.request_limits import RequestLimits
from serving.server.request_logger import RequestLogger
from serving.server.run_signature import DEFAULT_SIGNATURE
from serving.server.serialized_examples import serialized_examples
from serving.server.serving_error import ServingError, invalid_argument

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
        feeds = {INPUTS: serialized_examples(input_)}
        self._limits.check(feeds)
        return await self._inference.run(served, signature, feeds, names, timeout_seconds), len(feeds[INPUTS])


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
