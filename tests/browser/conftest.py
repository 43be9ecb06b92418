"""A real browser, and pages whose every trouble fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import NONE_FOUND, chromium, find_chromium

# Milliseconds: how long a page may take is no matter of these tests, and one has Chromium decode 400 million pixels.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")  # not longer: other tests run event loops of their own
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip(NONE_FOUND)
    with chromium(path) as browser:
        yield browser


@pytest.fixture
def troubles() -> list[str]:
    """What went wrong on the test's page; a test that expects something takes it out."""
    return []


@pytest.fixture
def page(browser: Browser, troubles: list[str]) -> Iterator[Page]:
    """An empty page; errors and warnings in its console, failed requests and requests to other hosts fail the test."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda line: line.type in ("error", "warning") and troubles.append(line.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("requestfailed", lambda request: troubles.append(f"{request.url} failed"))
    page.on("request", lambda request: _is_elsewhere(request.url) and troubles.append(f"{request.url} is asked"))
    yield page
    page.close()
    assert troubles == []


def _is_elsewhere(url: str) -> bool:
    return urlsplit(url).hostname not in (None, "127.0.0.1")
