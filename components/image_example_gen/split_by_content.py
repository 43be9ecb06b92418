"""Which split a photo belongs to."""

from __future__ import annotations

# Fine enough for any share that a person gives.
_BUCKETS = 10_000


def split_by_content(checksum: str, eval_share: float) -> str:
    """ "train" or "eval", by the photo's content alone.

    So copies of a photo are never in both, and photos that are added move none.

    Args:
        checksum: the SHA-256 of the photo's file, in hexadecimal.
        eval_share: which share of photos is held out, between 0 and 1.
    """
    return "eval" if int(checksum, 16) % _BUCKETS < round(eval_share * _BUCKETS) else "train"
