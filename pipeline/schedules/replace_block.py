"""One schedule's lines in a crontab."""

from __future__ import annotations

import re

from components.errors import BrokenInput


def replace_block(crontab: str, title: str, block: str) -> str:
    """A crontab without the lines between the marks of `title`, and with `block` at its end; all else as it was.

    Raises:
        BrokenInput: a mark has no counterpart, so that nobody knows what to replace.
    """
    name = re.escape(title)
    kept = re.sub(rf"(?ms)^# begin {name}:.*?^# end {name}(\n|\Z)", "", crontab)
    if mark := re.search(rf"(?m)^# (begin {name}:|end {name}$)", kept):
        raise BrokenInput(f"the crontab has `{mark[0]}` without its counterpart; mend it with `crontab -e`")
    return (kept if kept.endswith("\n") or not kept else f"{kept}\n") + block
