"""Let Apache Beam weigh its cached state without walking over all imported modules."""

from __future__ import annotations

import functools
from typing import Any

import objsize
from apache_beam.runners.worker import statecache


def weigh_state_without_modules() -> None:
    """Let Beam leave out what belongs to modules by its own filter alone.

    It leaves out modules and functions, and so does not reach what they hold; the library that it asks lists the
    variables of each of 10,000 imported modules all the same, for every value that it weighs. Calling this again
    changes nothing.
    """
    statecache.get_deep_size = _deep_size


_deep_size: Any = functools.partial(
    objsize.get_deep_size,
    get_size_func=statecache._size_func,
    get_referents_func=statecache._get_referents_func,
    filter_func=statecache._filter_func,
    exclude_modules_globals=False,
)
