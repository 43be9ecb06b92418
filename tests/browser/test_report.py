"""The report of a run in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import grave_findings

SECTIONS = ["Gates", "Steps", "Data", "Training", "Quality", "Mistakes", "Latency", "Lineage", "Model card"]


@pytest.fixture
def report(page: Page, heart_run) -> Page:
    (path,) = (heart_run.workdir / "runs/heart/reports").glob(f"{_run_id(heart_run)}.html")
    page.goto(path.as_uri())
    return page


def _run_id(heart_run) -> str:
    found = re.search(r"heart: run (\S+)", heart_run.finished.output)
    assert found is not None, heart_run.finished
    return found[1]


def test_it_opens_with_all_its_sections_and_pictures(report):
    expect(report).to_have_title("heart: The new model may go live.")
    assert report.locator("main h2").all_inner_texts() == SECTIONS
    for heading in report.locator("main h2").all():
        expect(heading).to_be_visible()
    sizes = report.locator("svg").evaluate_all("all => all.map(picture => [picture.clientWidth, picture.clientHeight])")
    assert len(sizes) >= 13 + 5  # of the columns, and of the sections
    assert min(min(size) for size in sizes) > 10


def test_its_links_lead_to_the_sections(report):
    for name in SECTIONS:
        report.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        assert report.get_by_role("heading", name=name, exact=True, level=2).evaluate(
            "heading => heading.getBoundingClientRect().top < innerHeight"
        )


def test_the_keyboard_skips_to_the_content(report):
    report.keyboard.press("Tab")
    expect(report.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(report.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    report.keyboard.press("Enter")
    assert report.url.endswith("#content")


@pytest.mark.parametrize("spacing", ["normal", "0.5em"])  # wide letters stand for long paths
def test_nothing_of_it_is_wider_than_a_phone(report, spacing):
    report.set_viewport_size({"width": 360, "height": 700})
    report.add_style_tag(content=f"p, li {{ letter-spacing: {spacing} }}")
    assert report.evaluate("document.documentElement.scrollWidth") == 360


def test_accessibility(report):
    assert grave_findings(report) == []
