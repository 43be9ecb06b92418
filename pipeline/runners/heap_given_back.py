"""Keep the heap of a process from growing with the data that went through it."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# The numbers of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KIB, _MIB = 1 << 10, 1 << 20


@contextlib.contextmanager
def heap_given_back() -> Iterator[None]:
    """Within it, glibc maps pieces of memory from 64 KiB on by themselves, and returns them when they are freed.

    By itself glibc raises that limit up to 32 MiB, the larger the pieces that are freed: then photos and batches that
    come and go leave a heap in pieces that nothing fits in, which grows with their number. Afterwards large pieces come
    from the heap, and it keeps what is freed: training takes the same ones step after step, and would spend a third of
    its time on having them mapped. Does nothing where the C library is another one.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 64 * _KIB)
    mallopt(_TRIM_THRESHOLD, 128 * _KIB)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, 512 * _MIB)
        mallopt(_TRIM_THRESHOLD, 1024 * _MIB)
