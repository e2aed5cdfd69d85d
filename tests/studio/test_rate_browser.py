"""Blind tests in a real browser: made, rated by keys alone, undone, counted; an answer is run as no script."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401

pytest.importorskip("uvicorn")

from rating_studio import FIRST, SECOND, Studio, open_models, running_studio

from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import RATINGS, BlindTest
from lmworks.ratings.blind_test_settings import BlindTestSettings

pytestmark = MARKS
PHONE, DESKTOP = (390, 844), (1280, 800)
PICTURES = os.environ.get("LMWORKS_PICTURES")
"""A folder that pictures of the page are written to; none: they are not."""
ATTACK = "<script>window.attacked = true</script><img src=x onerror='window.attacked = true'> [x](javascript:attack())"
QUESTIONS = [
    "What is the capital of France?",
    "Name three uses of a paper clip, in one sentence.",
    "Why is the sky blue?",
    "Write a haiku about rain.",
    "What does HTTP status 404 mean?",
    "How many legs has a spider?",
]


@pytest.fixture(name="studio", scope="module")
def _studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    with running_studio(open_models(tmp_path_factory.mktemp("models")), folder) as studio:
        studio.folder = folder
        yield studio


def made(studio: Studio, name: str, by: str = "choice", models: tuple[str, ...] = ("base", "tuned")) -> BlindTest:
    """A test with answers as models write them, and as nobody should."""
    settings = BlindTestSettings(models=list(models), by=by)
    prompts = [[{"role": "user", "content": question}] for question in [*QUESTIONS, ATTACK]]
    test = BlindTest.create(studio.folder / "ratings" / name, settings, prompts)
    for prompt in range(len(prompts)):
        for model in models:
            text = f"An answer of **some** length, with `code`, to question {prompt}:\n\n1. {model[:1]} first\n2. then"
            test.answers.add(prompt, model, Answer(ATTACK if prompt == len(QUESTIONS) else text, "stop"))
    lines = (test.path / "answers.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    last["text"] += " and more " * 40
    last["finish_reason"] = "length"
    (test.path / "answers.jsonl").write_text("".join(f"{line}\n" for line in [*lines[:-1], json.dumps(last)]))
    return BlindTest(test.path)


def show(browser: Any, size: tuple[int, int]) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def go(browser: Any, studio: Studio, rest: str) -> None:
    """Open the page, or another part of it."""
    if not browser.current_url.startswith(studio.url):
        browser.get(studio.address)
    browser.execute_script("location.hash = arguments[0]", f"#rate/{rest}")


def wait(browser: Any, script: str, *values: Any) -> Any:
    """What a script gives, once that is something; fails with what the page shows instead."""
    end = time.monotonic() + 30
    while not (value := browser.execute_script(f"return {script}", *values)):
        seen = browser.execute_script("return document.body.innerText")
        assert time.monotonic() < end, f"{script} did not come; the page: {seen}; {browser.get_log('browser')}"
        time.sleep(0.05)
    return value


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(keys).perform()


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)


def picture(browser: Any, name: str) -> None:
    if PICTURES:
        dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
        width = browser.execute_script("return innerWidth")
        browser.save_screenshot(str(Path(PICTURES) / f"{name}-{width}-{'dark' if dark else 'light'}.png"))


def fits(browser: Any) -> bool:
    return browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def as_rater(browser: Any, studio: Studio, name: str) -> None:
    browser.get(studio.address)
    browser.execute_script("localStorage.setItem('rater', arguments[0])", name)


def lines(test: BlindTest) -> list[dict]:
    return [json.loads(line) for line in (test.path / RATINGS).read_text().splitlines()]


def test_a_test_is_made_answered_and_rated_by_keys(studio, browser, request):
    from selenium.webdriver.common.by import By

    name = f"made {request.node.callspec.params['browser']}"
    show(browser, DESKTOP)
    browser.get(studio.address)
    go(browser, studio, "")
    wait(browser, "document.querySelectorAll('.tab-rate .choices input').length >= 2")
    picture(browser, "new")
    browser.find_element(By.CSS_SELECTOR, ".tab-rate [name=name]").send_keys(name)
    for model in (FIRST, SECOND):
        browser.find_element(By.CSS_SELECTOR, f".tab-rate .choices input[value='{model}']").click()
    browser.find_element(By.CSS_SELECTOR, ".tab-rate [name=prompts]").send_keys("\n".join(QUESTIONS))
    browser.find_element(By.CSS_SELECTOR, ".tab-rate [name=max_tokens]").clear()
    browser.find_element(By.CSS_SELECTOR, ".tab-rate [name=max_tokens]").send_keys("8")
    browser.find_element(By.CSS_SELECTOR, ".tab-rate button[type=submit]").click()
    wait(browser, "document.querySelector('.tab-rate input[name=rater]')?.checkVisibility()")
    browser.find_element(By.CSS_SELECTOR, ".tab-rate [name=rater]").send_keys("anna\n")
    wait(browser, "document.querySelectorAll('.tab-rate .answer').length === 2")
    test = BlindTest(studio.folder / "ratings" / name)
    assert FIRST not in text_of(browser, "#tab-rate")
    for done, key in enumerate("1t2s"):
        wait(browser, f"document.querySelector('.tab-rate .progress').innerText.includes('{min(done, 3)} rated')")
        press(browser, key)
    wait(browser, "document.querySelector('.tab-rate .progress').innerText.includes('1 skipped')")
    ratings = test.ratings()
    assert [len(rating.best or []) for rating in ratings] == [1, 2, 1, 0]
    assert ratings[0].best == ratings[0].order[:1]
    assert ratings[2].best == ratings[2].order[1:]
    press(browser, "u")
    wait(browser, "document.querySelector('.tab-rate .progress').innerText.includes('0 skipped')")
    assert len(test.ratings()) == 3
    assert browser.get_log("browser") == []


def test_nothing_of_a_prompt_or_an_answer_is_run(studio, browser, request):
    test = made(studio, f"attack {request.node.callspec.params['browser']}", models=("base", "tuned", "other"))
    as_rater(browser, studio, "anna")
    for _ in range(len(test.prompts) - 1):  # the answers to the attack are the same but one, and so are shown
        go(browser, studio, f"blind/{studio_name(test)}")
        wait(browser, "document.querySelectorAll('.tab-rate .answer').length === 3")
        if "script" in text_of(browser, ".tab-rate .asked"):
            break
        before = text_of(browser, ".tab-rate .progress")
        press(browser, "s")
        wait(browser, "document.querySelector('.tab-rate .progress').innerText !== arguments[0]", before)
    assert text_of(browser, ".tab-rate .asked") == ATTACK
    assert "<script>window.attacked = true</script>" in text_of(browser, ".tab-rate .answer")
    assert browser.execute_script("return document.querySelectorAll('.tab-rate :is(script, img)').length") == 0
    assert browser.execute_script("return [...document.links].filter((a) => a.protocol === 'javascript:').length") == 0
    assert browser.execute_script("return window.attacked ?? null") is None
    assert browser.get_log("browser") == []


def studio_name(test: BlindTest) -> str:
    return f"ratings/{test.path.name}"


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_choices_and_results_fit_phone_and_desktop(studio, browser, request, size):
    test = made(studio, f"choices {size[0]} {request.node.callspec.params['browser']}")
    show(browser, size)
    for rater, keys in (("anna", "1122111"), ("ben", "1212112")):
        as_rater(browser, studio, rater)
        go(browser, studio, f"blind/{studio_name(test)}")
        for number, key in enumerate(keys):
            wait(browser, f"document.querySelector('.tab-rate .progress').innerText.startsWith('{number} rated')")
            if not number:
                picture(browser, f"choose-{rater}")
                assert fits(browser)
            press(browser, key)
        wait(browser, "document.querySelector('.tab-rate .done')?.checkVisibility()")
    picture(browser, "done")
    go(browser, studio, "")
    wait(browser, "document.querySelectorAll('.tab-rate [data-test]').length >= 1")
    picture(browser, "list")
    assert fits(browser)
    go(browser, studio, f"results/{studio_name(test)}")
    wait(browser, "[...document.querySelectorAll('.tab-rate h2')].some((head) => head.innerText === 'Win rates')")
    picture(browser, "results")
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    picture(browser, "results-end")
    assert fits(browser)
    assert "alpha" in text_of(browser, "#tab-rate").lower()
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_scores_by_keys_alone(studio, browser, request, size):
    test = made(studio, f"scores {size[0]} {request.node.callspec.params['browser']}", by="scores")
    show(browser, size)
    as_rater(browser, studio, "anna")
    go(browser, studio, f"blind/{studio_name(test)}")
    for number, keys in enumerate(["54321234", "11112222", "55555544"]):
        wait(browser, f"document.querySelector('.tab-rate .progress').innerText.startsWith('{number} rated')")
        press(browser, keys)
        if not number:
            picture(browser, "score")
        press(browser, "\ue007")  # Enter
    wait(browser, "document.querySelector('.tab-rate .progress').innerText.startsWith('3 rated')")
    assert fits(browser)
    kept = [[list(scores.values()) for scores in line["scores"].values()] for line in lines(test)]
    assert kept == [[[5, 4, 3, 2], [1, 2, 3, 4]], [[1] * 4, [2] * 4], [[5] * 4, [5, 5, 4, 4]]]
    go(browser, studio, f"results/{studio_name(test)}")
    wait(browser, "[...document.querySelectorAll('.tab-rate h2')].some((head) => head.innerText === 'Scores')")
    browser.execute_script(
        "[...document.querySelectorAll('.tab-rate h2')].find((h) => h.innerText === 'Scores').scrollIntoView()"
    )
    picture(browser, "results-scores")
    assert fits(browser)
    assert browser.get_log("browser") == []
