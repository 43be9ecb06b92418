"""JSON requests -> documents and tf.Examples, as TensorFlow Serving reads them (util/json_tensor.cc)."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import orjson
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from serving.loading import free_in_parts, garbage_collection_off
from serving.server.errors import ServingError, debug_string, invalid_argument, json_type
from serving.server.json_tensors import decode_base64, is_base64_value

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


# A count over a whole body would keep every other thread waiting for as long as it takes.
_COUNTED_BYTES = 2**20


def document_bytes(body: bytes | bytearray, enough: int = 2**62) -> int:
    """What a body takes, from above, once it is parsed and made into arrays; measured, for every kind of value.

    Args:
        body: of the request.
        enough: where it is clear that there is more, it is not counted to the end.
    """
    total, has_strings = 0, False
    for start in range(0, len(body), _COUNTED_BYTES):
        end = min(start + _COUNTED_BYTES, len(body))
        objects, colons = body.count(b"{", start, end), body.count(b":", start, end)
        values = body.count(b",", start, end) + body.count(b"[", start, end)
        quotes = body.count(b'"', start, end)
        strings = max(0, quotes // 2 - colons)
        has_strings = has_strings or quotes > 2 * colons
        total += 72 * values + 64 * objects + 140 * min(objects, colons) + 80 * colons + 120 * strings
        if total > enough:
            return total
    # A string of which one character is not Latin takes up to four bytes for each of them.
    return total + (6 if has_strings and _may_be_wide(body) else 3 if has_strings else 1) * len(body)


def _may_be_wide(body: bytes | bytearray) -> bool:
    view = memoryview(body)
    return any(
        not bytes(view[start : start + _COUNTED_BYTES]).isascii()
        or body.find(b"\\u", start, start + _COUNTED_BYTES + 1) >= 0
        for start in range(0, len(body), _COUNTED_BYTES)
    )


def parse_document(body: bytes | bytearray, grow: Callable[[int], None] = lambda more: None) -> dict[str, Any]:
    """The JSON object at the start of a request body.

    NaN and infinities are accepted as bare tokens, of a key that comes twice the first counts, whatever follows the
    first document is ignored, and bytes that are no UTF-8 are kept as surrogate escapes.

    Args:
        body: of the request.
        grow: told of bytes that it takes besides `document_bytes`, and of none for each part of a large body, so that
            it can end the work by an error of its own.

    Raises:
        ServingError: INVALID_ARGUMENT, the body does not begin with a JSON object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    with garbage_collection_off() if len(body) > _LARGE_BODY else nullcontext():
        document = _parsed(body, grow) if len(body) < IN_PARTS_FROM_BYTES else _parsed_in_parts(body, grow)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {debug_string(document)} Is not object")
    return document


# Smaller ones are parsed before the collector has come once.
_LARGE_BODY = 2**16


def _parsed(body: bytes | bytearray, grow: Callable[[int], None]) -> Any:
    try:
        document = orjson.loads(body)
        if _keys_may_repeat(body, document):
            grow(5 * len(body))
            document = _parse_leniently(body)
    except orjson.JSONDecodeError:
        grow(5 * len(body))  # once as a text of up to four bytes for each character, and once as bytes
        document = _parse_leniently(body)
    return document


# A large body is parsed in parts, each so short that no other thread waits long for the lock of the interpreter. A
# part ends at a comma outside of strings, or within a string that is longer. What is open there is closed for the
# parser, and opened again before the next part: an object by a key that no body can know.
IN_PARTS_FROM_BYTES = 2**20
PART_BYTES = 2**19
PART_VALUES = 2**16
_GOES_ON = secrets.token_hex(8)
_OPENED = {b"[": b"[", b"{": b'{"%s":' % _GOES_ON.encode(), b'"': b'"'}
_CLOSED = {b"[": b"]", b"{": b"}", b'"': b'"'}
_TYPES = {ord("["): list, ord("{"): dict, ord('"'): str}


class _NoPartsError(ValueError):
    """A body is no JSON, or has a key twice, and so its parts make no whole."""


