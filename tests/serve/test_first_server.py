"""What docs/first_server.md tells a newcomer to type is run as it stands there, and prints what stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401

PAGE = (Path(__file__).parents[2] / "docs/first_server.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
ENVIRONMENT = {**os.environ, "LMWORKS_API_KEY": ""}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
WAIT = 120.0
"""Seconds in which an answer must be there, on a busy machine."""


class Block(NamedTuple):
    """A block of the page, and what it prints by the page."""

    language: str
    code: str
    printed: str


def blocks() -> list[Block]:
    """All of the page that is typed, each with the block of text that follows it."""
    found = BLOCK.findall(PAGE)
    following = [*(code if language == "text" else "" for language, code in found[1:]), ""]
    return [Block(*block, then) for block, then in zip(found, following, strict=True) if block[0] != "text"]


COMMANDS = {block.code.split()[1]: block for block in blocks() if block.code.startswith("lmworks ")}
SNIPPETS = [block for block in blocks() if not block.code.startswith("lmworks ")]


@contextmanager
def started(command: Block, folder: Path) -> Iterator[str]:
    """The address that a command of the page prints, at any free port; all else that it prints is on the page."""
    number_of_lines = command.printed.count("\n")
    pattern = re.sub(r"(?<=127\\\.0\\\.0\\\.1:)\d+", r"\\d+", re.escape(command.printed)).replace("…", r"[\w-]+")
    words = [*shlex.split(command.code), "--port", "0"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            printed = "".join(process.stdout.readline() for _ in range(number_of_lines))
            assert re.fullmatch(pattern, printed), printed + (folder / "log").read_text()
            yield re.findall(r"http:\S+", printed)[0]
            process.send_signal(signal.SIGINT)  # Ctrl-C, as the page says
            process.communicate(timeout=WAIT)
            assert process.returncode == 130, (folder / "log").read_text()
        finally:
            process.kill()


@pytest.fixture(name="url", scope="module")
def _url(smollm2, tmp_path_factory) -> Iterator[str]:
    with started(COMMANDS["serve"], tmp_path_factory.mktemp("server")) as address:
        yield address.removesuffix("/v1")


def test_the_page_goes_from_the_command_to_an_answer_by_each_way() -> None:
    from lmworks.commands.main import VERBS
    from lmworks.serve.settings import ServeSettings
    from lmworks.studio.settings import StudioSettings

    assert set(COMMANDS) == {"serve", "studio"} <= set(VERBS)
    for command, settings in (("serve", ServeSettings()), ("studio", StudioSettings())):
        assert f"http://127.0.0.1:{settings.port}/" in COMMANDS[command].printed
    for name in ("curl", "from openai", "langchain_openai", "lmworks.integrations.langchain"):
        assert any(name in block.code for block in SNIPPETS), name
    assert all(block.printed for block in blocks())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_prints_what_the_page_says(number, url, tmp_path) -> None:
    snippet = SNIPPETS[number]
    for package in re.findall(r"^from (langchain\w*|openai)", snippet.code, re.M):
        pytest.importorskip(package)
    program = {"sh": ["sh", "-e", "-c"], "python": [sys.executable, "-c"]}[snippet.language]
    code = snippet.code.replace("http://127.0.0.1:8080", url)
    done = subprocess.run([*program, code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    if snippet.language == "sh":  # the page says where the text is
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == snippet.printed.rstrip("\n")
    else:
        assert done.stdout.splitlines() == snippet.printed.splitlines()


@MARKS[0]
@MARKS[1]
@pytest.mark.timeout(600)
def test_the_studio_answers_the_page_s_question(smollm2, browser: Any, tmp_path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def shown(selector: str) -> list[Any]:
        return [node for node in browser.find_elements(By.CSS_SELECTOR, selector) if node.is_displayed()]

    def wait(condition: Any) -> None:
        WebDriverWait(browser, WAIT).until(lambda _: condition())

    question = re.search(r"Write \*(.+?)\* and press Enter", PAGE)
    assert question
    with started(COMMANDS["studio"], tmp_path) as address:
        browser.get(address)
        wait(lambda: [node for node in shown(".composer .primary") if node.is_enabled()])
        shown(".composer textarea")[0].send_keys(question[1], Keys.ENTER)
        wait(lambda: [node for node in shown(".answer .foot") if "tokens/s" in node.text])
        assert shown(".answer .body")[0].text
        next(button for button in shown("button") if button.text == "Tokens").click()
        wait(lambda: shown(".token"))
