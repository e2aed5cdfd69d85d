"""What docs/vectors.md tells people to type is run, as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lmworks.commands.main import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "vectors.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    for words in lines:
        if words[:1] == ["lmworks"]:
            assert main(words[1:]) == 0, words
    for block in blocks("python"):
        exec(compile(block, "docs/vectors.md", "exec"), {})
    assert "socket" in capsys.readouterr().out
