"""The rules of the house: what each returns is what breaks it, read off the sources below a folder."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("pipeline", "components", "transform", "trainers", "serving")
SOURCES = (*PACKAGES, "tools")
MOST_MODULES = 15
MOST_LINES = 600
FEWEST_LINES = 40
# Short where there is little to say, and found by their names.
SHORT_BY_NATURE = {"__init__", "errors", "component", "executor"}
# One concept in several places: what a name says is the same, and the folder says whose.
SHARED_NAMES = {
    "__init__",
    "errors",
    "options",
    "config",
    *("tabular", "text", "image"),  # per task
    *("models", "train", "splits", "wrap"),  # the trainers of the tasks
    *("component", "executor"),  # per component
    *("rest", "grpc"),  # the two ends of a wire
    "local",  # as against a cluster, and an object store
}
# A command is named as a person types it, whatever else has that name.
COMMANDS = "pipeline/commands"


@dataclass(frozen=True)
class Module:
    """A source file.

    Attributes:
        name: dotted; that of a package without `__init__`.
        path: relative to the root.
        source: its text.
    """

    name: str
    path: Path
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def lines_of_code(self) -> int:
        """Lines that are neither blank nor a comment nor a docstring."""
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        lines = enumerate(self.source.splitlines(), start=1)
        return sum(
            bool(line.strip()) and not line.lstrip().startswith("#") and n not in docstrings for n, line in lines
        )


def read_modules(root: Path, packages: Iterable[str] = SOURCES) -> dict[str, Module]:
    """The modules of packages by their dotted names."""
    found = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            parts = path.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, file.read_text(encoding="utf-8"))
    return found


def imported(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """(module, name) for what a module imports of the others, wherever in it; "" for a module as a whole."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if f"{node.module}.{alias.name}" in modules:
                    yield f"{node.module}.{alias.name}", ""
                elif node.module in modules:
                    yield node.module, alias.name


def crowded_folders(modules: Mapping[str, Module]) -> list[str]:
    """Folders with more than MOST_MODULES modules, `__init__` apart."""
    counts = Counter(module.path.parent for module in modules.values() if not module.is_package)
    return [f"{folder}: {count} modules" for folder, count in counts.items() if count > MOST_MODULES]


def long_modules(modules: Mapping[str, Module]) -> list[str]:
    """Modules of more than MOST_LINES lines."""
    lengths = {module.path: len(module.source.splitlines()) for module in modules.values()}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > MOST_LINES]


def helpers_apart(modules: Mapping[str, Module]) -> list[str]:
    """Modules below FEWEST_LINES of code with one importer, which stands in the same folder: they belong into it."""
    importers: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        for name, _ in imported(module, modules):
            if name != module.name:
                importers[name].add(module.name)
    found = []
    for module in modules.values():
        users = importers[module.name]
        if module.path.stem in SHORT_BY_NATURE or module.lines_of_code >= FEWEST_LINES or len(users) != 1:
            continue
        (user,) = users
        if modules[user].path.parent == module.path.parent and not modules[user].is_package:
            found.append(f"{module.path}: {module.lines_of_code} lines, only for {user}")
    return found


def import_circles(modules: Mapping[str, Module]) -> list[str]:
    """Modules that come back to themselves by their imports, those within functions included."""
    edges = {name: {other for other, _ in imported(module, modules)} - {name} for name, module in modules.items()}
    # What imports nothing that is left, and what nothing left imports, is in no circle.
    while True:
        used = {other for others in edges.values() for other in others}
        free = [name for name, others in edges.items() if not (others & edges.keys()) or name not in used]
        if not free:
            return sorted(edges)
        for name in free:
            del edges[name]


def unexported_imports(modules: Mapping[str, Module]) -> list[str]:
    """What modules import from inside of another package, though its `__all__` does not name it."""
    exports = {module.name: exported(module) for module in modules.values() if module.is_package}
    found = []
    for module in modules.values():
        for name, part in imported(module, modules):
            # a.b.c, imported from outside of a.b, must be named in a.b.__all__; and a.b, from outside of a, in a's.
            target = f"{name}.{part}" if part and name in exports else name
            steps = target.split(".")
            for depth in range(1, len(steps)):
                package = ".".join(steps[:depth])
                inside = module.name == package or module.name.startswith(f"{package}.")
                if not inside and steps[depth] not in exports.get(package, {steps[depth]}):
                    found.append(f"{module.path}: {steps[depth]} is not in {package}.__all__")
    return sorted(set(found))


def exported(package: Module) -> set[str]:
    """The names in a package's `__all__`; none where there is no `__all__`."""
    for node in package.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            return set(ast.literal_eval(node.value))
    return set()


def missing_exports(modules: Mapping[str, Module]) -> list[str]:
    """Names in an `__all__` that are neither a module of the package nor anything that it defines or imports."""
    found = []
    for module in modules.values():
        if not module.is_package:
            continue
        # A package that makes names when they are asked for says so in __getattr__.
        known = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        known |= {
            alias.asname or alias.name
            for node in ast.walk(module.tree)
            for alias in getattr(node, "names", ())
            if isinstance(alias, ast.alias)
        }
        known |= {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        lazy = "__getattr__" in known
        for name in sorted(exported(module)):
            if f"{module.name}.{name}" not in modules and name not in known and not lazy:
                found.append(f"{module.path}: {name}")
    return found


def repeated_names(modules: Mapping[str, Module]) -> list[str]:
    """Modules of one name in several folders, where the name is not one that several share on purpose."""
    folders: dict[str, list[str]] = defaultdict(list)
    for module in modules.values():
        if module.path.stem not in SHARED_NAMES and module.path.parent != Path(COMMANDS):
            folders[module.path.stem].append(str(module.path))
    return [" and ".join(paths) for paths in folders.values() if len(paths) > 1]


def task_questions(modules: Mapping[str, Module]) -> list[str]:
    """Places outside of pipeline/tasks.py that ask for the task by its name, or for a class of options."""
    return [
        f"{module.path}:{node.lineno}: {ast.unparse(node)}"
        for module in modules.values()
        if module.path != Path("pipeline/tasks.py")
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Compare) and _compares_task(node))
        or (isinstance(node, ast.Call) and _asks_for_options(node))
    ]


def _compares_task(node: ast.Compare) -> bool:
    sides = (node.left, *node.comparators)
    texts = (part for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant))
    return any(_is_task(side) for side in sides) and any(isinstance(text.value, str) for text in texts)


def _is_task(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "task") or (
        isinstance(node, ast.Name) and node.id == "task"
    )


def _asks_for_options(node: ast.Call) -> bool:
    classes = node.args[1:] if ast.unparse(node.func) == "isinstance" else []
    names = (part for argument in classes for part in ast.walk(argument) if isinstance(part, ast.Name))
    return any(name.id.endswith("Options") for name in names)
