"""The JSON objects {"b64": "…"} that stand for binary values."""

from __future__ import annotations

import binascii
from typing import Any


def is_base64_value(value: Any) -> bool:
    """Whether a JSON value is such an object: one key, and a string behind it."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(text: str) -> bytes | None:
    """The bytes of standard base64, None where it is none; padding may be missing, whitespace is skipped.

    As absl::Base64Unescape.
    """
    for candidate in (text, "".join(text.split())):
        try:
            return binascii.a2b_base64(candidate + "=" * (-len(candidate) % 4), strict_mode=True)
        except ValueError:
            continue
    return None
