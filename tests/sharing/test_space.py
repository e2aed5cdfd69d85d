"""The demo of a model as a Space: its files, and the page in a real browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsers import MARKS, browser_fixture  # noqa: F401
from tiny_model import save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.language_model.input_format import InputFormat
from lmworks.sharing import space
from lmworks.sharing.model_card import Published
from lmworks.sharing.model_use import ModelUse
from lmworks.sharing.share import share

WAIT = 120.0
"""Seconds in which a page must be there, on a busy machine."""


def test_the_demo_has_all_that_the_hub_builds_it_from(shared_run, tmp_path) -> None:
    shared = share(shared_run, space=tmp_path / "demo", licence="mit")
    assert shared.space == tmp_path / "demo"
    names = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert names == ["README.md", "app.py", "demo.json", "model", "requirements.txt"]
    header = re.match(r"\A---\n(.*?)\n---\n", (tmp_path / "demo/README.md").read_text(encoding="utf-8"), re.S)
    assert header
    values = yaml.safe_load(header[1])
    assert {name: values[name] for name in ("sdk", "app_file", "title", "license")} == {
        "sdk": "gradio",
        "app_file": "app.py",
        "title": "demo",
        "license": "mit",
    }
    settings = json.loads((tmp_path / "demo/demo.json").read_text(encoding="utf-8"))
    assert settings["kind"] == "chat"
    assert settings["system"] == "Be brief."
    opened = lmworks.load(tmp_path / "demo/model")
    assert opened.input_format == lmworks.load(shared_run).input_format


def test_a_demo_is_replaced_only_when_asked_and_only_a_demo(shared_run, tmp_path) -> None:
    share(shared_run, space=tmp_path / "demo")
    with pytest.raises(InputError, match="is there already and not empty"):
        share(shared_run, space=tmp_path / "demo")
    share(shared_run, space=tmp_path / "demo", overwrite=True)
    (tmp_path / "demo/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not part of a demo: notes\.txt"):
        share(shared_run, space=tmp_path / "demo", overwrite=True)


@pytest.mark.parametrize(
    ("pipeline", "form", "pattern", "text"),
    [
        ("text-classification", None, "{text}", "a"),
        (
            "text2text-generation",
            InputFormat(task="seq2seq", kind="source", prefix="to {x}: "),
            "to {{x}}: {text}",
            "a",
        ),
        ("text-generation", InputFormat(task="instructions", kind="prompt"), "{text}\n", "a"),
        (
            "text-generation",
            InputFormat(task="instructions", kind="prompt", prompt="Q: {ask}\nA:"),
            "Q: {ask}\nA:",
            "a",
        ),
    ],
)
def test_a_text_is_built_as_in_the_run(pipeline, form, pattern, text) -> None:
    demo = space.demo_of(ModelUse(pipeline, input_format=form), "name")
    assert demo["pattern"] == pattern
    if form is not None and form.has_prompt and form.kind != "source" and form.prompt:
        assert demo["pattern"].format(**{demo["column"]: text}) == form.fill(text)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (ModelUse("token-classification"), "there is no demo of a model that does token-classification"),
        (ModelUse(None), "what transformers does not"),
        (
            ModelUse("text-generation", input_format=InputFormat(task="labels", kind="label", labels=("a", "b"))),
            "chooses labels by their likelihood",
        ),
        (
            ModelUse("text-generation", input_format=InputFormat(task="chat", kind="prompt", prompt="{a} {b}")),
            "built from a and b",
        ),
    ],
)
def test_what_the_page_cannot_show_is_refused(use, message) -> None:
    with pytest.raises(InputError, match=message):
        space.demo_of(use, "name")


def test_a_demo_of_a_model_on_the_hub_has_no_weights(tmp_path) -> None:
    space.write(tmp_path / "demo", ModelUse("fill-mask"), Published("someone/bert"), "someone/bert", None)
    assert json.loads((tmp_path / "demo/demo.json").read_text())["model"] == "someone/bert"
    assert not (tmp_path / "demo/model").exists()
    assert "models:\n- someone/bert\n" in (tmp_path / "demo/README.md").read_text(encoding="utf-8")


class Started:
    """A demo in a process of its own, at an address of this machine."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        address = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "app.py")],
            env={**os.environ, **quiet, **address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        end = time.monotonic() + WAIT
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, "the page did not come"
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def classifier_run(tmp_path: Path) -> Path:
    """A run of a tiny decoder with a head."""
    rows = [{"text": f"{word} film {number}", "label": word} for number in range(30) for word in ("good", "bad")]
    values = settings("train.steps=4 train.precision=float32 train.threads=1")
    model = save_tiny(tmp_path / "tiny")
    return lmworks.tune(str(model), rows, method="full", task="classify", out=tmp_path / "run", **values).folder


def _visible(browser: Any, selector: str) -> Any:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, WAIT).until(
        expected_conditions.visibility_of_element_located((By.CSS_SELECTOR, selector))
    )


pages = [*MARKS, pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio (pip install gradio)")]


class TestPages:
    pytestmark = pages

    @pytest.mark.timeout(600)
    def test_a_person_asks_and_the_model_answers(self, shared_run, tmp_path, browser: Any) -> None:
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.ui import WebDriverWait

        share(shared_run, space=tmp_path / "demo")
        model = lmworks.load(tmp_path / "demo/model")
        wanted = model.chat([{"role": "user", "content": "What is 7 and 7?"}], max_tokens=200).strip()
        started = Started(tmp_path / "demo")
        try:
            browser.get(started.url)
            _visible(browser, "textarea").send_keys("What is 7 and 7?", Keys.ENTER)
            WebDriverWait(browser, WAIT).until(
                lambda page: "".join(wanted.split()) in "".join(_visible(page, "main").text.split())
            )
        finally:
            started.stop()

    @pytest.mark.timeout(600)
    def test_a_person_sees_the_label_of_a_text(self, classifier_run, tmp_path, browser: Any) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        share(classifier_run, space=tmp_path / "demo")
        (prediction,) = lmworks.load(tmp_path / "demo/model").predict(["good film 3"])
        started = Started(tmp_path / "demo")
        try:
            browser.get(started.url)
            _visible(browser, "textarea").send_keys("good film 3")
            next(b for b in browser.find_elements(By.CSS_SELECTOR, "button") if b.text.strip() == "Submit").click()
            probability = f"{prediction.probabilities[prediction.label]:.0%}"
            WebDriverWait(browser, WAIT).until(lambda page: prediction.label in _visible(page, "main").text)
            assert probability in _visible(browser, "main").text
        finally:
            started.stop()
