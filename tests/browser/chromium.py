"""Chromium for the tests, and axe on its pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

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


def grave_findings(page: Page) -> list[str]:
    """The serious and critical findings in light and in dark, each with the elements that it is about."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                elements = [node["html"][:200] for node in violation["nodes"][:5]]
                found.append(f"{scheme}: {violation['id']}: {violation['help']}: {elements}")
    return found
