"""lmworks chat and generate in a terminal: commands, several lines, ends, and why a text stopped."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.commands.chat import HELP
from lmworks.commands.main import main
from lmworks.language_model.input_format import InputFormat


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def talk(folder: Path, monkeypatch, capsys, lines: str, *options: str) -> tuple[str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", str(folder), "--max-tokens", "4", *options]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def answer(folder: Path, *lines: str, system: str = "") -> str:
    """What the model answers to the last of several messages."""
    model, messages = lmworks.load(folder), [{"role": "system", "content": system}] if system else []
    for text in lines:
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": model.chat(messages, max_tokens=4)})
    return messages[-1]["content"]


def test_lines_are_messages_of_one_conversation(folder, monkeypatch, capsys):
    out, err = talk(folder, monkeypatch, capsys, "one\n\n  two  \n")
    assert out == f"{answer(folder, 'one')}\n{answer(folder, 'one', 'two')}\n"
    assert "the limit of new tokens is reached (hint: --max-tokens 8)" in err


def test_new_forgets_all_but_the_system_message(folder, monkeypatch, capsys):
    out, _ = talk(folder, monkeypatch, capsys, "one\n/new\ntwo", "--system", "Be brief.")
    assert out.endswith(f"\n{answer(folder, 'two', system='Be brief.')}\n")


def test_a_block_is_one_message_and_a_slash_may_be_said(folder, monkeypatch, capsys):
    out, _ = talk(folder, monkeypatch, capsys, '"""\none\n  two\n"""\n')
    assert out == f"{answer(folder, 'one' + chr(10) + '  two')}\n"
    out, _ = talk(folder, monkeypatch, capsys, '//help\n/new\n/etc/hosts\n/new\n"""\nunended')
    assert out == "".join(f"{answer(folder, text)}\n" for text in ("/help", "/etc/hosts", "unended"))


def test_commands_are_listed_and_unknown_ones_named(folder, monkeypatch, capsys):
    out, err = talk(folder, monkeypatch, capsys, "/help\n/hepl\n/xyzzy\n/exit\nnever asked\n")
    assert all(command in out for command in ("/new", "/help", "/quit", "Ctrl-C"))
    assert out == f"{HELP}\n"
    assert "no command /hepl\n  hint: did you mean /help?" in err
    assert "no command /xyzzy\n  hint: /help lists" in err


def test_an_interrupt_ends_the_answer_alone(folder, monkeypatch, capsys):
    from lmworks.generate.text import TextStream

    calls, step = itertools.count(), TextStream.__next__

    def interrupted(self: TextStream) -> str:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return step(self)

    messages = [{"role": "user", "content": "long"}]
    first = next(iter(lmworks.load(folder).chat(messages, stream=True, max_tokens=4)))
    monkeypatch.setattr(TextStream, "__next__", interrupted)
    out, _ = talk(folder, monkeypatch, capsys, "long\n/new\none\n")
    assert out == f"{first} ...\n{answer(folder, 'one')}\n"


def test_a_full_context_is_an_error_that_says_how_to_go_on(folder, monkeypatch, capsys):
    out, err = talk(folder, monkeypatch, capsys, "word " * 300 + "\none\n")
    assert "/new starts another conversation" in err
    assert out == f"{answer(folder, 'one')}\n"


def test_generate_says_why_it_stopped(folder, capsys):
    model = lmworks.load(folder)
    size = model.config.max_position_embeddings
    assert main(["generate", str(folder), "abc", "--max-tokens", "1000"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"stopped: the context of {size} tokens is full (hint: --slide)\n"
    assert captured.out == model.generate("abc", max_tokens=1000) + "\n"
    assert main(["generate", str(folder), "abc", "--max-tokens", str(size + 9), "--slide"]) == 0
    captured = capsys.readouterr()
    assert "limit of new tokens is reached" in captured.err
    assert captured.out == model.generate("abc", max_tokens=size + 9, slide=True) + "\n"
    assert main(["generate", str(folder), "abc", "b", "--max-tokens", "3"]) == 0
    assert "in 2 of 2 texts" in capsys.readouterr().err
    assert main(["generate", str(folder), "ab " * size, "--max-tokens", "3", "--slide"]) == 0
    assert f"of which the model read the last {size}" in capsys.readouterr().err


def test_the_form_of_the_run_is_said_and_can_be_left_out(folder, tmp_path, capsys):
    model = lmworks.load(folder)
    model.input_format = InputFormat(task="labels", kind="label", labels=("no", "yes"))
    saved = model.save(tmp_path / "labels")
    assert main(["generate", str(saved), "abc", "b"]) == 0
    captured = capsys.readouterr()
    assert set(captured.out.split()) <= {"no", "yes"}
    assert "labelled (no, yes)" in captured.err
    assert main(["chat", str(saved), "--ask", "abc"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split(" ")[0] in ("no", "yes")
    assert main(["generate", str(saved), "abc", "--raw", "--max-tokens", "3"]) == 0
    assert capsys.readouterr().out == lmworks.load(folder).generate("abc", max_tokens=3) + "\n"


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "MODEL", "caf\udce9"],
        ["generate", "MODEL", "a", "caf\udce9"],
        ["chat", "MODEL", "--ask", "caf\udce9"],
        ["next", "caf\udce9", "--model", "MODEL"],
        ["score", "MODEL", "caf\udce9"],
        ["score", "MODEL", "-"],
        ["generate", "MODEL", "-"],
        ["embed", "caf\udce9", "--model", "MODEL"],
    ],
)
def test_bytes_that_are_not_utf8_are_an_input_error(folder, monkeypatch, capsys, words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert main([str(folder) if word == "MODEL" else word for word in words]) == 2
    assert "not UTF-8: byte 4 is 0xe9" in capsys.readouterr().err


def test_lines_end_at_line_ends_alone(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\u2028two\x0cthree\r\nfour\n"))
    assert main(["score", str(folder), "-", "--lines", "--json"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["one\u2028two\x0cthree", "four"]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\u2028two\x0cthree\nfour\n"))
    assert main(["embed", "-", "--model", str(folder), "--json"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["one\u2028two\x0cthree", "four"]
