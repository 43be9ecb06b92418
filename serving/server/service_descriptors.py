"""Descriptors of the two services: tensorflow-serving-api's modules of them cannot be imported beside protobuf 6."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

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
