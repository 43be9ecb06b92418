"""Apache Beam made fast enough for small data."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import CodeType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import objsize
from apache_beam import DoFn
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import statecache
from apache_beam.transforms import userstate
from apache_beam.typehints import decorators

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


def index_imported_modules() -> None:
    """Let Beam's cloudpickle look up the submodules of a package, instead of comparing 10,000 names per package.

    It looks for them for each package that a pickled function mentions, thousands of times per pipeline of TFX. Calling
    this again changes nothing.
    """
    cloudpickle._find_imported_submodules = find_imported_submodules


def find_imported_submodules(code: CodeType, dependencies: Iterable[object]) -> list[ModuleType]:
    """The imported submodules of those dependencies that are packages, where the code has all parts of their names."""
    packages = [module for module in dependencies if isinstance(module, ModuleType) and module.__package__]
    names = set(code.co_names)
    return [
        sys.modules[name]
        for package in packages
        for name in _index.submodules(package.__name__)
        if name in sys.modules and names.issuperset(name[len(package.__name__) + 1 :].split("."))
    ]


class _ModuleIndex:
    """The names in sys.modules by the packages they lie in, made anew after an import."""

    def __init__(self) -> None:
        self._made_of: tuple[int, str] | None = None
        self._names: dict[str, list[str]] = {}

    def submodules(self, package: str) -> list[str]:
        # An import puts a name at the end.
        now = len(sys.modules), next(reversed(sys.modules))
        if now != self._made_of:
            self._made_of, self._names = now, _by_package(list(sys.modules))
        return self._names.get(package, [])


_index = _ModuleIndex()


def _by_package(modules: Iterable[str]) -> dict[str, list[str]]:
    names = defaultdict(list)
    for module in modules:
        parent = module.rpartition(".")[0]
        while parent:
            names[parent].append(module)
            parent = parent.rpartition(".")[0]
    return dict(names)


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


def hasten_beam() -> None:
    """Spare Beam what it does over and over while it builds and runs a pipeline; the answers stay the same.

    On the hearts data this is half the time of a TFX component. Calling it again changes nothing.
    """
    remember_signatures()
    remember_parsed_options()
    remember_dofn_specs()
    index_imported_modules()
    weigh_state_without_modules()
