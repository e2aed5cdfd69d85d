"""The tabs Data and Start in a real browser: by mouse and keyboard, at the width of a phone, light and dark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401

pytest.importorskip("uvicorn")

from studio_server import SCRIPT, running
from test_studio_start import SETTINGS
from tiny_model import QUESTIONS, save_tiny

pytestmark = MARKS
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(name="studio")
def _studio(tmp_path):
    home = tmp_path / "home"
    save_tiny(home / "tiny")
    rows = [{"prompt": SCRIPT, "completion": SCRIPT}, {"prompt": "no answer"}, *QUESTIONS]
    (tmp_path / "dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    with running([home]) as studio:
        yield studio


def wait_for(browser: Any, condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    redrawn = [StaleElementReferenceException]  # what is looked at may be drawn anew meanwhile
    return WebDriverWait(browser, seconds, ignored_exceptions=redrawn).until(lambda _: condition())


def all_of(browser: Any, selector: str) -> list[Any]:
    from selenium.webdriver.common.by import By

    return browser.find_elements(By.CSS_SELECTOR, selector)


def first_of(browser: Any, selector: str) -> Any:
    return wait_for(browser, lambda: next(iter(all_of(browser, selector)), None))


def fill(browser: Any, name: str, value: str) -> None:
    """Write into the field of a name that a person reads."""
    browser.execute_script(
        """
        const [name, value] = arguments;
        const label = [...document.querySelectorAll(".tab:not([hidden]) label.field")].find(
          (field) => field.querySelector("span").textContent.startsWith(name));
        const input = label.querySelector("input, select");
        input.value = value;
        input.dispatchEvent(new Event("change", { bubbles: true }));
        """,
        name,
        value,
    )


def press(browser: Any, text: str) -> None:
    """Press the button with a text, once it can be."""
    button = wait_for(
        browser,
        lambda: next(
            (
                each
                for each in all_of(browser, "button")
                if each.text == text and each.is_displayed() and each.is_enabled()
            ),
            None,
        ),
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def is_within_the_screen(browser: Any) -> bool:
    return browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def problems_of(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_a_dropped_file_is_seen_token_by_token(studio, browser: Any, tmp_path: Path, size: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    if size:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{studio.address}#data")
    wait_for(browser, lambda: all_of(browser, ".tab-data datalist option"))
    fill(browser, "Model", "tiny")
    first_of(browser, ".tab-data input[type=file]").send_keys(str(tmp_path / "dropped.jsonl"))
    first_of(browser, ".tab-data .token")
    learned = "".join(token.text for token in all_of(browser, ".tab-data article:nth-of-type(1) .token.loss"))
    assert "<script>" in learned
    assert browser.title == "Data · lmworks studio"  # the script of the file did nothing
    assert all_of(browser, ".tab-data script, .tab-data .tokens img") == []
    assert "dropped.jsonl:2" in first_of(browser, ".tab-data .problems").text
    assert "a run would stop at the first bad row" in first_of(browser, ".tab-data .refusal").text
    tokens = first_of(browser, ".tab-data .tokens")
    tokens.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "token 2: " in first_of(browser, ".tab-data article .say").text
    browser.execute_script("document.querySelector('[aria-label=\"Examples after\"]').click()")
    wait_for(browser, lambda: first_of(browser, ".tab-data article h3").text.startswith("4 "))
    assert is_within_the_screen(browser)
    assert problems_of(browser) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_a_run_is_planned_started_and_followed_to_its_report(studio, browser: Any, size: Any) -> None:
    if size:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{studio.address}#start")
    wait_for(browser, lambda: all_of(browser, ".tab-start .settings details"))
    fill(browser, "Model", "tiny")
    fill(browser, "Data", "faq.jsonl")
    fill(browser, "Name", "from-the-page")
    settings = {**SETTINGS, "train.steps": "30"}
    browser.execute_script(
        """
        for (const [name, value] of Object.entries(arguments[0])) {
          const input = document.querySelector(`.tab-start [name="${name}"]`);
          input.value = value;
          input.dispatchEvent(new Event("change", { bubbles: true }));
        }
        """,
        settings,
    )
    wait_for(browser, lambda: "--train.steps=30" in first_of(browser, ".tab-start .command").text)
    assert first_of(browser, ".tab-start .command").text.startswith("lmworks tune tiny faq.jsonl")
    assert is_within_the_screen(browser)
    press(browser, "Plan")
    wait_for(browser, lambda: "memory" in first_of(browser, ".tab-start .plan").text and all_of(browser, ".plan dl"))
    press(browser, "Start")
    wait_for(browser, lambda: first_of(browser, ".watch h1").text.startswith("runs/from-the-page"))
    wait_for(browser, lambda: all_of(browser, ".watch .verdict.finished"), 300)
    assert first_of(browser, ".watch .losses svg path").rect["width"] > 100
    assert "held-out loss" in first_of(browser, ".watch pre.said").get_attribute("textContent")
    press(browser, "Report card")
    browser.switch_to.frame(first_of(browser, ".watch iframe"))
    assert "tiny on faq.jsonl" in first_of(browser, "h1").text
    browser.switch_to.default_content()
    assert is_within_the_screen(browser)
    browser.execute_script("location.hash = '#start'")
    assert "runs/from-the-page" in wait_for(browser, lambda: first_of(browser, ".tab-start .started .run")).text
    assert problems_of(browser) == []


def test_what_is_wrong_stands_in_the_form_before_anything_starts(studio, browser: Any) -> None:
    browser.get(f"{studio.address}#start")
    wait_for(browser, lambda: all_of(browser, ".tab-start .settings details"))
    fill(browser, "Model", "tiny")
    fill(browser, "Data", "../secret.jsonl")
    wait_for(browser, lambda: "is not in the folders" in first_of(browser, ".tab-start .command").text)
    fill(browser, "Data", "faq.jsonl")
    browser.execute_script(
        "const input = document.querySelector('.tab-start [name=\"train.epochs\"]'); input.value = 'many';"
        "input.dispatchEvent(new Event('change', {bubbles: true}));"
    )
    wait_for(browser, lambda: "train.epochs" in first_of(browser, ".tab-start .command .bad").text)
    search = first_of(browser, ".tab-start input[type=search]")
    search.send_keys("dora")
    seen = wait_for(
        browser, lambda: [each for each in all_of(browser, ".tab-start .settings .field [name]") if each.is_displayed()]
    )
    assert [each.get_attribute("name") for each in seen] == ["lora.use_dora"]
