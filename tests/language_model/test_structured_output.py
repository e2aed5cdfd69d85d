"""Grammars and tools through a model's own methods, of a tiny model and of the real one."""

from __future__ import annotations

import json
import re

import pytest
from tiny_model import save_tiny

import lmworks
from lmworks import Grammar
from lmworks.base.errors import InputError

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance", reason="grammars need lmworks[grammar]")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]
ASKED = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory):
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny", context=2048))


def test_generate_keeps_to_a_grammar(tiny):
    grammar = Grammar.json_schema(PERSON)
    text = tiny.generate("Who", grammar=grammar, max_tokens=100)
    jsonschema.validate(json.loads(text), PERSON)
    assert "".join(tiny.generate("Who", grammar=grammar, max_tokens=100, stream=True)) == text
    assert tiny.generate(["Who", "The"], grammar=grammar, max_tokens=100)[0] == text
    assert tiny.generate("Who", grammar=Grammar.choices(["sea", "sky"])) in ("sea", "sky")
    jsonschema.validate(json.loads(tiny.chat(ASKED, grammar=grammar, max_tokens=100)), PERSON)


def test_what_is_no_grammar_is_refused(tiny):
    for options in ({"grammar": PERSON}, {"grammar": "[0-9]+"}):
        with pytest.raises(InputError, match="cannot be used here") as caught:
            tiny.generate("Who", **options)
        assert "Grammar.json_schema" in caught.value.hint
    with pytest.raises(InputError, match="calls of tools have a grammar of their own"):
        tiny.chat(ASKED, grammar=Grammar.json_object(), tools=TOOLS, details=True)


def test_chat_calls_tools_and_reads_what_they_give(tiny):
    options = {"tool_choice": "required", "parallel_tool_calls": False}
    reply = tiny.chat(ASKED, tools=TOOLS, details=True, max_tokens=90, **options)
    (call,) = reply.tool_calls
    assert call["function"]["name"] == "add"
    assert set(json.loads(call["function"]["arguments"])) == {"a", "b"}
    answered = [
        *ASKED,
        {"role": "assistant", "content": reply.text, "tool_calls": reply.tool_calls},
        {"role": "tool", "tool_call_id": call["id"], "content": "7"},
    ]
    following = tiny.chat(answered, tools=TOOLS, details=True, max_tokens=30)
    assert following.usage.prompt_tokens > reply.usage.prompt_tokens + len(reply.ids)
    asked = {"tools": TOOLS, "tool_choice": "required", "stream": True, "max_tokens": 90}
    stream = tiny.chat(ASKED, **asked)
    text = "".join(stream)
    assert text == ""
    assert stream.reply.tool_calls
    deltas = list(tiny.chat(ASKED, **asked).deltas())
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas]
    assert "".join(pieces) == "".join(call["function"]["arguments"] for call in stream.reply.tool_calls)
    with pytest.raises(InputError, match="would not have the calls") as caught:
        tiny.chat(ASKED, tools=TOOLS)
    assert "details=True" in caught.value.hint


def test_with_the_choice_none_no_tool_is_called(tiny):
    wanted = tiny.chat(ASKED, max_tokens=20)
    assert tiny.chat(ASKED, tools=TOOLS, tool_choice="none", max_tokens=20) == wanted
    grammar = Grammar.choices(["sea", "sky"])
    assert tiny.chat(ASKED, tools=TOOLS, tool_choice="none", grammar=grammar) in ("sea", "sky")


@pytest.fixture(scope="module", name="lm")
def _lm(smollm2):
    return lmworks.load("smollm2-135m-instruct").prepare()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "top_p": 0.95, "seed": 2}])
def test_the_real_model_writes_valid_json_whatever_it_is_asked(lm, options):
    for question in ("Who was Ada Lovelace? Answer in JSON.", "Sing a song.", "2 + 2?"):
        messages = [{"role": "user", "content": question}]
        for limit in (24, 120):
            reply = lm.chat(messages, grammar=Grammar.json_schema(PERSON), details=True, max_tokens=limit, **options)
            jsonschema.validate(json.loads(reply.text), PERSON)
            reply = lm.chat(messages, grammar=Grammar.json_object(), details=True, max_tokens=limit, **options)
            assert isinstance(json.loads(reply.text), dict)
            assert reply.stop_reason == "end" or len(reply.ids) > limit - 12  # cut by its limit, and not before
        assert re.fullmatch(r"[0-9]{4}", lm.chat(messages, grammar=Grammar.regex("[0-9]{4}"), **options))


@pytest.mark.slow
def test_the_real_model_chooses_among_choices_and_calls_tools(lm):
    messages = [{"role": "user", "content": "What colour is the sky? Answer with one word."}]
    assert lm.chat(messages, grammar=Grammar.choices(["blue", "green"])) == "blue"
    asked = [{"role": "user", "content": "How much is 12 plus 30?"}]
    reply = lm.chat(asked, tools=TOOLS, tool_choice="required", details=True, max_tokens=120)
    assert {call["function"]["name"] for call in reply.tool_calls} == {"add"}
    for call in reply.tool_calls:
        jsonschema.validate(json.loads(call["function"]["arguments"]), TOOLS[0]["function"]["parameters"])
