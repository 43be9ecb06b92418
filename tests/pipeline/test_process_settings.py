"""Settings of the process of a run: the allocator, and oneDNN."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from pipeline.run import onednn
from pipeline.tasks import TASKS

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


SWITCH = "TF_ENABLE_ONEDNN_OPTS"
IMPORTED = """
import os
from pipeline.run import onednn
from pipeline.tasks import TASKS

with onednn(TASKS["image"].uses_onednn):
    import tensorflow
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def test_a_run_on_photos_imports_tensorflow_with_onednn_and_leaves_the_environment_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name not in (SWITCH, "TF_CPP_MIN_LOG_LEVEL")}
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True)
    assert "oneDNN custom operations are on" in done.stderr
    assert done.stdout.strip() == "None"


@pytest.mark.parametrize("task", ["tabular", "text"])
def test_a_run_on_rows_or_texts_leaves_the_choice_to_tensorflow(task, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    with onednn(TASKS[task].uses_onednn):
        assert SWITCH not in os.environ


def test_what_the_environment_says_holds(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    with onednn(TASKS["image"].uses_onednn):
        assert os.environ[SWITCH] == "0"
    assert os.environ[SWITCH] == "0"
