"""Tables and lines on a terminal: nothing is wider than it, no word is cut, and what is left out is said."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from lmworks.commands import show

HEADERS = ("run", "started", "model", "state", "size")
ROWS = [
    ("20260725-101112-smollm2-135m-instruct-lora", "2026-07-25 10:11", "smollm2-135m-instruct", "finished", "7.40 MB"),
    ("gpt", "2026-07-25 10:12", "tinygpt", "resumable, 120/200 steps", "1.20 MB"),
]


def printed(width: int, terminal: bool = True, **words) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    show.table(HEADERS, ROWS, to=console, **words)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [65, 80, 100, 120, 200])
def test_a_table_is_no_wider_than_its_terminal_and_cuts_no_word(width):
    lines = printed(width, spare=("size", "started", "model"))
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    left_out = text.rpartition(" columns: ")[2].split("; ") if "columns:" in text else []
    for index, header in enumerate(HEADERS):
        words = [word for row in ROWS for word in row[index].split()]
        assert header in left_out or all(word in text for word in words)
    assert left_out == list(("size", "started", "model")[: len(left_out)])
    assert bool(left_out) == (width <= 80)


def test_a_table_that_no_terminal_bounds_is_whole():
    lines = printed(40, terminal=False, spare=("size",))
    assert any("size" in line for line in lines)


def test_a_line_is_wrapped_below_its_text_on_a_terminal(monkeypatch, capsys):
    text = "time        9 min 00 s: training 8 min 20 s, evaluation before 20.0 s, during 5.0 s, after 15.0 s"
    show.line(text)
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    show.line(text)
    first, second = capsys.readouterr().out.splitlines()
    assert len(first) <= 60
    assert second.startswith(" " * 12 + second.split()[0])
    assert " ".join([first, second.strip()]) == text
