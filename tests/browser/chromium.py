"""The browser that the tests and the screenshots are made with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PRIVATE_COPY = Path(__file__).resolve().parents[2] / ".venv/browser/chromium"
NONE_FOUND = "there is no Chromium; `make browser` unpacks one, or INGRAPH_CHROMIUM names another"


def find_chromium() -> str | None:
    """What INGRAPH_CHROMIUM names, `chromium` on the PATH, or what `make browser` has unpacked."""
    return os.environ.get("INGRAPH_CHROMIUM") or shutil.which("chromium") or (
        str(PRIVATE_COPY) if PRIVATE_COPY.exists() else None
    )  # fmt: skip


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A headless browser that finds no host but this machine.

    While it is open no other event loop can run in this thread: that is Playwright's.
    """
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's own does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
