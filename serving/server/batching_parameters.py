"""How requests are merged into batches: TensorFlow Serving's BatchingParameters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from serving.server.config_messages import BatchingParametersMessage
from serving.server.text_proto import ConfigFileError, read_text_proto


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are merged into batches; the defaults are TensorFlow Serving's.

    Attributes:
        max_batch_size: rows of a batch, and of a request unless large requests are split.
        batch_timeout_micros: how long a batch that is not full waits for more requests while a thread is free.
        max_enqueued_batches: batches that may wait per version and signature; what comes then is UNAVAILABLE.
        num_batch_threads: batches that run at the same time, of all models together.
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
