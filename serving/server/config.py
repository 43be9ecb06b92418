"""Config files of TensorFlow Serving: models, version policies, batching, monitoring, request logs.

Source: servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import file_system_storage_path_source_pb2, logging_config_pb2, model_server_config_pb2

from serving.client.errors import CanonicalCode
from serving.model_store import PublicKey
from serving.server.errors import ServingError, invalid_argument

MessageT = TypeVar("MessageT", bound=message.Message)


class ConfigFileError(Exception):
    """A config file cannot be read, or does not say what it should."""


def read_text_proto(path: str, empty: MessageT) -> MessageT:
    """The message in a file; `empty` is filled and returned.

    Raises:
        ConfigFileError: there is no such file, or it is no text of that message.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigFileError(f"{path} cannot be read: {why}") from error
    try:
        return text_format.Parse(text, empty)
    except text_format.ParseError as error:
        raise ConfigFileError(f"Error parsing text-format {empty.DESCRIPTOR.full_name}: {path}:{error}") from error


_PACKAGE = "tensorflow.serving"
_FILE = "ingraph/serving/config_messages.proto"
# Kind of field, by how it is written below.
_TYPES = {"bool": 8, "int64": 3, "string": 9}
_MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, "google.protobuf.Int64Value"),
        ("batch_timeout_micros", 2, "google.protobuf.Int64Value"),
        ("max_enqueued_batches", 3, "google.protobuf.Int64Value"),
        ("num_batch_threads", 4, "google.protobuf.Int64Value"),
        ("thread_pool_name", 5, "google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, "repeated int64"),
        ("pad_variable_length_inputs", 7, "bool"),
        ("enable_large_batch_splitting", 8, "google.protobuf.BoolValue"),
        ("max_execution_batch_size", 9, "google.protobuf.Int64Value"),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [("prometheus_config", 1, f"{_PACKAGE}.PrometheusConfig")],
}


def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number, label=3 if kind.startswith("repeated") else 1)
            kind = kind.removeprefix("repeated ")
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClassesForFiles([_FILE], pool)


_CLASSES = _message_classes()

BatchingParametersMessage = _CLASSES[f"{_PACKAGE}.BatchingParameters"]
MonitoringConfigMessage = _CLASSES[f"{_PACKAGE}.MonitoringConfig"]


@dataclass(frozen=True)
class VersionPolicy:
    """The `latest` largest versions, and the `specific` ones that exist; all there are where `latest` is None."""

    latest: int | None = 1
    specific: frozenset[int] = frozenset()

    def choose(self, numbers: Iterable[int]) -> set[int]:
        """Those of the numbers that are to be served."""
        ordered = sorted(numbers, reverse=True)
        return {*ordered[: self.latest], *self.specific.intersection(ordered)}


@dataclass(frozen=True)
class LoadPolicy:
    """When base paths are looked at, how often a load is tried, and what is loaded.

    Attributes:
        poll_seconds: from one look to the next; 0 looks once. TensorFlow Serving's default, as of the retries.
        load_retries: after the first attempt.
        load_retry_seconds: from one attempt to the next.
        allow_file_operations: whether a SavedModel may read and write files outside of its own assets.
        wait_for_models: whether the ports stay shut until a version that could not be loaded has failed for good, as
            TensorFlow Serving's do, and not only once.
        signature_keys: one of which must have signed a version; () where versions need no signature.
        warm_up: whether the warm-up requests of a version are replayed before it answers.
    """

    poll_seconds: float = 1.0
    load_retries: int = 5
    load_retry_seconds: float = 60.0
    allow_file_operations: bool = False
    wait_for_models: bool = False
    signature_keys: tuple[PublicKey, ...] = ()
    warm_up: bool = True


COLLECTOR_TYPE = "tfrecord"


@dataclass(frozen=True)
class RequestLogOptions:
    """A log of requests.

    Attributes:
        filename_prefix: how the names of its files begin, with their folder; in a local file system.
        sampling_rate: the share of answered requests that is logged, drawn at random, 0 to 1.

    Raises:
        ValueError: they cannot be.
    """

    filename_prefix: str
    sampling_rate: float

    def __post_init__(self) -> None:
        if not self.filename_prefix or self.filename_prefix.endswith("/") or "://" in self.filename_prefix:
            raise ValueError(
                "expected how file names in a local file system begin, such as logs/heart, "
                f"received {self.filename_prefix!r}"
            )
        if not 0 <= self.sampling_rate <= 1:
            raise ValueError(f"expected a sampling rate from 0 to 1, received {self.sampling_rate:g}")


