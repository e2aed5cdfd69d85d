"""lmworks tokenizer: what it writes, prints and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lmworks.commands.main import main
from lmworks.text.tokenizer import Tokenizer

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"
TEXT = "the cat sat on the mat\nthe cat saw the other cat\n" * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and tokenizers of three kinds trained on it."""
    path = tmp_path_factory.mktemp("tokenizers")
    (path / "text.txt").write_text(TEXT)
    for kind, words in (("word", []), ("char", []), ("byte-bpe", ["--vocab-size", "270"])):
        asked = ["tokenizer", "train", str(path / "text.txt"), "--kind", kind, *words, "--out", str(path / kind)]
        assert main(asked) == 0
    return path


def output(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["tokenizer", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_train_writes_what_opens(folder, capsys):
    assert Tokenizer.open(folder / "byte-bpe").vocab_size == 270
    code, out, err = output(capsys, "train", folder / "text.txt", "--kind", "char", "--out", folder / "again")
    assert code == 0
    assert "a GGUF file cannot carry a tokenizer of kind char: choose byte-bpe" in out
    assert "characters" in err
    assert (folder / "again/tokenizer.json").read_bytes() == (folder / "char/tokenizer.json").read_bytes()


def test_train_takes_settings_before_and_after_the_file(folder, capsys):
    words = ["train", "--lowercase", "--kind", "char", folder / "text.txt", "--style", "distilbert", "--limit", 7]
    assert output(capsys, *words, "--out", folder / "small")[0] == 0
    created = Tokenizer.open(folder / "small")
    assert created.cls_id is not None
    assert set(created.core.get_vocab()) - set(created.specials) == set("the cat")


def test_train_reads_rows_of_data(folder, capsys):
    message = {"role": "user", "content": "who are you"}
    (folder / "chat.jsonl").write_text(json.dumps({"messages": [message, {**message, "role": "assistant"}]}) + "\n")
    code, _, err = output(capsys, "train", folder / "chat.jsonl", "--kind", "word", "--out", folder / "chat")
    assert code == 0
    assert "conversations" in err
    assert {"who", "are", "you"} < set(Tokenizer.open(folder / "chat").core.get_vocab())
    (folder / "rows.csv").write_text("body,other\nthe cat,x\nthe dog,y\n")
    words = ["train", folder / "rows.csv", "--kind", "word", "--data.text", "{body}", "--data.limit", "1"]
    assert output(capsys, *words, "--out", folder / "rows")[0] == 0
    created = Tokenizer.open(folder / "rows")
    assert set(created.core.get_vocab()) - set(created.specials) == {"the", "cat"}


def test_show_parts_pieces_and_marks_special_ones(folder, capsys):
    created = Tokenizer.open(folder / "word")
    code, out, _ = output(capsys, "show", folder / "word", "the dog sat")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "{[CLS]}|the|{[UNK]}=dog|sat|{[SEP]}"
    assert lines[1].split() == [str(index) for index in created.encode("the dog sat", special=True)]
    assert lines[2] == "3 tokens for 11 characters, 11 bytes (3.67 bytes per token); 2 special tokens; 1 unknown"
    assert output(capsys, "show", folder / "word", "the dog", "--no-special")[1].startswith("the|{[UNK]}=dog\n")
    assert output(capsys, "show", folder / "char", "a\nt")[1].startswith("a|\\n|t\n")
    assert output(capsys, "show", folder / "word", "")[1].splitlines()[-1] == "no tokens; 2 special tokens"


def test_show_as_json(folder, capsys):
    shown = json.loads(output(capsys, "show", folder / "word", "the dog", "--json")[1])
    assert [token["piece"] for token in shown] == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert [token["special"] for token in shown] == [True, False, True, True]
    assert shown[2]["text"] == "dog"


@pytest.mark.parametrize(("colourless", "coloured"), [("", True), ("1", False)])
def test_show_in_colour_where_a_person_looks(folder, capsys, monkeypatch, colourless, coloured):
    monkeypatch.setenv("NO_COLOR", colourless)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out = output(capsys, "show", folder / "word", "the cat")[1]
    assert ("\x1b[" in out) == coloured
    assert ("|" in out) != coloured


def test_compare_tells_numbers_and_faults(folder, capsys):
    words = ["compare", "the cat saw ☃☃", folder / "word", folder / "char", folder / "byte-bpe"]
    code, out, _ = output(capsys, *words)
    assert code == 0
    assert "2 x '☃' -> '<unk>'" in out
    assert "1 x '☃☃' -> '[UNK]'" in out
    assert f"{folder / 'byte-bpe'}: the text comes back as it was" in out
    result = json.loads(output(capsys, *words, "--json")[1])
    assert [item["unknown_characters"] for item in result] == [2, 2, 0]
    assert result[1]["tokens"] == len("the cat saw ☃☃")
    assert result[0]["faults"] == [{"lost": "☃☃", "became": "[UNK]", "count": 1, "unknown": True}]


def test_compare_reads_files_and_limits(folder, capsys):
    result = json.loads(output(capsys, "compare", folder / "text.txt", folder / "char", "--json")[1])
    assert result[0]["characters"] == len(TEXT.rstrip("\n"))
    _, out, err = output(capsys, "compare", folder / "text.txt", folder / "char", "--limit", 10, "--json")
    assert json.loads(out)[0]["characters"] == 10
    assert "only the first 10" in err


@pytest.mark.parametrize(
    ("words", "fault", "hint"),
    [
        (["train", "{0}/text.txt", "--kind", "letters", "--out", "{0}/x"], "kind", "word | char"),
        (["train", "{0}/text.txt", "--kindd", "word", "--out", "{0}/x"], "no option --kindd", "did you mean --kind?"),
        (["train", "{0}/text.txt", "--kind", "char", "--out", "{0}/char"], "already", "--overwrite"),
        (["train", "{0}/text.txt", "--kind", "char", "--out", "{0}/text.txt"], "is a file", "--out"),
        (["train", "{0}/none.txt", "--kind", "char", "--out", "{0}/x"], "no such file", "did you mean"),
        (["train", "{0}/text.txt", "--kind", "bpe", "--vocab-size", "9000", "--out", "{0}/x"], "can fill", "--vocab"),
        (["show", "{0}/none", "a"], "is no file or folder here", "folder"),
        (["show", "{0}/char", "a\udcff"], "not UTF-8: byte 2 is 0xff", "UTF-8"),
        (["show", "{0}/char", "a", "--colour", "no"], "no option --colour", "--help"),
        (["compare", "", "{0}/char"], "no text", "give a text"),
        (["compare", "none.txt", "{0}/char"], "no such file", "give a file"),
    ],
)
def test_wrong_arguments_are_errors(folder, capsys, words, fault, hint):
    code, out, err = output(capsys, *(word.replace("{0}", str(folder)) for word in words))
    assert (code, out) == (2, "")
    assert fault in err
    assert hint in err.split("hint: ")[1]
    assert not (folder / "x").exists()


@pytest.mark.parametrize("name", ["tinyshakespeare", "faust_de", "persuasion_fr"])
def test_real_texts_come_back(name, tmp_path, capsys):
    source = DATA / f"{name}.txt"
    if not source.is_file():
        pytest.skip(f"needs {source.name} of the data beside the repository")
    for kind, size in (("char", ()), ("bpe", ("--vocab-size", 800)), ("byte-bpe", ("--vocab-size", 800))):
        words = ["train", source, "--kind", kind, *size, "--limit", 60_000, "--out", tmp_path / kind]
        assert output(capsys, *words)[0] == 0
    folders = [tmp_path / kind for kind in ("char", "bpe", "byte-bpe")]
    result = json.loads(output(capsys, "compare", source, *folders, "--limit", 60_000, "--json")[1])
    assert [item["faults"] for item in result] == [[], [], []]
    assert result[1]["tokens"] < result[0]["tokens"]


@pytest.mark.parametrize("content", [b"caf\xe9 one\ntwo cafes\n", b"", b"\xff\xfea\x00"])
def test_files_that_are_no_text_are_refused_with_their_line(folder, tmp_path, capsys, content):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    for words in (
        ("train", path, "--kind", "char", "--out", tmp_path / "x"),
        ("compare", path, folder / "char"),
    ):
        code, out, err = output(capsys, *map(str, words))
        assert (code, out) == (2, "")
        assert str(path) in err
        if b"\xe9" in content:
            assert "bad.txt:1: not UTF-8: byte 4 of the line is 0xe9" in err
            assert output(capsys, *map(str, words), "--data.on_bad_row", "skip")[0] == 0
