"""Errors of the embedded server: why a request is refused or a model cannot be served."""

from __future__ import annotations

import tensorflow as tf

from serving.client.errors import CanonicalCode


class ServingError(Exception):
    """A canonical code and a message for the client, worded as TensorFlow Serving words it."""

    def __init__(self, code: CanonicalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def from_tensorflow(cls, error: tf.errors.OpError) -> ServingError:
        """The same code and message, without what Python's session puts before the op's own words."""
        return cls(CanonicalCode(error.error_code), error.message.removeprefix("Graph execution error:\n\n"))


def invalid_argument(message: str) -> ServingError:
    """A ServingError of the commonest code."""
    return ServingError(CanonicalCode.INVALID_ARGUMENT, message)
