"""Where a training that was killed goes on."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def training_folder(model_run: str, *fingerprints: str) -> Iterator[Path]:
    """A folder that the next training of the same fingerprints finds again, until one has come to its end.

    Args:
        model_run: the Trainer's `<pipeline root>/Trainer/model_run/<execution>`; the folder is beside those of all
            executions. In an object store, a temporary local folder is made, which is not found again.
        fingerprints: of the data, of the config and the code, and of the weights that the training begins with.
    """
    if "://" in model_run:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = Path(model_run).parents[1] / "unfinished" / hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    # Not where an exception ends it.
    shutil.rmtree(folder)
