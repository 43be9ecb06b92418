"""Let Apache Beam find the modules that a pickled function uses without walking over all that are imported."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from types import CodeType, ModuleType

from apache_beam.internal.cloudpickle import cloudpickle


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
