"""The model base path on a file system: one rename makes a version visible, and flock keeps processes apart."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from serving.model_store.base import (
    LABELS_FILE,
    LARGEST_VERSION_NUMBER,
    PROVENANCE_FILE,
    SAVED_MODEL_FILE,
    ModelStoreError,
    ModelVersion,
    decode_json,
    decode_labels,
    encode_json,
    encode_labels,
    parse_version_number,
)

# All names below the base path that are no version; none parses as an integer.
_LOCK = ".lock"  # never removed: processes that wait hold it open
_LARGEST_NUMBER = ".largest-number"  # outlives the versions, so that no number comes twice
_STAGING = ".staging-"  # + random: `lock`, held by the process that writes there, and `model`
_WITHDRAWN = ".withdrawn-"  # + number: the version; + number + .json: the reason
_REMOVED = ".removed-"  # + number: a version on its way out
_NEW = ".new"  # a small file before its rename

# Another user's server must be able to read what is published, whatever the umask.
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


class FileSystemStore:
    """A model base path on a file system that has atomic renames and flock."""

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    def create(self) -> None:
        _make_folders(self._base)

    @contextmanager
    def reading(self) -> Iterator[None]:
        with ExitStack() as held:
            # Without a lock file nothing of ours has ever written here; who may not read it reads without.
            with suppress(FileNotFoundError, PermissionError):
                held.enter_context(_flock(self._base / _LOCK, os.O_RDONLY, fcntl.LOCK_SH))
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        with _flock(self._base / _LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
            self._remove_leftovers()
            yield

    def versions(self) -> list[ModelVersion]:
        # In this order, `7` comes after `007`: of several names of one number TensorFlow Serving takes the last.
        visible, withdrawn = {}, []
        for name in self._names():
            path = self._base / name
            if not (path / SAVED_MODEL_FILE).is_file():
                continue
            if (number := parse_version_number(name)) is not None:
                visible[number] = ModelVersion(number, str(path), False, _provenance(path))
            elif (number := parse_version_number(name.removeprefix(_WITHDRAWN))) is not None:
                reason = str(decode_json(_read(self._reason_file(number)) or b"").get("reason", ""))
                withdrawn.append(ModelVersion(number, str(path), True, _provenance(path), reason))
        return [*visible.values(), *withdrawn]

    def labels(self) -> dict[str, int]:
        return decode_labels(str(self._base), _read(self._base / LABELS_FILE))

    def change_labels(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        self._write(self._base / LABELS_FILE, encode_labels(change(self.labels())))
        _flush_folder(self._base)

    @contextmanager
    def staging(self) -> Iterator[str]:
        with ExitStack() as cleanup:
            # The lock tells the leftovers of a killed process from the staging place of a live one. Under the store's
            # own lock, so that nobody looks between the directory's birth and its lock.
            with self.writing():
                folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._base))
                cleanup.callback(_remove, folder)
                cleanup.enter_context(_flock(folder / "lock", os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX))
            yield str(folder / "model")

    @contextmanager
    def open(self, staging: str, name: str) -> Iterator[BinaryIO]:
        file = Path(staging, name)
        _make_folders(file.parent)
        with _durable_file(file) as target:
            yield target

    def reserve(self, staging: str) -> int:
        numbers = [parse_version_number(name.removeprefix(_WITHDRAWN)) or 0 for name in self._names()]
        number = max([self._largest_number(), *numbers]) + 1
        if number > LARGEST_VERSION_NUMBER:
            raise ModelStoreError(
                f"{self._base} has no version number left, {number - 1} is taken: move that version away by hand."
            )
        self._write(self._base / _LARGEST_NUMBER, str(number).encode())
        return number

    def commit(self, staging: str, number: int) -> str:
        for folder, _, _ in os.walk(staging, topdown=False):
            _flush_folder(Path(folder))
        return self._move(Path(staging), self._base / str(number))

    def hide(self, version: ModelVersion, reason: str) -> str:
        self._write(self._reason_file(version.number), encode_json({"reason": reason}))
        return self._move(Path(version.path), self._base / f"{_WITHDRAWN}{version.number}")

    def show(self, version: ModelVersion) -> str:
        path = self._move(Path(version.path), self._base / str(version.number))
        self._reason_file(version.number).unlink(missing_ok=True)
        return path

    def remove(self, version: ModelVersion) -> None:
        removed = self._base / f"{_REMOVED}{version.number}"
        self._move(Path(version.path), removed)
        _remove(removed)

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._base.iterdir())
        except FileNotFoundError:
            return []

    def _reason_file(self, number: int) -> Path:
        return self._base / f"{_WITHDRAWN}{number}.json"

    def _largest_number(self) -> int:
        file = self._base / _LARGEST_NUMBER
        text = (_read(file) or b"").decode(errors="replace") or "0"
        number = parse_version_number(text)
        if number is None:
            raise ModelStoreError(f"{file} must hold the largest version number ever used, received {text[:40]!r}.")
        return number

    def _write(self, file: Path, content: bytes) -> None:
        """Replace a small file; the change that follows in the base path makes it durable there."""
        new = self._base / _NEW
        try:
            with _durable_file(new) as target:
                target.write(content)
            new.replace(file)
        finally:
            _remove(new)

    def _move(self, source: Path, target: Path) -> str:
        source.rename(target)
        _flush_folder(self._base)
        return str(target)

    def _remove_leftovers(self) -> None:
        names = set(self._names())
        for name in names:
            path = self._base / name
            without_version = name.startswith(_WITHDRAWN) and name.endswith(".json") and name[:-5] not in names
            abandoned = name.startswith(_STAGING) and not _is_held(path / "lock")
            if without_version or abandoned or name == _NEW or name.startswith(_REMOVED):
                _remove(path)


@contextmanager
def _flock(file: Path, flags: int, operation: int) -> Iterator[None]:
    """Hold a lock that the kernel releases when the process dies."""
    descriptor = os.open(file, flags, 0o666)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _is_held(file: Path) -> bool:
    try:
        with _flock(file, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except (BlockingIOError, PermissionError):  # the latter: another user's
        return True
    except FileNotFoundError:
        return False


@contextmanager
def _durable_file(file: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when the block ends."""
    with file.open("xb") as target:
        os.fchmod(target.fileno(), _FILE_MODE)
        yield target
        target.flush()
        os.fsync(target.fileno())


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folders(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():
            return  # another process was quicker
        raise
    folder.chmod(_FOLDER_MODE)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove what no server looks at; what resists is tried again by the next command."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _provenance(version: Path) -> dict[str, object]:
    return decode_json(_read(version / PROVENANCE_FILE) or b"")


def _read(file: Path) -> bytes | None:
    """The file's content, None where there is no such file."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
