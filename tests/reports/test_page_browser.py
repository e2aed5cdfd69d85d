"""The page in a real browser: no script error, the curves are seen, in light and dark and on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401

from lmworks.reports import card, page

pytestmark = MARKS


def test_a_person_sees_the_curves(make_run, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    folder = make_run()
    browser.set_window_size(1180, 2000)
    browser.get(page.write(folder, card.build(folder)).resolve().as_uri())
    for kind in ("raw", "smooth", "held"):
        box = browser.find_element(By.CSS_SELECTOR, f"path.{kind}").rect
        assert box["width"] > 300
        assert box["height"] > 20
    point = browser.find_elements(By.CSS_SELECTOR, "circle.held")[1]
    ActionChains(browser).move_to_element(point).perform()
    output = browser.find_element(By.ID, "say")
    assert output.is_displayed()
    assert output.text == point.get_attribute("data-say")
    assert "held-out loss, step 30" in output.text
    assert browser.get_log("browser") == []


def test_nothing_is_wider_than_a_phone(make_run, browser: Any) -> None:
    folder = make_run()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    browser.get(page.write(folder, card.build(folder)).resolve().as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.get_log("browser") == []


LAID_OUT = """
const boxes = [...document.querySelectorAll(arguments[0])].filter((e) => e.getClientRects().length).map((e) => {
  const range = document.createRange();
  range.selectNodeContents(e);
  const r = range.getBoundingClientRect();
  return {text: e.textContent, left: r.left, right: r.right, top: r.top, bottom: r.bottom, height: r.height};
});
return boxes.filter((box) => box.text.trim());
"""


def _apart(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return (
        first["right"] + 4 <= second["left"]
        or second["right"] + 4 <= first["left"]
        or first["bottom"] <= second["top"] + 3
        or second["bottom"] <= first["top"] + 3
    )


@pytest.mark.parametrize("width", [360, 400])
def test_on_a_phone_figures_keep_their_units_and_stand_apart(make_run, browser: Any, width: int) -> None:
    folder = make_run()
    size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.write(folder, card.build(folder)).resolve().as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    cells = browser.execute_script(LAID_OUT, ".costs td")
    assert len(cells) == 15
    assert all(cell["height"] < 26 and cell["right"] <= width for cell in cells)  # on one line, and not cut off
    for place, cell in enumerate(cells):
        assert all(_apart(cell, other) for other in cells[place + 1 :])
    ranges = browser.execute_script(LAID_OUT, ".stacked td .range")
    assert all(_apart(item, other) for place, item in enumerate(ranges) for other in ranges[place + 1 :])
    labels = browser.execute_script(LAID_OUT, ".curves text")
    assert {"step", "nats per token"} <= {label["text"] for label in labels}
    assert all(label["height"] >= 9 and label["left"] >= 0 and label["right"] <= width for label in labels)


WIDER = """
const edge = document.documentElement.clientWidth + 0.5;
const scrolls = (e) =>
  e && e !== document.body && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
return [...document.querySelectorAll("main *")].filter((e) => {
  const r = e.getBoundingClientRect();
  return r.width && (r.right > edge || r.left < -0.5) && !scrolls(e.parentElement);
}).map((e) => `${e.tagName} .${e.getAttribute("class")}: ${e.textContent.slice(0, 60)}`);
"""
"""Elements that are wider than the page, other than those within a box that scrolls by itself."""

HIDDEN = """
return [...document.querySelectorAll("main *")].filter((e) =>
  e.scrollWidth > e.clientWidth + 1 && e.clientWidth && e.tagName !== "PRE" && e.children.length === 0 &&
  !e.closest("svg") && getComputedStyle(e).display !== "inline"
).map((e) => e.textContent);
"""
"""Texts that are wider than their own box."""

FIGURES = ".tiles h2, .tiles .pair, .tiles .detail, .tiles .verdict, .stacked th, .stacked td, .costs td, dt, dd"


@pytest.mark.parametrize("width", [320, 390, 720])
@pytest.mark.parametrize("effect", [-0.9, -0.001])
def test_no_element_is_wider_than_the_phone_and_no_figures_touch(
    make_run, browser: Any, width: int, effect: float
) -> None:
    folder = make_run(effect=effect, name="a_run_whose_name_is_long_enough_to_need_more_than_one_line_of_a_phone")
    size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.write(folder, card.build(folder)).resolve().as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((e) => { e.open = true; });")
    assert browser.execute_script(WIDER) == []
    assert browser.execute_script(HIDDEN) == []
    boxes = browser.execute_script(LAID_OUT, FIGURES)
    assert len(boxes) > 40
    touching = [
        (box["text"], other["text"])
        for place, box in enumerate(boxes)
        for other in boxes[place + 1 :]
        if not _apart(box, other)
    ]
    assert touching == []


def test_light_and_dark_are_two_papers(make_run, browser: Any, request: pytest.FixtureRequest) -> None:
    folder = make_run()
    browser.get(page.write(folder, card.build(folder)).resolve().as_uri())
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(paper.removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (browser.execute_script("return matchMedia('(prefers-color-scheme: light)').matches"))
