"""What a monitoring_config_file says."""

from __future__ import annotations

from serving.server.config_messages import MonitoringConfigMessage
from serving.server.server_metrics import DEFAULT_PATH
from serving.server.text_proto import ConfigFileError, read_text_proto


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
