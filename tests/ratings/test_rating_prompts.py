"""Prompts are read from every format; what is left out is said, what is no prompt is named."""

from __future__ import annotations

import json

import pytest

from lmworks.base.errors import InputError
from lmworks.ratings.prompts import read_prompts


def texts(prompts: list[list[dict]]) -> list[str]:
    assert all(len(prompt) == 1 and prompt[0]["role"] == "user" for prompt in prompts)
    return [prompt[0]["content"] for prompt in prompts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "Who?\n\nWhy, and when?\n"),
        ("a.csv", 'prompt,completion\nWho?,I\n"Why, and when?",x\n'),
        ("a.tsv", "question\tid\nWho?\t1\nWhy, and when?\t2\n"),
        ("a.jsonl", '{"prompt": "Who?"}\n{"prompt": "Why, and when?", "answer": "x"}\n'),
        ("a.json", '[{"instruction": "Who?"}, {"text": "Why, and when?"}]'),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "Who?"}]}\n{"prompt": "Why, and when?"}\n'),
    ],
)
def test_formats_and_columns(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    prompts, notes = read_prompts(path)
    assert texts(prompts) == ["Who?", "Why, and when?"]
    assert notes == []


def test_answers_at_the_end_and_equal_prompts_are_left_out_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    rows = [{"messages": turns}, {"messages": turns[:4]}, {"prompt": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, notes = read_prompts(path)
    assert prompts == [turns[:4], [{"role": "user", "content": "x"}]]
    assert notes == [
        "1 prompt equal to an earlier one left out",
        "1 conversation ended with an answer, which is left out",
    ]


def test_a_limit_is_said(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\n")
    prompts, notes = read_prompts(path, 2)
    assert texts(prompts) == ["a", "b"]
    assert notes == ["only the first 2 prompts read (limit)"]
    assert read_prompts(path, 3)[1] == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"prompt": "a"}\n{"answer": "b"}\n', r"a.jsonl:2: has no prompt"),
        ('{"prompt": "a"}\n{"prompt": " "}\n', r"a.jsonl:2: has no prompt"),
        ('{"messages": [{"role": "assistant", "content": "b"}]}\n', r"a.jsonl:1: no message is the user's"),
        ('{"messages": [{"role": "nobody", "content": "b"}]}\n', r"a.jsonl:1: message 1: unknown role"),
        ("", r"a.jsonl: the file is empty"),
        ("nonsense\n", r"a.jsonl:1"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, content, fault):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=fault) as refused:
        read_prompts(path)
    assert refused.value.hint


def test_no_file_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.txt")
