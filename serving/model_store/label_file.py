"""`.labels.json` beside the versions: which version each label, such as "stable" or "canary", points to."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from serving.model_store.errors import ModelStoreError

LABELS_FILE = ".labels.json"
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")


def check_label(label: str) -> None:
    """Raise ModelStoreError where a label could not stand in the address of a request."""
    if not _LABEL.fullmatch(label):
        raise ModelStoreError(f"a label is made of letters, digits, '_', '-' and '.', received {label!r}.")


def encode_labels(labels: Mapping[str, int]) -> bytes:
    """The file's content."""
    return orjson.dumps(dict(labels), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode_labels(base_path: str, content: bytes) -> dict[str, int]:
    """The version of each label; b"", where there is no such file, has none.

    Raises ModelStoreError where the file does not hold what it should: labels must not get lost silently.
    """
    try:
        labels = orjson.loads(content or b"{}")
    except orjson.JSONDecodeError:
        labels = None
    if not isinstance(labels, dict) or not all(type(number) is int for number in labels.values()):
        raise ModelStoreError(
            f"{base_path}/{LABELS_FILE} must hold a JSON object of labels and version numbers, such as "
            f'{{"stable": 3}}, '
            f"received {content[:40]!r}: correct it, or remove it and give the labels again."
        )
    return labels
