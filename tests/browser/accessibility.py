"""What axe finds on a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


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
