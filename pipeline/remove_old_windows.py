"""Old copies of spans."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.span_files import WINDOW_FILE

# What a run reads is written anew by the next one that reads it. These are for people who look into a run that just
# ended, and for what `ingraph compile` made beside it and has not staged yet.
KEPT_WINDOWS = 3


def remove_old_windows(folder: Path, in_use: Path, kept: int = KEPT_WINDOWS) -> None:
    """Remove all but the newest windows that write_span_files made; what else lies there stays.

    Args:
        folder: of the data of a pipeline's runs.
        in_use: a window that stays in any case.
        kept: how many stay, that one included.
    """
    found = [made.parent for made in folder.glob(f"*/{Path(WINDOW_FILE).stem}.*")]
    others = [made for made in dict.fromkeys(found) if made.name != in_use.name]
    others.sort(key=lambda made: made.stat().st_mtime, reverse=True)
    for made in others[kept - 1 :]:
        shutil.rmtree(made, ignore_errors=True)
