"""The models that a model_config_file lists, now and whenever the file changes."""

from __future__ import annotations

import asyncio
import logging

from tensorflow_serving.config import model_server_config_pb2

from serving.server.model_config import ModelConfig, model_configs
from serving.server.model_manager import ModelManager
from serving.server.serving_error import ServingError
from serving.server.text_proto import ConfigFileError, read_text_proto

_NO_TRANSITION = (
    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
)

logger = logging.getLogger(__name__)


def read_model_config_file(path: str) -> list[ModelConfig] | None:
    """The models of a text file of tensorflow.serving.ModelServerConfig; None where it holds no config at all.

    An empty list of models is a config; an empty file, such as one that is just being written, is none.

    Raises:
        ConfigFileError: the file cannot be read, is no such text, or lists what cannot be served.
    """
    try:
        server_config = read_text_proto(path, model_server_config_pb2.ModelServerConfig())
        return model_configs(server_config) if server_config.WhichOneof("config") else None
    except ServingError as error:
        raise ConfigFileError(f"{path}: {error.message}") from error


async def poll_model_config_file(path: str, seconds: float, manager: ModelManager) -> None:
    """Serve what the file lists, as often as it changes; what is wrong with it is logged, and changes nothing."""
    reported = ""
    while True:
        await asyncio.sleep(seconds)
        trouble = ""
        try:
            configs = await asyncio.to_thread(read_model_config_file, path)
            if configs is not None:
                manager.configure(configs)
            elif manager.has_config:
                trouble = f"{path} is empty. {_NO_TRANSITION}"
        except ConfigFileError as error:
            trouble = str(error)
        except ServingError as error:
            trouble = f"{path}: {error.message}"
        if trouble and trouble != reported:
            logger.error("the models stay as they were: %s", trouble)
        reported = trouble
