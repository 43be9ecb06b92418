"""Let Apache Beam look for state and timers once per class of DoFn."""

from __future__ import annotations

import types
from weakref import WeakKeyDictionary

from apache_beam import DoFn
from apache_beam.transforms import userstate

Specs = tuple[set[userstate.StateSpec], set[userstate.TimerSpec]]

_get_dofn_specs = userstate.get_dofn_specs
_known: WeakKeyDictionary[type[DoFn], Specs] = WeakKeyDictionary()


def remember_dofn_specs() -> None:
    """Let Beam read the parameters of a DoFn's methods once per class, instead of at each of five places per stage.

    Calling this again changes nothing.
    """
    userstate.get_dofn_specs = _specs


def _specs(dofn: DoFn) -> Specs:
    # A method that was given to this object alone, as the ParDo of a bound method has it.
    if any(isinstance(value, types.MethodType) for value in vars(dofn).values()):
        specs: Specs = _get_dofn_specs(dofn)
        return specs
    if type(dofn) not in _known:
        _known[type(dofn)] = _get_dofn_specs(dofn)
    states, timers = _known[type(dofn)]
    return set(states), set(timers)
