"""A server in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def spawned_server(serve: Callable[..., None], *arguments: object) -> Iterator[Any]:
    """Serve while the block runs: in this process a server would share the interpreter with its clients.

    Args:
        serve: a function of a module, called with the arguments and a Connection; it sends where it listens, which the
            block gets, and ends when the other end of the connection is closed.
        arguments: picklable.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(*arguments, there))
    process.start()
    there.close()  # so that a server that dies is noticed by whoever waits for it
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()
