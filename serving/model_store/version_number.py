"""Which names below a model base path TensorFlow Serving takes for versions."""

from __future__ import annotations

import re

LARGEST_VERSION_NUMBER = 2**63 - 1
_INTEGER = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]+)[ \t\n\v\f\r]*")


def parse_version_number(name: str) -> int | None:
    """The version that a directory of this name is to TensorFlow Serving, `007` being 7; None where it is none.

    Source: absl::SimpleAtoi to int64, in sources/storage_path/file_system_storage_path_source.cc. Negative numbers are
    left out: no store counts down to them.
    """
    match = _INTEGER.fullmatch(name)
    if match is None or int(match[1]) > LARGEST_VERSION_NUMBER:
        return None
    return int(match[1])