def _parsed_in_parts(body: bytes | bytearray, grow: Callable[[int], None]) -> Any:
    """As `_parsed`."""
    try:
        return _merged(body, grow)
    except (orjson.JSONDecodeError, _NoPartsError):
        grow(5 * len(body))
        return _parse_leniently(body)


def _merged(body: bytes | bytearray, grow: Callable[[int], None]) -> Any:
    """The document that a body's parts make together.

    Raises:
        orjson.JSONDecodeError, _NoPartsError: they make none. Where all parts are JSON, and no key comes twice, the
            body is JSON, and the other way round, but for keys that are longer than a part.
    """
    document: list[Any] = []  # of one value
    spine: list[Any] = []  # what is open, from the document to the innermost list or dict
    pieces: list[str] = []  # of a string that is not at its end
    close_keys, colons, apart = 0, 0, False
    try:
        for before, text, after in _parts(body):
            grow(0)
            value = orjson.loads(_whole(before, text, after))
            close_keys, colons = close_keys + text.count(b'":'), colons + text.count(b":")
            apart = apart or _KEY_APART.search(text) is not None
            if not before:
                document.append(value)
            else:
                _merge(spine, pieces, before, value, after, grow)
            if not pieces:
                spine = _spine(document[0], after)
                if after.endswith(b'"'):
                    pieces.append(_last(spine[-1]))
        if (colons if apart else close_keys) != _keys(document[0]):
            raise _NoPartsError
        grow(0)
    except BaseException:
        free_in_parts(document)
        raise
    return document[0]


def _whole(before: bytes, text: bytes, after: bytes) -> bytes:
    """A part as a document of its own."""
    if not (before or after):
        return text
    opened = [_OPENED[before[level : level + 1]] for level in range(len(before) - 1)]
    closed = [_CLOSED[after[level : level + 1]] for level in reversed(range(len(after)))]
    return b"".join((*opened, before[-1:], text, *closed))


def _merge(
    spine: Sequence[Any], pieces: list[str], before: bytes, value: Any, after: bytes, grow: Callable[[int], None]
) -> None:
    """Add to the open containers, and to the string that is not at its end, what a part has for each."""
    added = []
    for level, target in enumerate(spine):
        added.append((target, value))
        if level + 1 < len(before):
            value = value.pop(0) if type(value) is list else value.pop(_GOES_ON)
    if pieces:
        pieces.append(value)
        if after.endswith(b'"') and not any(more for _, more in added):
            return
        grow(sum(map(len, pieces)) * (1 if all(map(str.isascii, pieces)) else 4))
        target = spine[-1]
        target[-1 if type(target) is list else next(reversed(target))] = "".join(pieces)
        pieces.clear()
    for target, more in added:
        if type(target) is list:
            target += more
        else:
            target.update(more)


def _spine(document: Any, stack: bytes) -> list[Any]:
    spine = [document]
    for kind in stack[1:]:
        last = _last(spine[-1])
        if type(last) is not _TYPES[kind]:
            raise _NoPartsError
        spine.append(last)
    return spine[:-1] if stack.endswith(b'"') else spine


def _last(container: Any) -> Any:
    if not container:
        raise _NoPartsError
    return container[-1] if type(container) is list else container[next(reversed(container))]


