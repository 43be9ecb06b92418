"""Import large libraries and parse large documents quickly, without what libraries print; the memory that there is."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Keep the garbage collector away from imports, and what they leave away from the garbage collector.

    Modules stay until the process ends. Without this the collector walks over the millions of objects of TensorFlow and
    TFX again and again: a fifth of the time of their import, and a second at a time later on.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


_lock = threading.Lock()
_working = 0


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Keep the garbage collector away from work that makes many objects and no cycles; in several threads at a time.

    A list of two million lists is parsed in a ninth of the time, in which no other thread runs: the collector would
    walk over those that are there each time that there are a quarter more.
    """
    global _working
    with _lock:
        _working += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _working -= 1
            if not _working:
                gc.enable()


_FREED_AT_ONCE = 4096


def free_in_parts(value: dict[str, Any] | list[Any]) -> None:
    """Empty a container of lists and dicts, of which nobody else needs anything; no other thread waits long for it.

    Python frees what a container holds in one piece: a fifth of a second for ten million numbers.
    """
    ahead: list[Any] = [value]
    while ahead:
        container = ahead.pop()
        if isinstance(container, list):
            items = container
        elif len(container) <= _FREED_AT_ONCE:
            items = list(container.values())
            container.clear()
        else:
            items = []
            while container:
                items.append(container.popitem()[1])
        while items:
            block = items[-_FREED_AT_ONCE:]
            del items[-_FREED_AT_ONCE:]
            if set(map(type, block)).isdisjoint(_CONTAINERS):
                continue
            nested = [item for item in block if type(item) in _CONTAINERS]
            parts = chain.from_iterable(item if type(item) is list else item.values() for item in nested)
            if sum(map(len, nested)) > 16 * _FREED_AT_ONCE or not set(map(type, parts)).isdisjoint(_CONTAINERS):
                ahead += nested


_CONTAINERS = {list, dict}


@contextmanager
def quiet_output(log: Path) -> Iterator[TextIO]:
    """Send all output of this process, C++ libraries and subprocesses included, to a file.

    Yields:
        a text stream that still writes to where standard output went before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab", buffering=0) as file, os.fdopen(os.dup(saved[0]), "w", encoding="utf-8") as screen:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield screen
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


_SWITCH = "TF_ENABLE_ONEDNN_OPTS"


@contextmanager
def onednn(wanted: bool) -> Iterator[None]:
    """Import TensorFlow within it, and the run trains with oneDNN where it is wanted, unless the environment decides.

    By itself TensorFlow takes oneDNN only where the CPU has instructions for neural networks, such as AVX512-VNNI; with
    AVX2 alone a training step of InceptionV3 is a sixth shorter, too. Processes that are started later, such as the
    serving check's, are as the model server will be: with TensorFlow's own choice.

    Args:
        wanted: by the task; otherwise nothing changes.

    Source: the release notes of TensorFlow 2.9. It reads the switch once, on import.
    """
    if not wanted or _SWITCH in os.environ:
        yield
        return
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        del os.environ[_SWITCH]


def machine_memory() -> int:
    """Bytes that this process may have: of the machine, or what its container is given."""
    pages: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            pages = min(pages, int(Path(limit).read_text(encoding="ascii")))
    return pages
