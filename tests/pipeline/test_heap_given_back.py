"""What is returned of the memory of photos."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MEASURED = """
import ctypes, sys
from pipeline.runners.heap_given_back import heap_given_back

class MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype = MallocInfo, ctypes.c_void_p

def mapped_by_itself(size):
    before = libc.mallinfo2().hblks
    libc.malloc(ctypes.c_size_t(size))
    return libc.mallinfo2().hblks - before

libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(16_000_000))))  # smaller pieces come from the heap now
found = [mapped_by_itself(4_000_000)]
with heap_given_back():
    found += [mapped_by_itself(4_000_000)]
found += [mapped_by_itself(4_000_000)]
print(*found)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="mallinfo2 is of glibc 2.33 and later")
def test_large_pieces_lie_in_memory_of_their_own_within_and_in_the_heap_outside():
    said = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0", "1", "0"]
