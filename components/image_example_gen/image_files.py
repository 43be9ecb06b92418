"""Image files of a data set: class folders or a manifest, listed and fingerprinted."""

from __future__ import annotations

import hashlib
import io
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from components.errors import BrokenInput
from components.image_example_gen.file_formats import (
    CONVERTED,
    READ,
    UNKNOWN,
    UNREAD_EXTENSIONS,
    VIDEO,
    file_format,
    is_photo,
    read_head,
    unread_reason,
)
from components.table_file import TableFile

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")


@dataclass(frozen=True)
class ImageFile:
    """Where a photo is, and what is known of it before it is read.

    Attributes:
        file: the path to read from.
        path: what the photo is called in examples and messages: relative to the data's folder, so that it does not
            change with the place where the data lie.
        label: the class; "" where it is not known.
        split: the split whose folder it stands in, or None where its content decides.
        unread: the format, where it is none that is read; "" where it is, or where the name promises it.
    """

    file: str
    path: str
    label: str
    split: str | None = None
    unread: str = ""


@dataclass(frozen=True)
class FoundFiles:
    """What there is in class folders, or in a manifest.

    Attributes:
        photos: in the order of their paths.
        unread: photos of formats that are not read, likewise.
        passed_over: what is no photo, or is in no class folder -> how often there is such a thing.
    """

    photos: Sequence[ImageFile]
    unread: Sequence[ImageFile]
    passed_over: Mapping[str, int]

    def sentences(self) -> list[str]:
        """For people: a sentence for each format that is not read, and one for what was passed over."""
        found = []
        for name, count in Counter(photo.unread for photo in self.unread).most_common():
            first = next(photo.path for photo in self.unread if photo.unread == name)
            number = f"{count:,} files are" if count > 1 else "1 file is"
            found.append(f"{number} {unread_reason(name)} ({first}{', …' * (count > 1)})")
        if self.passed_over:
            found.append(f"passed over: {', '.join(f'{count:,} {name}' for name, count in self.passed_over.items())}")
        return found


SPLIT_FOLDERS = {"train": "train", "val": "eval", "validation": "eval", "eval": "eval", "test": "test"}
MANIFEST_COLUMNS = ("path", "label")


def list_images(path: str) -> list[ImageFile]:
    """The photos of class folders or of a manifest, in the order of their paths; see find_images."""
    return list(find_images(path).photos)


def find_images(path: str) -> FoundFiles:
    """What lies in class folders, or is listed in a manifest.

    No photo is read; of files whose names promise none that is read, the first bytes are looked at. What was made JPEG
    (file_formats.convert_to_jpeg) stands for the file that it was made of.

    Args:
        path: a folder `<class>/<photo>`, which may stand in folders train, val (or validation, eval) and test; or a CSV
            file with the columns path and label, paths relative to the file, labels empty where they are not known. Any
            file system that TensorFlow reads.

    Raises:
        BrokenInput: there is no such folder or file, it holds no photo, or a row of the CSV file cannot be used.
    """
    path = path.rstrip("/")
    passed_over: Counter[str] = Counter()
    if tf.io.gfile.isdir(path):
        photos = list(_of_folders(path, passed_over))
        if not photos:
            raise BrokenInput(
                f"{path}: expected a folder for each class, <class>/<photo>, with {', '.join(IMAGE_EXTENSIONS)} files; "
                "found none; `data.path` in the config names the folder that holds the class folders"
            )
    elif tf.io.gfile.exists(path):
        photos = list(_of_manifest(path))
        if not photos:
            raise BrokenInput(f"{path}: no photos are listed; each row gives the path of a photo and its label")
    else:
        raise BrokenInput(
            f"{path}: no such folder or file; `data.path` in the config names a folder of class folders, or a CSV file "
            "with the columns path and label"
        )
    photos.sort(key=lambda photo: photo.path)
    read, unread = ([photo for photo in photos if bool(photo.unread) == is_unread] for is_unread in (False, True))
    return FoundFiles(read, unread, dict(passed_over))


def _of_folders(root: str, passed_over: Counter[str]) -> Iterator[ImageFile]:
    folders = _subfolders(root)
    loose = [name for name in _names(root) if name not in folders and _is_named_as_photo(name)]
    passed_over.update({"beside the class folders": len(loose)} if loose else {})
    # Classes may be called train or test: the folders are splits only where all are, and a train split is among them.
    if "train" in folders and set(folders) <= set(SPLIT_FOLDERS):
        held_out = any(SPLIT_FOLDERS[folder] == "eval" for folder in folders)
        for folder in folders:
            split: str | None = SPLIT_FOLDERS[folder]
            # Without a folder for evaluation, a share of the training photos is held out for it.
            split = None if split == "train" and not held_out else split
            yield from _of_classes(root, f"{folder}/", split, passed_over)
    else:
        yield from _of_classes(root, "", None, passed_over)


