"""A request's body as its Content-Encoding says."""

from __future__ import annotations

import zlib

_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15  # wbits of zlib.decompressobj


class BodyTooLargeError(Exception):
    """A body is larger than it may be once it is decompressed."""


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress gzip and deflate (RFC 9110, 8.4.1); another encoding is left to the parser of JSON, as there.

    Only gzip is decompressed by TensorFlow Serving (util/net_http/server/internal/evhttp_request.cc).

    Args:
        body: as it was sent.
        encoding: the header's value.
        limit: in bytes; a small body may stand for gigabytes.

    Raises:
        BodyTooLargeError: it is larger.
        zlib.error: it is not compressed like that, or ends too early.
    """
    encoding = encoding.strip().lower()
    if not body or encoding not in ("gzip", "deflate"):
        return body
    wbits = _GZIP if encoding == "gzip" else _wbits_of_deflate(body)
    decoded = b""
    while body:  # members of gzip may follow each other
        decompressor = zlib.decompressobj(wbits)
        decoded += decompressor.decompress(body, limit + 1 - len(decoded))
        if len(decoded) > limit:
            raise BodyTooLargeError
        if not decompressor.eof:
            raise zlib.error("incomplete")
        body = decompressor.unused_data if encoding == "gzip" else b""
    return decoded


def _wbits_of_deflate(body: bytes) -> int:
    """Some clients leave out the header that zlib's format has: its lower four bits are 8."""
    return _ZLIB if body[0] & 0xF == 8 else _RAW_DEFLATE
