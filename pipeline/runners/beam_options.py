"""Let Apache Beam parse its command line once."""

from __future__ import annotations

import copy
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

_parse = PipelineOptions.__init__
_parsed: dict[tuple[type[PipelineOptions], tuple[str, ...]], Any] = {}


def remember_parsed_options() -> None:
    """Let Beam build an argument parser once per kind of options, instead of 3,000 times per component of TFX.

    Each look at a pipeline's options from another side (`view_as`) parses the same arguments anew, a millisecond or two
    a time. Calling this again changes nothing.
    """
    PipelineOptions.__init__ = _init


def _init(self: PipelineOptions, flags: list[str] | None = None, **overrides: Any) -> None:
    if flags is None or isinstance(flags, str) or overrides:
        _parse(self, flags, **overrides)
        return
    key = type(self), tuple(flags)
    if key not in _parsed:
        _parse(self, flags)
        _parsed[key] = copy.deepcopy(self._visible_options)
        return
    self._flags = flags
    self._visible_options = copy.deepcopy(_parsed[key])
    self._all_options = dict(vars(self._visible_options))
