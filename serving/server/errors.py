"""Errors of the embedded server: why a request is refused or a model cannot be served."""

from __future__ import annotations

import json
from typing import Any

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


DEBUG_CHARACTERS = 256


def debug_string(value: Any) -> str:
    """A JSON value as it stands in error messages, cut to 256 characters."""
    pieces = json.JSONEncoder(ensure_ascii=False).iterencode(value)
    kept, characters = [], 0
    for piece in pieces:
        kept.append(piece)
        characters += len(piece)
        if characters >= DEBUG_CHARACTERS:
            break
    # Surrogate escapes stand for bytes that are no UTF-8; an answer has to be.
    return "".join(kept)[:DEBUG_CHARACTERS].encode("utf-8", "replace").decode()


def json_type(value: Any) -> str:
    """RapidJSON's word for the type of a JSON value."""
    names = {bool: str(value), int: "Number", float: "Number", str: "String", dict: "Object", list: "Array"}
    return names.get(type(value), "Null")
