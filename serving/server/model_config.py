"""One model of a server: its name, where its versions are, which of them are served, and under which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2

from serving.server.request_log_options import RequestLogOptions, request_log_options
from serving.server.serving_error import invalid_argument
from serving.server.version_policy import VersionPolicy

PLATFORM = "tensorflow"


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: what requests call it.
        base_path: the directory that holds <version>/.
        policy: which versions are served, besides those that have a label in the base path.
        labels: the version of each label; None: the labels that `ingraph models label` has written into the base path.
        request_log: where its requests are logged; None where they are not.
    """

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: Mapping[str, int] | None = None
    request_log: RequestLogOptions | None = None


def model_configs(server_config: model_server_config_pb2.ModelServerConfig) -> list[ModelConfig]:
    """The models of a ModelServerConfig.

    Raises:
        ServingError: INVALID_ARGUMENT, a name that comes twice or is missing, another platform than "tensorflow", a
            relative base path, a logging_config that asks for what is not there, or a custom config instead of a list
            of models.
    """
    if server_config.WhichOneof("config") == "custom_model_config":
        raise invalid_argument("ModelServer does not support custom_model_config, only model_config_list.")
    configs: dict[str, ModelConfig] = {}
    for config in server_config.model_config_list.config:
        if config.name in configs:
            raise invalid_argument(f"Illegal to list model {config.name} multiple times in config list")
        configs[config.name] = _model_config(config)
    return list(configs.values())


def _model_config(config: model_server_config_pb2.ModelConfig) -> ModelConfig:
    if not config.name:
        raise invalid_argument("A model in the config list has no name.")
    if not _is_tensorflow(config):
        raise invalid_argument(
            f'Model {config.name} must have model_platform: "{PLATFORM}"; got "{config.model_platform}"'
        )
    if "://" not in config.base_path and not Path(config.base_path).is_absolute():
        raise invalid_argument(
            f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
        )
    policy = _version_policy(config.model_version_policy)
    log = request_log_options(config.logging_config, config.name) if config.HasField("logging_config") else None
    return ModelConfig(config.name, config.base_path, policy, dict(config.version_labels), log)


def _is_tensorflow(config: model_server_config_pb2.ModelConfig) -> bool:
    if config.model_type:  # deprecated there, and still accepted
        return not config.model_platform and config.model_type == model_server_config_pb2.TENSORFLOW
    return bool(config.model_platform == PLATFORM)


def _version_policy(
    policy: file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy,
) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            return VersionPolicy(latest=0, specific=frozenset(policy.specific.versions))
        case "latest":
            # 0 is how protobuf says that nothing was given; TensorFlow Serving takes one version then.
            return VersionPolicy(latest=max(policy.latest.num_versions, 1))
        case _:
            return VersionPolicy()
