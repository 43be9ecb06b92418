"""The JSON that TensorFlow Serving's REST port reads (RapidJSON, in tensorflow_serving/util/json_tensor.cc)."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from serving.server.serving_error import invalid_argument

DEBUG_CHARACTERS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITESPACE = b" \t\r\n"

# RapidJSON's words for what Python's decoder reports.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
}


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object at the start of a request body.

    NaN and infinities are accepted as bare tokens, whatever follows the first document is ignored, and bytes that are
    no UTF-8 are kept as surrogate escapes.

    Raises:
        ServingError: INVALID_ARGUMENT, the body does not begin with a JSON object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {debug_string(document)} Is not object")
    return document


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


def _parse_leniently(body: bytes) -> Any:
    text = body.removeprefix(_BYTE_ORDER_MARK).lstrip(_WHITESPACE).decode("utf-8", "surrogateescape")
    offset = len(body) - len(text.encode("utf-8", "surrogateescape"))
    if not text:
        raise invalid_argument(f"JSON Parse error: The document is empty. at offset: {offset}")
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        reason = _PARSE_ERRORS.get(error.msg, "Missing a comma or a closing bracket.")
        raise invalid_argument(f"JSON Parse error: {reason} at offset: {offset + error.pos}") from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: Terminate parsing due to nesting deeper than supported.") from error


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.")
    return value


def _integer(text: str) -> int | float:
    # What does not fit 64 bits is a double, as in RapidJSON; Python itself refuses integers of over 4,300 digits.
    if len(text) > 20:
        return _finite(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer)
