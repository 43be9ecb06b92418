"""What GetModelStatus and GetModelMetadata answer."""

from __future__ import annotations

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.server.model_manager import ModelManager
from serving.server.serving_error import invalid_argument

SIGNATURE_FIELD = "signature_def"


def model_status(manager: ModelManager, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
    """The state of every version of a model, or of the one that the spec names.

    Raises:
        ServingError: NOT_FOUND, no such model or version was ever seen.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in manager.status(spec):
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = int(version.code)
        entry.status.error_message = version.message
    return response


def model_metadata(
    manager: ModelManager, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a model.

    Raises:
        ServingError: INVALID_ARGUMENT, another field than "signature_def" or none; NOT_FOUND, no such model.
    """
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for metadata_field in request.metadata_field:
        if metadata_field != SIGNATURE_FIELD:
            raise invalid_argument(f"Metadata field {metadata_field} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with manager.use(request.model_spec) as served:
        response.model_spec.name = served.name
        response.model_spec.version.value = served.number
        for name, signature in served.model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response.metadata[SIGNATURE_FIELD].Pack(signatures)
    return response
