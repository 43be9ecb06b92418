"""TFRecords out of files that may be damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

# The length and its checksum, the record, its checksum:
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CHECKSUM.size
_READ_BYTES = 2**20


@dataclass(frozen=True)
class Damage:
    """Bytes that are no record.

    Attributes:
        offset: where they begin.
        at_end: whether the file ends in the middle of a record, as one does that is still being written.
    """

    offset: int
    at_end: bool


def read_records(file: BinaryIO) -> Iterator[bytes | Damage]:
    """The records of a file in their order; what is damaged is passed over, up to the next whole record.

    Raises:
        OSError, EOFError: the file cannot be read any further; a gzipped one may be cut off.
    """
    ahead = _Ahead(file)
    damaged_from: int | None = None
    while head := ahead.peek(_HEAD_BYTES):
        if len(head) < _HEAD_BYTES or not _matches(head):
            if len(head) < _HEAD_BYTES:
                yield Damage(ahead.offset, True) if damaged_from is None else Damage(damaged_from, False)
                return
            damaged_from = ahead.offset if damaged_from is None else damaged_from
            ahead.skip(1)  # the length itself is wrong: the next head may be anywhere
            continue
        if damaged_from is not None:
            yield Damage(damaged_from, at_end=False)
            damaged_from = None
        (length,) = _LENGTH.unpack_from(head)
        whole = ahead.peek(_HEAD_BYTES + length + _CHECKSUM.size)
        record = whole[_HEAD_BYTES : _HEAD_BYTES + length]
        if len(whole) < _HEAD_BYTES + length + _CHECKSUM.size:
            yield Damage(ahead.offset, at_end=True)
            return
        yield record if whole[-_CHECKSUM.size :] == _checksum(record) else Damage(ahead.offset, at_end=False)
        ahead.skip(len(whole))


def _matches(head: bytes) -> bool:
    return head[_LENGTH.size :] == _checksum(head[: _LENGTH.size])


def _checksum(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class _Ahead:
    """A file of which one can look at the bytes that come next."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = b""
        self._position = 0  # in what was read
        self.offset = 0  # in the file

    def peek(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        if len(self._read) - self._position < size:
            parts = [self._read[self._position :]]
            missing = size - len(parts[0])
            while missing > 0 and (part := self._file.read(max(missing, _READ_BYTES))):
                parts.append(part)
                missing -= len(part)
            self._read, self._position = b"".join(parts), 0
        return self._read[self._position : self._position + size]

    def skip(self, size: int) -> None:
        """Go on."""
        self._position += size
        self.offset += size
