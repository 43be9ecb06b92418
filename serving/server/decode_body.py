"""A request's body as its Content-Encoding says."""

from __future__ import annotations

import gzip
import io
import zlib

_ZLIB, _RAW_DEFLATE = 15, -15  # wbits of zlib.decompressobj
_PIECE_BYTES = 64 * 1024


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
        zlib.error, gzip.BadGzipFile, EOFError: it is not compressed like that, or ends too early.
    """
    encoding = encoding.strip().lower()
    if not body or encoding not in ("gzip", "deflate"):
        return body
    decoded = _from_gzip(body, limit + 1) if encoding == "gzip" else _from_deflate(body, limit + 1)
    if len(decoded) > limit:
        raise BodyTooLargeError
    return decoded


def _from_gzip(body: bytes, size: int) -> bytes:
    """Its first bytes, over all its members: each takes as long where there are many of them as where there are few."""
    decoded = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        # In pieces: a read sets aside all the memory that it is allowed to fill.
        while piece := file.read(min(_PIECE_BYTES, size - len(decoded))):
            decoded += piece
    return bytes(decoded)


def _from_deflate(body: bytes, size: int) -> bytes:
    decompressor = zlib.decompressobj(_wbits_of_deflate(body))
    decoded = decompressor.decompress(body, size)
    if len(decoded) < size and not decompressor.eof:
        raise EOFError
    return decoded


def _wbits_of_deflate(body: bytes) -> int:
    """Some clients leave out the header that zlib's format has: its lower four bits are 8."""
    return _ZLIB if body[0] & 0xF == 8 else _RAW_DEFLATE