def request_log_options(config: logging_config_pb2.LoggingConfig, model: str) -> RequestLogOptions:
    """The log that a model's LoggingConfig asks for.

    Raises:
        ServingError: INVALID_ARGUMENT, it asks for something that is not there.
    """
    collector, sampling = config.log_collector_config, config.sampling_config
    where = f"logging_config of model {model}: "
    if collector.type not in ("", COLLECTOR_TYPE):
        raise invalid_argument(
            f"{where}Cannot find LogCollector::Factory for type: {collector.type}; this server has "
            f'"{COLLECTOR_TYPE}" only'
        )
    if sampling.attributes or config.HasField("custom_logging_config"):
        raise invalid_argument(f"{where}attributes and custom_logging_config are not supported")
    try:
        return RequestLogOptions(collector.filename_prefix, sampling.sampling_rate)
    except ValueError as error:
        raise invalid_argument(f"{where}{error}") from error


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are merged into batches; the defaults are TensorFlow Serving's.

    Attributes:
        max_batch_size: rows of a batch, and of a request unless large requests are split.
        batch_timeout_micros: how long a batch that is not full waits for more requests while a thread is free.
        max_enqueued_batches: batches that may wait per version and signature; what comes then is UNAVAILABLE.
        num_batch_threads: batches that run at the same time, of all models together; a model of which none runs gets a
            thread besides, so that others cannot keep it waiting for ever.
        allowed_batch_sizes: a batch is filled up to the next of these sizes; () for no filling.
        pad_variable_length_inputs: whether inputs of different lengths are padded to one; otherwise each length has
            batches of its own.
        enable_large_batch_splitting: whether a request may be spread over several batches.
        max_execution_batch_size: rows of a batch where requests are split.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000

    def __post_init__(self) -> None:
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 1),
            ("num_batch_threads", 1),
            ("max_execution_batch_size", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigFileError(f"{name} must be at least {least}; was {getattr(self, name)}")
        sizes = self.allowed_batch_sizes
        if list(sizes) != sorted(set(sizes)) or any(size < 1 for size in sizes):
            raise ConfigFileError(f"allowed_batch_sizes must be positive and increasing; were {list(sizes)}")
        if sizes and sizes[-1] != self.largest_batch:
            raise ConfigFileError(
                f"Last entry in allowed_batch_sizes must match {self._largest_name}; last entry was {sizes[-1]}; "
                f"expected {self.largest_batch}"
            )
        if self.enable_large_batch_splitting and self.max_batch_size < self.max_execution_batch_size:
            raise ConfigFileError(
                "When enable_large_batch_splitting is true, max_batch_size must be greater than or equal to "
                f"max_execution_batch_size; were {self.max_batch_size} and {self.max_execution_batch_size}"
            )

    @property
    def largest_batch(self) -> int:
        """The largest number of rows that runs at once."""
        return self.max_execution_batch_size if self.enable_large_batch_splitting else self.max_batch_size

    @property
    def _largest_name(self) -> str:
        return "max_execution_batch_size" if self.enable_large_batch_splitting else "max_batch_size"

    def padded_size(self, rows: int) -> int:
        """The allowed size that a batch of so many rows is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_parameters(path: str) -> BatchingParameters:
    """The parameters in a batching_parameters_file, a text of tensorflow.serving.BatchingParameters.

    Raises:
        ConfigFileError: the file cannot be read or parsed, or the values do not go together.
    """
    message = read_text_proto(path, BatchingParametersMessage())
    given: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    given.pop("thread_pool_name", None)  # it names threads, and changes nothing else
    for name, value in given.items():
        given[name] = tuple(value) if name == "allowed_batch_sizes" else getattr(value, "value", value)
    if given.get("enable_large_batch_splitting") and "max_batch_size" in given:
        given.setdefault("max_execution_batch_size", given["max_batch_size"])
    try:
        return BatchingParameters(**given)
    except ConfigFileError as error:
        raise ConfigFileError(f"{path}: {error}") from error


DEFAULT_PATH = "/monitoring/prometheus/metrics"


def read_metrics_path(path: str) -> str | None:
    """The URL path of the metrics, None where they are not enabled.

    Raises:
        ConfigFileError: the file is no text of tensorflow.serving.MonitoringConfig, or asks for what is no path.
    """
    config = read_text_proto(path, MonitoringConfigMessage()).prometheus_config
    if not config.enable:
        return None
    metrics_path: str = config.path or DEFAULT_PATH
    if not metrics_path.startswith("/") or set(metrics_path) & set("{}?#"):
        raise ConfigFileError(f"{path}: prometheus_config.path must be the path of a URL, received {metrics_path!r}")
    return metrics_path


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
        roots: directories or URLs; a version that lies below none of them, links followed, is not loaded. () where a
            version may lie anywhere.
    """

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: Mapping[str, int] | None = None
    request_log: RequestLogOptions | None = None
    roots: tuple[str, ...] = ()


def lies_below(path: str, roots: Iterable[str]) -> bool:
    """Whether a path lies below one of some directories, links followed; a URL, below one of the URLs among them."""
    if "://" in path:
        parts = path.rstrip("/").split("/")
        return ".." not in parts and any(
            parts[: len(root)] == root for root in (root.rstrip("/").split("/") for root in roots if "://" in root)
        )
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots if "://" not in root)


def within_roots(configs: Iterable[ModelConfig], roots: tuple[str, ...]) -> list[ModelConfig]:
    """The same configs, bound to these roots.

    Raises:
        ServingError: PERMISSION_DENIED, a base path or a request log lies outside.
    """
    bound = []
    for config in configs:
        log = config.request_log
        for what, path in (("base path", config.base_path), ("request log", log.filename_prefix if log else None)):
            if path is not None and not lies_below(path, roots):
                raise ServingError(
                    CanonicalCode.PERMISSION_DENIED,
                    f"The {what} of model {config.name} lies outside of what --allow-reload-config names.",
                )
        bound.append(replace(config, roots=roots))
    return bound


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
    if config.model_type and config.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if not config.model_type and not config.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
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
