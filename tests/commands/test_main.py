"""The command's skeleton: light, and every error says where and what to do."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.base.settings import parse_overrides
from lmworks.commands import main as command
from lmworks.commands.main import VERBS, Verb, main

HEAVY = ("torch", "transformers", "tokenizers", "numpy", "pydantic", "rich", "yaml")


@pytest.fixture
def verb(monkeypatch):
    """A verb of the test's own: takes MODEL, texts, --top and --flag; gives back what reached it."""
    received: list[tuple[argparse.Namespace, list[str]]] = []
    module = types.ModuleType("lmworks.commands.probe")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("model")
        parser.add_argument("texts", nargs="*")
        parser.add_argument("--top", type=int, default=3)
        parser.add_argument("--flag", action="store_true")

    def run(args: argparse.Namespace, rest: list[str]) -> int:
        received.append((args, rest))
        return 0

    module.add_arguments, module.run = add_arguments, run
    monkeypatch.setitem(sys.modules, "lmworks.commands.probe", module)
    monkeypatch.setitem(VERBS, "probe", Verb("probe", True, "of the test"))
    return received, module


@pytest.mark.parametrize("words", ["import lmworks", "from lmworks.commands.main import main; main(['--help'])"])
def test_the_beginning_imports_nothing_heavy(words):
    code = f"{words}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


def test_the_public_names_are_offered_lazily():
    import lmworks

    functions = {"audit", "compare", "export_gguf", "ladder", "load", "plan", "pretrain", "report", "resume", "tune"}
    functions |= {"evaluate_suite", "measure", "share", "word_vectors"}
    names = {"Grammar", "InputError", "LanguageModel", "WordVectors", "__version__", *functions}
    assert names == set(lmworks.__all__) <= set(dir(lmworks))
    assert all(callable(getattr(lmworks, name)) for name in names - {"__version__"})
    assert issubclass(lmworks.InputError, Exception)
    assert lmworks.__version__[0].isdigit()
    with pytest.raises(AttributeError):
        _ = lmworks.nothing


@pytest.mark.parametrize("name", VERBS)
def test_every_option_says_what_it_is_for(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"lmworks.commands.{VERBS[name].file}").add_arguments(parser)
    parsers, silent = [parser], []
    for each in parsers:
        for action in each._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif not action.help:
                silent.append(action.option_strings or action.dest)
    assert silent == []


def test_generate_lists_its_settings_with_their_defaults(capsys):
    assert main(["generate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--max-tokens INT" in shown
    assert "(default: 256)" in shown


def test_help_names_every_verb(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS)
    assert all(len(line) <= 80 for line in shown.splitlines() if line.startswith("  ") and "lmworks" not in line)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lmworks ")


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: lmworks {name}")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["gnerate"], "did you mean lmworks generate?"),
        (["zzzz"], "one of: tune, "),
        (["next", "--modle", "x", "text"], "did you mean --model?"),
        (["next"], "lmworks next --help"),
        (["next", "a", "b"], "lmworks next --help"),
        (["next", "a", "--top", "many"], "lmworks next --help"),
        (["--frob"], "lmworks --help"),
    ],
)
def test_a_wrong_word_exits_with_2_and_a_mend(words, hint, capsys):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert f"hint: {hint}" in shown.err
    assert shown.out == ""


def test_settings_are_parted_from_what_a_verb_knows(verb):
    received, _ = verb
    words = [
        "probe",
        "--train.rate",
        "2e-4",
        "MODEL",
        "--top",
        "5",
        "one",
        "--a.b=c",
        "--x",
        "-1",
        "two",
        "--flag",
        "--last",
    ]
    assert main(words) == 0
    args, rest = received[0]
    assert (args.verb, args.model, args.texts, args.top, args.flag) == ("probe", "MODEL", ["one", "two"], 5, True)
    assert parse_overrides(rest) == {"train": {"rate": 2e-4}, "a": {"b": "c"}, "x": -1, "last": True}


def test_after_two_dashes_nothing_is_an_option(verb):
    received, _ = verb
    assert main(["probe", "MODEL", "--", "--a.b", "-x"]) == 0
    assert (received[0][0].texts, received[0][1]) == (["--a.b", "-x"], [])


def test_values_keep_every_sign(verb):
    received, _ = verb
    prompt = "Question: {question}\nA=b --c"
    assert main(["probe", "MODEL", "--data.prompt", prompt, f"--data.other={prompt}"]) == 0
    assert parse_overrides(received[0][1]) == {"data": {"prompt": prompt, "other": prompt}}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("is broken", "here:3", "do this"), 2, "error: here:3: is broken\n  hint: do this\n"),
        (PermissionError(13, "denied", "there"), 2, "error: there: may not be read or written"),
        (OSError(errno.ENOSPC, "No space left", "there"), 2, "error: there: there is no room on the disk"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_errors_are_printed_without_a_traceback(verb, capsys, error, code, words):
    def fail(args, rest):
        raise error

    verb[1].run = fail
    assert main(["probe", "MODEL"]) == code
    assert capsys.readouterr().err.startswith(words)


def test_a_fault_of_ours_is_not_hidden(verb):
    def fail(args, rest):
        raise RuntimeError("ours")

    verb[1].run = fail
    with pytest.raises(RuntimeError, match="ours"):
        main(["probe", "MODEL"])


PRINTS = (
    "import sys, types; from lmworks.commands.main import VERBS, Verb, main\n"
    "m = types.ModuleType('lmworks.commands.probe'); m.add_arguments = lambda p: None\n"
    "m.run = lambda a, r: [print('x' * 100) for _ in range(10000)] and 0\n"
    "sys.modules['lmworks.commands.probe'] = m; VERBS['probe'] = Verb('probe', False, '')\n"
    "sys.exit(main(['probe']))"
)
"""A command that prints 1 MB."""


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize(("closed", "code"), [("<&-", 2), (">&-", 2), ("2>&-", 2), ("<&- >&- 2>&-", 2)])
def test_a_stream_that_the_shell_closed_is_empty(closed, code):
    words = f"{sys.executable} -m lmworks.commands.main generate no/such/model - {closed}"
    ended = subprocess.run(["sh", "-c", words], input="", capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)


def test_a_home_of_nobody_is_no_traceback(monkeypatch, capsys):
    assert main(["score", "~nobody-of-this-name/model", "a text"]) == 2
    assert "error: ~nobody-of-this-name/model: " in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_said():
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert "there is no room on the disk" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


@pytest.mark.parametrize(("colourless", "red"), [("", True), ("1", False)])
def test_no_color_is_respected(monkeypatch, capsys, colourless, red):
    monkeypatch.setenv("NO_COLOR", colourless)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    command._print_error("a")
    assert ("\033[31m" in capsys.readouterr().err) == red


def test_every_verb_is_a_file():
    folder = os.path.dirname(command.__file__)
    assert [name for name, verb in VERBS.items() if not os.path.isfile(f"{folder}/{verb.file}.py")] == []