def _parts(body: bytes | bytearray) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each part, with what is open before and after it: brackets, and a quotation mark last."""
    at, size, before = 0, PART_BYTES, b""
    while at + size < len(body):
        window = bytes(memoryview(body)[at : at + size])
        cut, after = _cut(window, before)
        if not cut:
            size *= 2
            continue
        text = window[:cut]
        if not after.endswith(b'"') and text.rstrip(_WHITESPACE)[-1:] in (b"", b"[", b"{", b","):
            raise _NoPartsError
        yield before, _checked_part(text, before), after
        at, size, before = at + cut + (not after.endswith(b'"')), PART_BYTES, after
    yield before, _checked_part(bytes(memoryview(body)[at:]), before), b""


def _checked_part(text: bytes, before: bytes) -> bytes:
    """What follows a comma: a value, which the parser does not insist on where it sees no comma."""
    if before and not before.endswith(b'"') and text.lstrip(_WHITESPACE)[:1] in (b"", b"]", b"}"):
        raise _NoPartsError
    return text


def _cut(window: bytes, before: bytes) -> tuple[int, bytes]:
    """Where a part ends, and what is open there; 0 where it cannot end in the window."""
    # A window begins between two characters, so backslashes pair up from its start.
    values = np.frombuffer(window.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), np.uint8)
    quotes = np.flatnonzero(values == ord('"'))
    if before.endswith(b'"'):
        before, quotes = before[:-1], np.concatenate(([-1], quotes))
    lower = values | 0x20  # brackets become braces
    brackets = np.flatnonzero((lower == ord("{")) | (lower == ord("}")))
    if len(quotes):
        brackets = brackets[np.searchsorted(quotes, brackets) % 2 == 0]
    cut, after = _last_comma(window, quotes), b""
    if cut < 0 and len(quotes) % 2:
        cut, after = _within_string(window, int(quotes[-1])), b'"'
    if cut <= 0:
        return 0, b""
    brackets = brackets[: np.searchsorted(brackets, cut)]
    steps = 3 - (values[brackets] & 6).astype(np.int32)
    depths = len(before) + np.cumsum(steps)
    least = np.minimum.accumulate(depths[::-1])[::-1]  # from each bracket on
    kept = min(len(before), int(least[0])) if len(least) else len(before)
    stack = before[: max(0, kept)] + values[brackets[(steps > 0) & (depths == least)]].tobytes()
    if not stack or (len(least) and least[0] < 1):
        raise _NoPartsError  # the document has ended before, or has not begun
    return cut, stack + after


def _last_comma(window: bytes, quotes: np.ndarray) -> int:
    """The last one outside of strings, or -1."""
    comma = window.rfind(b",")
    for _ in range(8):  # between two strings there is one, where it is JSON
        before = int(np.searchsorted(quotes, comma))
        if comma < 0 or before % 2 == 0:
            return comma
        comma = window.rfind(b",", 0, max(0, int(quotes[before - 1])))
    return -1


_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]")


def _within_string(window: bytes, start: int) -> int:
    """Near the end of a window, between two characters of the string that starts there; 0 where there is no room."""
    for cut in range(len(window) - 8, max(start + 1, len(window) - 64), -1):
        if window[cut] == ord("\\"):
            slashes = cut - len(window[:cut].rstrip(b"\\"))
            if slashes % 2 == 0 and not _LOW_SURROGATE.match(window, cut):
                return cut
        elif window[cut] & 0xC0 != 0x80 and b"\\" not in window[max(0, cut - 12) : cut]:
            return cut
    return 0


_KEY_APART = re.compile(rb'"[ \t\r\n]+:')


def _keys_may_repeat(body: bytes | bytearray, document: Any) -> bool:
    """Whether there are more keys in a body than in what it was parsed to, where the last of each is left."""
    if _KEY_APART.search(body):
        return body.count(b":") != _keys(document)
    return body.count(b'":') != _keys(document)


def _keys(value: Any, depth: int = 8) -> int:
    """How many keys a value has, at least: those deep in it, and of lists whose first item has none, do not count."""
    if not depth:
        return 0
    if isinstance(value, dict):
        return len(value) + sum(_keys(item, depth - 1) for item in value.values() if isinstance(item, dict | list))
    if not isinstance(value, list) or not value or not isinstance(value[0], dict | list):
        return 0
    first = value[0]
    plain = isinstance(first, dict) and not any(isinstance(item, dict | list) for item in first.values())
    blocks = [range(start, min(start + 2**16, len(value))) for start in range(0, len(value), 2**16)]
    if plain and all(set(map(type, value[block.start : block.stop])) == {dict} for block in blocks):
        return sum(sum(map(len, value[block.start : block.stop])) for block in blocks)
    return sum(_keys(item, depth - 1) for item in value if isinstance(item, dict | list))


# What RapidJSON takes for numbers besides what Python does; strings come first, so that nothing in them is taken.
_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*+"|-?Inf(?!inity)\b|-NaN', re.DOTALL)
_SURROGATES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def _parse_leniently(body: bytes | bytearray) -> Any:
    text = body.removeprefix(_BYTE_ORDER_MARK).lstrip(_WHITESPACE).decode("utf-8", "surrogateescape")
    offset = len(body) - len(text.encode("utf-8", "surrogateescape"))
    if not text:
        raise invalid_argument(f"JSON Parse error: The document is empty. at offset: {offset}")
    try:
        value, end = _raw_decode(text)
        _check_surrogates(text, end, offset)
        return value
    except json.JSONDecodeError as error:
        _check_surrogates(text, error.pos, offset)
        reason = _PARSE_ERRORS.get(error.msg, "Missing a comma or a closing bracket.")
        raise invalid_argument(f"JSON Parse error: {reason} at offset: {offset + error.pos}") from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: Terminate parsing due to nesting deeper than supported.") from error


def _raw_decode(text: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        if not text.startswith(("Inf", "-Inf", "-NaN"), error.pos):
            raise
    rewritten = _NUMBERS.sub(lambda token: _PYTHON_NUMBERS.get(token[0], token[0]), text)
    return _DECODER.raw_decode(rewritten)


_PYTHON_NUMBERS = {"Inf": "Infinity", "-Inf": "-Infinity", "-NaN": "NaN"}


def _check_surrogates(text: str, end: int, offset: int) -> None:
    """Refuse half a surrogate pair in the escapes before the end."""
    high = None
    for escape in _SURROGATES.finditer(text, 0, end):
        code = int(escape[1], 16) if escape[1] else 0
        if high is not None:
            if not (high.end() == escape.start() and 0xDC00 <= code < 0xE000):
                break
            high = None
        elif 0xD800 <= code < 0xDC00:
            high = escape
        elif 0xDC00 <= code < 0xE000:
            high = escape
            break
    if high is not None:
        at = offset + len(text[: high.start()].encode("utf-8", "surrogateescape"))
        raise invalid_argument(f"JSON Parse error: The surrogate pair in string is invalid. at offset: {at}")


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


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer, object_pairs_hook=_first_of_each)


_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def input_from_json(document: dict[str, Any]) -> input_pb2.Input:
    """The Input of a request's "examples", a list of objects, and "context", an object that belongs to all of them.

    Raises:
        ServingError: INVALID_ARGUMENT, with TensorFlow Serving's message.
    """
    result = input_pb2.Input()
    if "context" in document:
        result.example_list_with_context.context.CopyFrom(_example(document["context"]))
        examples = result.example_list_with_context.examples
    else:
        examples = result.example_list.examples
    examples.extend(_example(value) for value in _checked_examples(document))
    return result


def _checked_examples(document: dict[str, Any]) -> list[Any]:
    if "examples" not in document:
        raise _format_error(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    return examples


def _format_error(document: dict[str, Any], message: str) -> ServingError:
    return invalid_argument(f"JSON Value: {debug_string(document)} {message}")


def _example(value: Any) -> tf.train.Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except (UnicodeEncodeError, ValueError) as error:  # half a surrogate pair, or bytes that are no UTF-8
            raise invalid_argument(f"Feature name {debug_string(name)} is no UTF-8 text") from error
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)
    return example


def _add(value: Any, name: str, feature: tf.train.Feature) -> None:
    if value is None or isinstance(value, list) or (isinstance(value, dict) and not is_base64_value(value)):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    kind = _kind(value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    if kind == "int64_list":
        if value >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        feature.int64_list.value.append(int(value))
    elif kind == "float_list":
        feature.float_list.value.append(value)
    else:
        feature.bytes_list.value.append(_bytes(value))


def _kind(value: Any) -> str:
    if isinstance(value, int):  # true and false are 1 and 0
        return "int64_list"
    return "float_list" if isinstance(value, float) else "bytes_list"


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise invalid_argument("JSON Parse error: Invalid encoding in string.") from error
    decoded = decode_base64(value["b64"])
    if decoded is None:
        raise invalid_argument("Unable to base64 decode")
    return decoded
