"""Calls read out of a text that comes in pieces: the same in any pieces, text at once, no mark of a call in it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.generate.tool_call_parser import Delta, ToolCallParser
from lmworks.generate.tool_formats import HERMES, LLAMA, MISTRAL, Call, ToolFormat

NAMES = ["weather", "now", "now_2"]
CALLS = [
    Call("weather", {"city": 'Graz "</tool_call>\\', "days": [1, {"x": "}"}]}),
    Call("now", {}),
    Call("now_2", {"é": None}),
]
FORMATS = [HERMES, MISTRAL, LLAMA]
MARKS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", '"arguments"', '"parameters"')


def calls_of(form: ToolFormat, count: int = 3) -> list[Call]:
    return CALLS[:count] if form.repeats else CALLS[:1]


def parse(form: ToolFormat, pieces, names=NAMES) -> tuple[ToolCallParser, list[Delta]]:
    parser, deltas = ToolCallParser(form, names), list[Delta]()
    for piece in pieces:
        deltas += parser.feed(piece)
    return parser, deltas + parser.finish()


def read(parser: ToolCallParser) -> tuple[str, list[Call]]:
    functions = [call["function"] for call in parser.tool_calls]
    return parser.content, [Call(function["name"], json.loads(function["arguments"])) for function in functions]


def merged(deltas: list[Delta]) -> tuple[str, list[dict]]:
    """What a client of OpenAI's API makes of the deltas."""
    text, calls = "", list[dict]()
    for delta in deltas:
        text += delta.get("content", "")
        for part in delta.get("tool_calls", ()):
            if part["index"] == len(calls):
                calls.append({"id": part["id"], "type": part["type"], "function": dict(part["function"])})
            else:
                assert set(part) == {"index", "function"}
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return text, calls


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[begin:end] for begin, end in pairwise(ends)] or [text]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_calls_that_are_written_are_read_back(form):
    calls = calls_of(form)
    assert read(parse(form, [form.write(calls)])[0]) == ("", calls)
    if form.begin:
        parser, _ = parse(form, [f"Let me see.\n\n{form.write(calls)}"])
        assert read(parser) == ("Let me see.", calls)
        assert parser.message() == {"role": "assistant", "content": "Let me see.", "tool_calls": parser.tool_calls}
    else:
        assert read(parse(form, [f"{form.optional}{form.write(calls)}"])[0]) == ("", calls)
    assert parse(form, [form.write(calls)])[0].message()["content"] is None


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(data=st.data())
def test_pieces_of_any_size_make_the_same_message(form, data):
    spoken = data.draw(st.sampled_from(["", "Let me see.", "a < b\n", "  <tool", "[TOOL_", " x{y} "]))
    calls = calls_of(form, data.draw(st.integers(0, 3)))
    if calls and not form.begin:
        spoken = ""
    text = spoken + (form.write(calls) if calls else "")
    pieces = cut(text, data.draw(st.lists(st.integers(0, 500), max_size=12)))
    parser, deltas = parse(form, pieces)
    assert read(parser) == (spoken.rstrip() if calls else spoken, calls)
    content, tool_calls = merged(deltas)
    assert (content, tool_calls) == (parser.content, parser.tool_calls)
    assert len({call["id"] for call in tool_calls}) == len(calls)
    for delta in deltas:
        assert delta.get("content") != ""
        assert not any(mark in delta.get("content", "") for mark in MARKS)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_text_goes_out_at_once_and_calls_as_they_come(form):
    parser = ToolCallParser(form, NAMES)
    if form.begin:
        assert parser.feed("It is ") == [{"content": "It is"}]
        held = " <" if form is HERMES else ""
        assert parser.feed("warm: 1 <") == [{"content": " warm: 1 <".removesuffix(held)}]
        assert parser.feed(" 2. ") == [{"content": f"{held} 2."}]
    opening = next(iter(form.openings(NAMES)))
    assert parser.feed(opening[:-1]) == []
    (delta,) = parser.feed(opening[-1])
    (told,) = delta["tool_calls"]
    assert told["index"] == 0
    assert told["type"] == "function"
    assert told["id"].isalnum()
    assert len(told["id"]) == 9
    assert told["function"] == {"name": "weather", "arguments": ""}
    for piece in ('{"city": "G', "raz", '"}'):
        assert parser.feed(piece) == [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}]
    assert told["function"]["arguments"] == ""
    assert parser.feed(form.write([Call("weather", {})]).split("{}")[1]) == []
    assert parser.finish() == []


def test_without_names_all_is_text():
    for form in FORMATS:
        text = f" {form.write(CALLS[:1])} "
        parser, deltas = parse(form, [text], names=[])
        assert deltas == [{"content": text}]
        assert parser.message() == {"role": "assistant", "content": text}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_call_that_was_cut_keeps_what_came_of_its_arguments(form):
    opening = next(iter(form.openings(NAMES)))
    parser, _ = parse(form, [opening, '{"city": "Gr'])
    assert [call["function"]["arguments"] for call in parser.tool_calls] == ['{"city": "Gr']
    parser, deltas = parse(form, [opening[:-4]])  # before its name is whole: no mark of it is told
    assert (deltas, parser.tool_calls) == ([], [])
    assert parser.message()["content"] == ""


def test_an_ending_that_only_looks_like_a_mark_is_text():
    for form, text in ((HERMES, "a <tool_ca"), (MISTRAL, "a [TOOL_"), (LLAMA, "<|python_t"), (HERMES, "a \n")):
        assert merged(parse(form, text)[1]) == (text, [])
