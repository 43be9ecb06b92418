"""`assets.extra/provenance.json`: where a version comes from, and the checksums of its files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from serving.model_store.errors import ModelStoreError

PROVENANCE_FILE = "assets.extra/provenance.json"
FINGERPRINTS = ("data_fingerprint", "code_fingerprint")


def fingerprints(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two models the same: the data and the code they come from."""
    return tuple(provenance.get(key) for key in FINGERPRINTS)


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise ModelStoreError unless the fingerprints are there and everything can be written as JSON."""
    missing = [key for key in FINGERPRINTS if not provenance.get(key)]
    if missing:
        raise ModelStoreError(
            f"the provenance of a model must hold {' and '.join(FINGERPRINTS)}; missing here: {', '.join(missing)}."
        )
    try:
        encode(provenance)
    except orjson.JSONEncodeError as error:
        raise ModelStoreError(f"the provenance of a model must be JSON values: {error}.") from error


def published_provenance(provenance: Mapping[str, Any], number: int, checksums: Mapping[str, str]) -> dict[str, Any]:
    """What was given, with the version, the time of publication and the SHA-256 of each file."""
    published_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {**provenance, "version": number, "published_at": published_at, "checksums": dict(checksums)}


def encode(document: Mapping[str, Any]) -> bytes:
    """JSON as a person reads it; NaN and infinities become null."""
    return orjson.dumps(dict(document), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def decode(document: bytes) -> dict[str, Any]:
    """The JSON object in a file, {} where it holds none: a foreign file must not make a base path unusable."""
    try:
        decoded = orjson.loads(document)
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
