"""The report of a run and the comparison of two, as a person sees them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from components.run_report.pages import comparison_page
from pipeline.history import run_ids
from pipeline.reports import read_finished_run
from tests.browser.chromium import grave_findings

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
        expect(report.get_by_role("heading", name=name, exact=True, level=2)).to_be_in_viewport()


def test_the_keyboard_skips_to_the_content(report):
    report.keyboard.press("Tab")
    expect(report.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(report.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    report.keyboard.press("Enter")
    expect(report).to_have_url(re.compile("#content$"))


@pytest.mark.parametrize("spacing", ["normal", "0.5em"])  # wide letters stand for long paths
def test_nothing_of_it_is_wider_than_a_phone(report, spacing):
    report.set_viewport_size({"width": 360, "height": 700})
    report.add_style_tag(content=f"p, li {{ letter-spacing: {spacing} }}")
    assert report.evaluate("document.documentElement.scrollWidth") == 360


def test_accessibility(report):
    assert grave_findings(report) == []


COMPARISON_SECTIONS = ["Answers", "Metrics", "Data", "Config", "Steps"]
OTHER = "20990101-000000-000000"


@pytest.fixture(scope="module")
def written(heart_run, tmp_path_factory) -> Path:
    """The page of the demo run and of one with another config, on other spans, which a gate stopped at its end."""
    folder = heart_run.workdir / "runs/heart"
    before = read_finished_run(folder, run_ids(folder)[-1])
    steps = [replace(step, state="failed") if step.name == "ServingPusher" else step for step in before.steps]
    after = replace(
        before,
        run_id=OTHER,
        config={**before.config, "models": "/a/path/" + "that/has/no/end/" * 20},
        artifacts={role: artifact for role, artifact in before.artifacts.items() if role != "pushed_model"},
        steps=tuple(steps),
        ended="the model base path cannot be written to",
        data_spans=("2026-01-01", "2026-01-02"),
    )
    page = tmp_path_factory.mktemp("comparison") / "comparison.html"
    page.write_text(comparison_page(before, after), encoding="utf-8")
    return page


@pytest.fixture
def comparison(written, page: Page) -> Page:
    page.goto(written.as_uri())
    return page


def test_it_opens_with_all_its_sections_and_both_runs(comparison):
    expect(comparison).to_have_title(re.compile(rf"heart: \S+ and {OTHER}"))
    assert comparison.locator("main h2").all_inner_texts() == COMPARISON_SECTIONS
    for heading in comparison.locator("main h2").all():
        expect(heading).to_be_visible()
    pusher = comparison.get_by_role("row", name="ServingPusher").first
    assert pusher.locator("td").all_inner_texts() == ["passed", "failed"]
    changed = comparison.get_by_role("row", name="models")
    assert len(changed.locator("td").nth(1).inner_text()) > 300
    expect(comparison.get_by_text(f"Run {OTHER} learned from the spans 2026-01-01, 2026-01-02.")).to_be_visible()


def test_the_keyboard_skips_to_the_content_and_reaches_every_wide_table(comparison):
    comparison.keyboard.press("Tab")
    expect(comparison.get_by_role("link", name="Skip to the content")).to_be_focused()
    comparison.keyboard.press("Enter")
    expect(comparison).to_have_url(re.compile("#content$"))
    tables = comparison.locator("[role=region]")
    assert tables.count() == comparison.get_by_role("table").count() == 6
    for number in range(tables.count()):
        comparison.keyboard.press("Tab")
        expect(tables.nth(number)).to_be_focused()


@pytest.mark.parametrize("spacing", ["normal", "0.5em"])  # wide letters stand for long paths
def test_nothing_of_a_comparison_is_wider_than_a_phone(comparison, spacing):
    comparison.set_viewport_size({"width": 360, "height": 700})
    comparison.add_style_tag(content=f"p {{ letter-spacing: {spacing} }}")
    assert comparison.evaluate("document.documentElement.scrollWidth") == 360


def test_accessibility_of_a_comparison(comparison):
    assert grave_findings(comparison) == []
