"""The crontab of the user."""

from __future__ import annotations

import os
import subprocess

from components.errors import BrokenInput
from pipeline.schedules.replace_block import replace_block


def edit_crontab(title: str, block: str) -> None:
    """Put a schedule's lines into the user's crontab in place of those it has, or take them out with an empty `block`.

    https://man7.org/linux/man-pages/man1/crontab.1.html

    Raises:
        BrokenInput: there is no crontab(1), or it did not take the lines.
    """
    present = _crontab("-l")
    # crontab(1) fails where a user has none yet.
    before = present.stdout if present.returncode == 0 else ""
    if present.returncode and "no crontab" not in present.stderr:
        raise BrokenInput(f"crontab -l failed, and nothing was changed: {' '.join(present.stderr.split())}")
    after = replace_block(before, title, block)
    if after == before:
        return
    written = _crontab("-", after)
    if written.returncode:
        raise BrokenInput(f"crontab did not take the schedule: {' '.join(written.stderr.split())}")


def _crontab(argument: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["crontab", argument],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise BrokenInput(
            "there is no crontab(1) on this machine: install cron, or choose --target systemd or `ingraph schedule run`"
        ) from None
