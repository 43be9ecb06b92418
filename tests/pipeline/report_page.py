"""What stands in a report."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path


def page_of(path: str | Path) -> ElementTree.Element:
    return page_of_text(Path(path).read_text(encoding="utf-8"))


def page_of_text(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def elements(page: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in page.iter() if element.tag.rpartition("}")[2] == name]


def table(page: ElementTree.Element, caption: str) -> dict[str, list[str]]:
    """Header of the row -> its cells."""
    (found,) = [one for one in elements(page, "table") if words(elements(one, "caption")[0]).startswith(caption)]
    rows = [row for row in elements(found, "tr") if elements(row, "td")]
    return {words(elements(row, "th")[0]): [words(cell) for cell in elements(row, "td")] for row in rows}
