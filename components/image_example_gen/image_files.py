"""Image files of a data set: class folders or a manifest, listed and fingerprinted."""

from __future__ import annotations

import hashlib
import io
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from components.errors import BrokenInput
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
    """

    file: str
    path: str
    label: str
    split: str | None = None


SPLIT_FOLDERS = {"train": "train", "val": "eval", "validation": "eval", "eval": "eval", "test": "test"}
MANIFEST_COLUMNS = ("path", "label")


def list_images(path: str) -> list[ImageFile]:
    """The photos of class folders or of a manifest, in the order of their paths; none is read.

    Args:
        path: a folder `<class>/<photo>`, which may stand in folders train, val (or validation, eval) and test; or a CSV
            file with the columns path and label, paths relative to the file, labels empty where they are not known. Any
            file system that TensorFlow reads.

    Raises:
        BrokenInput: there is no such folder or file, it holds no photo, or a row of the CSV file cannot be used.
    """
    path = path.rstrip("/")
    if tf.io.gfile.isdir(path):
        photos = list(_of_folders(path))
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
    return sorted(photos, key=lambda photo: photo.path)


def _of_folders(root: str) -> Iterator[ImageFile]:
    folders = _subfolders(root)
    # Classes may be called train or test: the folders are splits only where all are, and a train split is among them.
    if "train" in folders and set(folders) <= set(SPLIT_FOLDERS):
        held_out = any(SPLIT_FOLDERS[folder] == "eval" for folder in folders)
        for folder in folders:
            split: str | None = SPLIT_FOLDERS[folder]
            # Without a folder for evaluation, a share of the training photos is held out for it.
            split = None if split == "train" and not held_out else split
            yield from _of_classes(root, f"{folder}/", split)
    else:
        yield from _of_classes(root, "", None)


def _of_classes(root: str, prefix: str, split: str | None) -> Iterator[ImageFile]:
    for label in _subfolders(f"{root}/{prefix}"):
        for name in _names(f"{root}/{prefix}{label}"):
            if name.lower().endswith(IMAGE_EXTENSIONS):
                path = f"{prefix}{label}/{name}"
                yield ImageFile(f"{root}/{path}", path, label, split)


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
        yield ImageFile(photo if absolute else f"{folder}/{photo}", photo, label)


def input_fingerprint(path: str) -> str:
    """SHA-256 over the name, label, split, size and time of the last change of each photo.

    TFX's cache compares the parameters of a component, and does not look at files: with this among them, changed data
    are read again.

    Args:
        path: as list_images takes it.

    Raises:
        BrokenInput: list_images cannot use it, or a photo is no regular file.
    """
    digest = hashlib.sha256()
    for photo in list_images(path):
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
