"""Measure in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a new process: its memory is its own, and no library is warm.

    Raises:
        What the function raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
