"""Make Apache Beam's pipeline construction fast enough for small data."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.typehints import decorators


def remember_signatures() -> None:
    """Let Beam inspect each function once per process instead of once per pipeline stage and bundle.

    Beam asks `inspect.signature` for the same few hundred methods a hundred thousand times while it builds and runs a
    pipeline of TFX: seconds of each component's time on small data. Calling this again changes nothing.
    """
    if not isinstance(decorators.inspect, _RememberingInspect):
        decorators.inspect = _RememberingInspect()


class _RememberingInspect(types.ModuleType):
    """The module `inspect` with a `signature` that remembers its answers; they are immutable."""

    def __init__(self) -> None:
        super().__init__("inspect")
        self._known: WeakKeyDictionary[Any, dict[bool, inspect.Signature]] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    def signature(self, function: Callable[..., Any]) -> inspect.Signature:
        # A bound method is made anew on each access; its function stays.
        bound = isinstance(function, types.MethodType)
        key = function.__func__ if isinstance(function, types.MethodType) else function
        try:
            known = self._known.setdefault(key, {})
        except TypeError:  # neither hashable nor weakly referable, a partial for example
            return inspect.signature(function)
        if bound not in known:
            known[bound] = inspect.signature(function)
        return known[bound]
