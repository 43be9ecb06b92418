"""TFRecord files made from Arrow columns, a batch of records at a time, byte for byte as TensorFlow writes records.

tf.io.TFRecordWriter takes one record a call, which is a Python object each time and holds the interpreter all along.
Here a batch becomes one buffer, which is compressed in whatever thread made it.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.table_example_gen.serialization import distinct

# A gzip file for zlib; see its manual on deflateInit2.
_GZIP_WINDOW = 31
# tensorflow/core/lib/hash/crc32c.h, Mask.
_MASK_DELTA = 0xA282EAD8


def framed(records: pa.BinaryArray, contents: Sequence[bytes]) -> pa.BinaryArray:
    """Each record as it stands in a TFRecord file: length, its checksum, the record, the record's checksum.

    Source: tensorflow/core/lib/io/record_writer.h.

    Args:
        records: binary [n].
        contents: the same ones as Python objects.
    """
    lengths = pc.binary_length(records).to_numpy(zero_copy_only=False)
    different, places = distinct(lengths)
    headers = np.empty((len(different), 12), np.uint8)
    headers[:, :8] = different.astype("<u8").view(np.uint8).reshape(-1, 8)
    headers[:, 8:] = _checksums([length.tobytes() for length in headers[:, :8]])
    rows = len(records)
    before = pa.FixedSizeBinaryArray.from_buffers(pa.binary(12), rows, [None, pa.py_buffer(headers[places].tobytes())])
    behind = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4), rows, [None, pa.py_buffer(_checksums(contents))])
    parts = [pc.cast(before, pa.binary()), records, pc.cast(behind, pa.binary())]
    joined: pa.BinaryArray = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary()))
    return joined


def _checksums(contents: Sequence[bytes]) -> np.ndarray:
    """Masked CRC-32C of each, uint8 [n, 4]."""
    plain = np.fromiter(map(google_crc32c.value, contents), np.uint32, len(contents))
    masked = ((plain >> np.uint32(15)) | (plain << np.uint32(17))) + np.uint32(_MASK_DELTA)
    return masked.astype("<u4").view(np.uint8).reshape(-1, 4)


def gzip_member(frames: pa.BinaryArray, level: int) -> bytes:
    """All frames as a gzip file, of which several behind each other are one again.

    Args:
        frames: what `framed` makes.
        level: of the compression, from 0, none, to 9.
    """
    start, end = np.frombuffer(frames.buffers()[1], np.int32)[[frames.offset, frames.offset + len(frames)]]
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
    content = memoryview(frames.buffers()[2] or b"")[start:end]
    return compressor.compress(content) + compressor.flush()


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Beyond these the interpreter's lock is what all wait for.
_MOST_THREADS = 8


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """The results in the order of the items, of which a few are taken ahead: memory does not grow with their number."""
    count = min(os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(count) as threads:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
