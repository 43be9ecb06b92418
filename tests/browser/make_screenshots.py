"""Pictures of the playground and of a report for the documentation, out of the demo models that `make run` leaves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect

from serving.server.app import EmbeddedServer
from serving.server.options import ServerOptions
from tests.browser.chromium import NONE_FOUND, chromium, find_chromium

DESKTOP: ViewportSize = {"width": 1100, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
MODELS = ("heart", "digits")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path(), help="Where the demos ran.")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    path = find_chromium()
    if path is None:
        print(f"no pictures: {NONE_FOUND}", file=sys.stderr)
        return 1
    base_paths = {name: str(arguments.workdir / "models" / name) for name in MODELS}
    reports = sorted((arguments.workdir / "runs/heart/reports").glob("*.html"))
    if not reports or not all(Path(base_path).exists() for base_path in base_paths.values()):
        print("no pictures: the demos did not run here yet, `make run` runs them", file=sys.stderr)
        return 1
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = ServerOptions(rest_port=0, grpc_port=0, playground=True)
    with EmbeddedServer(base_paths, options) as server, chromium(path) as browser:
        address = f"http://127.0.0.1:{server.rest_port}/"
        _playground(browser, address, "heart", DESKTOP, "light", arguments.output / "playground.png")
        _playground(browser, address, "digits", PHONE, "dark", arguments.output / "playground-phone.png")
        _report(browser, reports[-1], arguments.output)
    return 0


def _playground(browser: Browser, address: str, model: str, size: ViewportSize, scheme: str, picture: Path) -> None:
    page = _open(browser, address, size, scheme)
    page.get_by_label("Model").select_option(model)
    expect(page.locator("#snippet")).to_contain_text(f"models/{model}:predict")
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator(".bars li").first).to_be_visible()
    page.screenshot(path=picture, full_page=True)
    page.close()


def _report(browser: Browser, report: Path, folder: Path) -> None:
    """What stands first, and the beginning of a section."""
    page = _open(browser, report.resolve().as_uri(), DESKTOP, "light")
    height = page.locator("nav").evaluate("sections => sections.getBoundingClientRect().bottom")
    page.screenshot(path=folder / "report.png", clip={"x": 0, "y": 0, "width": DESKTOP["width"], "height": height})
    page.get_by_role("link", name="Quality").click()
    page.screenshot(path=folder / "report-quality.png")
    page.close()


def _open(browser: Browser, address: str, size: ViewportSize, scheme: str) -> Page:
    page = browser.new_page(
        viewport=size, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    page.goto(address)
    return page


if __name__ == "__main__":
    sys.exit(main())
