"""Which requests are logged, and where."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_serving.config import logging_config_pb2

from serving.server.serving_error import invalid_argument

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