def _of_classes(root: str, prefix: str, split: str | None, passed_over: Counter[str]) -> Iterator[ImageFile]:
    for label in _subfolders(f"{root}/{prefix}"):
        names = _names(f"{root}/{prefix}{label}")
        converted = {name.removesuffix(CONVERTED) for name in names if name.endswith(CONVERTED)}
        for name in sorted(set(names) - converted):
            path = f"{prefix}{label}/{name}"
            unread, thing = _looked_at(f"{root}/{path}")
            if thing:
                passed_over[thing] += 1
            else:
                yield ImageFile(f"{root}/{path}", path, label, split, unread)


def _is_named_as_photo(name: str) -> bool:
    return name.lower().endswith((*IMAGE_EXTENSIONS, *UNREAD_EXTENSIONS))


def _looked_at(file: str) -> tuple[str, str]:
    """The format of a photo that is not read, and what it is if it is no photo; "" for neither."""
    if file.lower().endswith(IMAGE_EXTENSIONS):
        return "", ""
    found = file_format(read_head(file))
    if found in READ:
        return "", ""
    if is_photo(found):
        return found, ""
    if _is_named_as_photo(file):
        return UNKNOWN, ""
    if tf.io.gfile.isdir(file):
        return "", "folders within class folders"
    return "", "videos" if found == VIDEO else "other files"


def is_unread_photo(file: str) -> bool:
    """Whether a file, by its first bytes or else by its name, is a photo of a format that is not read."""
    return bool(_looked_at(file)[0])


def unread_files(path: str) -> dict[str, str]:
    """File -> format of all photos whose format is not read, those too whose names promise another.

    Raises:
        BrokenInput: find_images cannot use the path, or it is not on this machine.
    """
    if "://" in path:
        raise BrokenInput(f"{path}: --convert writes JPEGs beside files of this machine; copy the photos here first")
    found = find_images(path)
    files = {photo.file: photo.unread for photo in found.unread}
    for photo in found.photos:
        content = file_format(read_head(photo.file))
        if is_photo(content) and content not in READ:
            files[photo.file] = content
    return files


def _subfolders(folder: str) -> list[str]:
    return [name for name in _names(folder) if tf.io.gfile.isdir(posixpath.join(folder, name))]


def _names(folder: str) -> list[str]:
    # An object store ends the names of folders with a slash; hidden files are no photos of the person's.
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    return sorted(name for name in names if name and not name.startswith("."))


def _of_manifest(path: str) -> Iterator[ImageFile]:
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise BrokenInput(f"{path}: not UTF-8 at byte {error.start}; save the list of photos as UTF-8") from error
    table = TableFile(path, "csv", opened=lambda _: io.BytesIO(content))
    columns = table.columns()
    missing = [column for column in MANIFEST_COLUMNS if column not in columns]
    if missing:
        raise BrokenInput(
            f"{path}: expected a header with the columns path and label, found {', '.join(columns)!r}; "
            f"add {' and '.join(missing)}"
        )
    folder = posixpath.dirname(path)
    for row in table.rows():
        photo, label = (row.fields[column].strip() for column in MANIFEST_COLUMNS)
        if not photo:
            raise BrokenInput(f"{path}, line {row.line}: path is empty; fill it in")
        absolute = "://" in photo or photo.startswith("/") or not folder
        file = photo if absolute else f"{folder}/{photo}"
        if "://" not in file and Path(file + CONVERTED).is_file():
            yield ImageFile(file + CONVERTED, photo + CONVERTED, label)
        else:
            # What is listed is a photo to whoever listed it; where there is no file, whoever reads it finds it out.
            unread, thing = _looked_at(file) if tf.io.gfile.exists(file) else ("", "")
            yield ImageFile(file, photo, label, unread=unread or (UNKNOWN if thing else ""))


def input_fingerprint(path: str) -> str:
    """SHA-256 over the name, label, split, size and time of the last change of each photo, read or not.

    TFX's cache compares the parameters of a component, and does not look at files: with this among them, changed data
    are read again.

    Args:
        path: as list_images takes it.

    Raises:
        BrokenInput: list_images cannot use it, or a photo is no regular file.
    """
    digest = hashlib.sha256()
    found = find_images(path)
    for photo in (*found.photos, *found.unread):
        digest.update(f"{photo.path}\0{photo.label}\0{photo.split}\0{_version(photo.file)}\0".encode())
    return digest.hexdigest()


def _version(file: str) -> str:
    try:
        if "://" not in file:
            # TensorFlow knows the time of a local file to the second only.
            local = Path(file).stat()
            if not stat.S_ISREG(local.st_mode):  # a pipe or a device might never end
                raise BrokenInput(f"{file}: no regular file; expected a photo, take it out of the data")
            return f"{local.st_size}-{local.st_mtime_ns}"
        remote = tf.io.gfile.stat(file)
        return f"{remote.length}-{remote.mtime_nsec}"
    except (OSError, tf.errors.OpError):
        return "unreadable"
