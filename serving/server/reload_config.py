"""HandleReloadConfigRequest of tensorflow.serving.ModelService."""

from __future__ import annotations

import logging

from tensorflow_serving.apis import model_management_pb2

from serving.server.model_config import model_configs
from serving.server.model_manager import ModelManager
from serving.server.serving_error import ServingError, invalid_argument

logger = logging.getLogger(__name__)


async def reload_config(
    manager: ModelManager, request: model_management_pb2.ReloadConfigRequest
) -> model_management_pb2.ReloadConfigResponse:
    """Serve exactly the models of the request; answered when those that are new are available.

    Raises:
        ServingError: INVALID_ARGUMENT, the config is none; FAILED_PRECONDITION, a label for a version that is not
            available; UNKNOWN, a new model did not become available.
    """
    try:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        await manager.reload(model_configs(request.config))
    except ServingError as error:
        logger.error("the model config was not taken over: %s", error.message)
        raise
    return model_management_pb2.ReloadConfigResponse()
