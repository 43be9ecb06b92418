"""Import large libraries and parse large documents quickly."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
