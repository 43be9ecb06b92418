"""Fingerprints of code and of files: what decides whether a cached step's result, or a whole run's, still holds."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_BLOCK = 1 << 20
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("pipeline", "components", "transform", "trainers", "serving")
# What TensorFlow, XLA, CUDA, Beam and ingraph read.
_SWITCHES = ("TF_", "XLA_", "CUDA_", "KERAS_", "BEAM_", "INGRAPH_", "OMP_")


def run_fingerprint(settings: Iterable[str], paths: Iterable[str]) -> str:
    """SHA-256 over all that decides how a run on this machine ends: what it is given, and what it runs with.

    Of files their size and time of change count, by which TFX, too, tells that they are others; beside them all code of
    this project, the releases of the libraries, and the switches of the environment.

    Args:
        settings: such as the config as JSON.
        paths: local files and directories.
    """
    digest = hashlib.sha256(sys.version.encode())
    states = (f"{file}: {state}" for file, state in file_states(paths).items())
    for value in (*settings, *_installed_releases(), *_environment(), *states):
        digest.update(value.encode("utf-8", "surrogateescape") + b"\0")
    for file in project_files():
        digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def project_files() -> list[Path]:
    """All files of this project's packages, sorted."""
    files = (file for package in _PACKAGES for file in sorted(_ROOT.joinpath(package).rglob("*")))
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts]


def _installed_releases() -> Iterator[str]:
    for folder in map(Path, filter(None, sys.path)):
        if folder.is_dir():
            yield from sorted(path.name for path in folder.iterdir() if path.suffix in (".dist-info", ".egg-info"))


def _environment() -> list[str]:
    return sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SWITCHES))


def file_states(paths: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """Size in bytes and time of change in ns of files and of all files in directories; None of what is not there."""
    found: dict[str, tuple[int, int] | None] = {}
    for path in paths:
        for file in sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]:
            try:
                state = file.stat()
            except OSError:  # it may go while others are looked at
                found[str(file)] = None
            else:
                found[str(file)] = state.st_size, state.st_mtime_ns
    return found


def content_fingerprint(paths: Iterable[str]) -> str:
    """SHA-256 over the content of files and of all files in directories; what does not exist counts by its name.

    Args:
        paths: absolute, on any file system that TensorFlow reads.
    """
    import tensorflow as tf

    digest = hashlib.sha256()
    for path in paths:
        files = [path]
        if tf.io.gfile.isdir(path):
            files = sorted(f"{folder}/{name}" for folder, _, names in tf.io.gfile.walk(path) for name in names)
        for file in files:
            digest.update(f"{file}\0".encode())
            if tf.io.gfile.exists(file):
                _add_content(digest, file)
    return digest.hexdigest()


def _add_content(digest: hashlib._Hash, path: str) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)


def code_fingerprint(module: str, *settings: str) -> str:
    """SHA-256 over a module, everything of this project that it imports, and the settings it runs with.

    TFX's cache knows a function only by its dotted name: with this among a step's parameters, the step runs again
    where the code behind that name has changed, and not where other code has.

    Args:
        module: dotted name of a module or package of this project.
        settings: what else decides about the outcome, such as options as JSON.
    """
    digest = hashlib.sha256()
    for file in imported_files(module):
        digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes() + b"\0")
    for setting in settings:
        digest.update(setting.encode() + b"\0")
    return digest.hexdigest()


def imported_files(module: str) -> list[Path]:
    """The source files of a module and of all modules of this project that it imports, sorted.

    Read off the sources, so that imports inside functions count and nothing is imported. Packages on the way to
    a module are imported with it and count too.

    Raises:
        ModuleNotFoundError: the project has no such module.
    """
    if _source(module) is None:
        raise ModuleNotFoundError(f"{module} is no module of this project", name=module)
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        for depth in range(1, len(parts) + 1):
            file = _source(".".join(parts[:depth]))
            if file is not None and file not in found:
                found.add(file)
                waiting.extend(_imported_names(file))
    return sorted(found)


def _source(name: str) -> Path | None:
    """The file of a module or package of this project; None for a name in a module, and for other projects."""
    path = _ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported_names(file: Path) -> tuple[str, ...]:
    state = file.stat()
    return _names_in(file, state.st_size, state.st_mtime_ns)


# Packages have modules in common; and a process that runs many times reads each once.
@cache
def _names_in(file: Path, size: int, changed: int) -> tuple[str, ...]:
    names: list[str] = []
    for statement in _statements(ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Import):
            names += [name.name for name in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            names += [f"{statement.module}.{name.name}" for name in statement.names]
    return tuple(names)


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements and those in them, without their expressions, of which there are many more."""
    for statement in body:
        yield statement
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(statement, block, ()))
