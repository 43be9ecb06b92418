"""Where a training that was killed goes on."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def training_folder(root: str, *fingerprints: str) -> Iterator[Path]:
    """A folder that the next training from the same data, config and code finds again, until one has come to its end.

    Args:
        root: the folder of all of them; an object store's path gives a temporary folder, which is not found again.
        fingerprints: of the data, and of the config and the code.
    """
    if "://" in root:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = Path(root) / hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    # Not where an exception ends it.
    shutil.rmtree(folder)
