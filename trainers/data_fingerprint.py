"""Which examples a model was made from."""

from __future__ import annotations

import hashlib


def data_fingerprint(*split_fingerprints: str) -> str:
    """SHA-256 over the fingerprints of the splits, in the order in which they are given."""
    return hashlib.sha256("".join(split_fingerprints).encode()).hexdigest()
