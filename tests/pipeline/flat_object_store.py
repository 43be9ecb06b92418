"""An object store for Beam: names under a prefix, no folders and nothing to rename in place, as Google's is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

SCHEME = "flat"


class FlatObjectStore(FileSystem):
    """Objects `flat://…`, each a file in `root` whose name is the object's."""

    root: Path

    @classmethod
    def scheme(cls):
        return SCHEME

    @classmethod
    def file(cls, path: str) -> Path:
        return cls.root / quote(path, safe="")

    @classmethod
    def names(cls) -> list[str]:
        return sorted(unquote(file.name) for file in cls.root.iterdir())

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        folder, _, name = path.rpartition("/")
        return folder, name

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix) -> Iterator[FileMetadata]:
        for name in self.names():
            if name.startswith(dir_or_prefix):
                yield FileMetadata(name, self.size(name))

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return self.file(path).open("wb")

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return self.file(path).open("rb")

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            self.file(destination).write_bytes(self.file(source).read_bytes())

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return self.file(path).exists()

    def size(self, path):
        return self.file(path).stat().st_size

    def last_updated(self, path):
        return self.file(path).stat().st_mtime

    def checksum(self, path):
        return str(self.size(path))

    def metadata(self, path):
        return FileMetadata(path, self.size(path))

    def delete(self, paths):
        missing = {path: "no such object" for path in paths if not self.exists(path)}
        for path in paths:
            self.file(path).unlink(missing_ok=True)
        if missing:
            raise BeamIOError("Delete operation failed", missing)
