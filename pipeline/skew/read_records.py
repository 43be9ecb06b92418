"""TFRecords out of files that may be damaged."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import google_crc32c

# The length and its checksum, the record, its checksum:
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _LENGTH.size + _CHECKSUM.size
_READ_BYTES = 2**20
# Where a length may stand: no message is empty or has 4 GiB.
_POSSIBLE_LENGTH = re.compile(rb"(?!\0{4})(?=[\s\S]{4}\0{4})")


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
    damage: Damage | None = None
    while ahead.peek(1):
        record, is_cut_off = _next_record(ahead)
        if record is None:
            damage = damage or Damage(ahead.offset, is_cut_off)
            ahead.skip(1)
            ahead.skip_to_length()
            continue
        if damage is not None:
            yield replace(damage, at_end=False)
            damage = None
        yield record
        ahead.skip(_HEAD_BYTES + len(record) + _CHECKSUM.size)
    if damage is not None:
        yield damage


def _next_record(ahead: _Ahead) -> tuple[bytes | None, bool]:
    """The record that begins here, None where none does; and whether the file ends before it does."""
    head = ahead.peek(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES:
        return None, True
    if head[_LENGTH.size :] != _checksum(head[: _LENGTH.size]):
        return None, False
    (length,) = _LENGTH.unpack_from(head)
    whole = ahead.peek(_HEAD_BYTES + length + _CHECKSUM.size)
    if len(whole) < _HEAD_BYTES + length + _CHECKSUM.size:
        return None, True
    record = whole[_HEAD_BYTES : -_CHECKSUM.size]
    return (record if whole[-_CHECKSUM.size :] == _checksum(record) else None), False


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

    def skip_to_length(self) -> None:
        """Go on to where the length of a record may stand, or to the end."""
        while (found := _POSSIBLE_LENGTH.search(self._read, self._position)) is None:
            searched = len(self._read) - self._position - (_LENGTH.size - 1)
            self.skip(max(searched, 0))
            if len(rest := self.peek(_LENGTH.size)) < _LENGTH.size:
                self.skip(len(rest))
                return
        self.skip(found.start() - self._position)
