"""Texts: where lines end, and what happens to bytes and characters that are no text."""

import io
import json
import sys

import pytest
from tiny_tokenizers import byte_level

from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.text import corpus, plain_text
from lmworks.text.rows import DataSettings

INSIDE = "one\x0btwo\x0cthree\x1cfour\x85five\u2028six\u2029seven"


def test_only_line_ends_cut_lines(tmp_path):
    assert plain_text.split_lines(f"{INSIDE}\n\r\nb\rc\n") == [INSIDE, "", "b", "c"]
    assert plain_text.split_lines("") == []
    path = tmp_path / "a.txt"
    path.write_bytes(f"\ufeff{INSIDE}\r\nb\rc".encode())
    assert plain_text.read_text(path) == f"{INSIDE}\nb\nc"
    rows = corpus.read(path, DataSettings(document="line")).rows
    assert [(row.values["text"], row.place[-2:]) for row in rows] == [(INSIDE, ":1"), ("b", ":2"), ("c", ":3")]
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text(json.dumps({"text": INSIDE}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [row.values for row in corpus.read(jsonl).rows] == [{"text": INSIDE}]


def test_bytes_that_are_not_utf8_are_named_by_line_and_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\nsecond caf\xe9\n")
    with pytest.raises(InputError, match=r"a\.txt:2: not UTF-8: byte 11 of the line is 0xe9[^$]*iconv"):
        plain_text.read_text(path)
    with pytest.raises(InputError, match=r"a\.txt:2: not UTF-8: byte 11 of the line is 0xe9[^$]*iconv"):
        corpus.read(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("caf\udce9", "not UTF-8: byte 4 is 0xe9"), ("é\ud83d", "character 2 is half of a surrogate pair")],
)
def test_no_tokenizer_crashes_on_what_is_no_text(text, fault):
    tokenizer = byte_level()
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_many(["a", text]), lambda t: tokenizer.spans([t])):
        with pytest.raises(InputError, match=fault):
            encode(text)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": "a", "completion": "b\ud83d"}, "field 'completion': character 2"),
        ({"text": "\udc00a", "label": "x"}, "field 'text': character 1"),
        ({"text": "a", "label": "x\ud83d"}, "field 'label': character 2"),
        ({"source": "a", "target": "x\ud83d"}, "field 'target': character 2"),
        ({"instruction": "a", "input": "b\ud83d", "output": "c"}, "field 'input': character 2"),
    ],
)
def test_half_characters_in_rows_are_refused_or_left_out(tmp_path, row, field):
    path = tmp_path / "a.jsonl"
    good = dict.fromkeys(row, "emoji 🙂")
    path.write_text("".join(json.dumps(values) + "\n" for values in (good, row, good)))
    with pytest.raises(InputError, match=rf"a\.jsonl:2: {field} is half"):
        corpus.read(path)
    table = corpus.read(path, DataSettings(on_bad_row="skip"))
    assert (len(table), len(table.skipped)) == (2, 1)
    assert all("\U0001f642" in text for text in table.rows[0].values.values())


def test_standard_input_that_is_not_utf8_is_refused(tmp_path, monkeypatch, capsys):
    byte_level().save(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    assert main(["tokenizer", "show", str(tmp_path), "-"]) == 2
    assert "byte 4 is 0xe9" in capsys.readouterr().err
