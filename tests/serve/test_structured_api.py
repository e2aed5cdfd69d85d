"""response_format and tools over a socket: a model that writes at random keeps to the schema, and calls the tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_server import NAME, open_tiny, running

import lmworks

openai = pytest.importorskip("openai")
jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")
pytest.importorskip("uvicorn")

MESSAGES = [{"role": "user", "content": "Who are you?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": [1, 2]}}, "required": ["a", "b"]}
ADD = {"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": NUMBERS}}
NOW = {"type": "function", "function": {"name": "now"}}
FLAT = [{"type": "function", **tool["function"]} for tool in (ADD, NOW)]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    return open_tiny(tmp_path_factory.mktemp("model"), context=4096)


@pytest.fixture(name="client", scope="module")
def _client(model):
    with running({NAME: model}) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields: Any) -> Any:
    known = {"model": NAME, "messages": MESSAGES, "temperature": 1.5, "max_tokens": 150}
    return client.chat.completions.create(**{**known, **fields})


def check_calls(calls: Any, names: set[str]) -> None:
    """Calls of functions that there are, with arguments of their schemas."""
    assert calls
    for call in calls:
        assert call.type == "function"
        assert call.id
        assert call.function.name in names
        arguments = json.loads(call.function.arguments)
        jsonschema.validate(arguments, NUMBERS if call.function.name == "add" else {"maxProperties": 0})


def joined(chunks: Any) -> tuple[str, list[dict[str, Any]], str]:
    """Text, calls and the reason of the end of a stream with one answer."""
    text, calls, reason = "", list[dict[str, Any]](), None
    for chunk in chunks:
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        for part in choice.delta.tool_calls or ():
            if part.index == len(calls):
                calls.append({"id": part.id, "name": part.function.name, "arguments": ""})
            calls[part.index]["arguments"] += part.function.arguments or ""
        assert reason is None
        reason = choice.finish_reason
    return text, calls, str(reason)


@pytest.mark.parametrize("limit", [150, 30])
def test_answers_are_json_of_the_schema_also_where_they_are_cut(client, limit):
    answer = ask(client, response_format=PERSON, n=8, seed=3, max_tokens=limit)
    texts = [choice.message.content for choice in answer.choices]
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len({*texts}) > 4
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    streamed = ["" for _ in texts]
    for chunk in ask(client, response_format=PERSON, n=8, seed=3, max_tokens=limit, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_any_object_and_any_text_may_be_asked_for(client, model):
    for seed in range(4):
        answer = ask(client, response_format={"type": "json_object"}, seed=seed)
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    plain = ask(client, response_format={"type": "text"}, seed=1).choices[0].message.content
    assert plain == ask(client, seed=1).choices[0].message.content


def test_a_seed_draws_what_the_library_draws(client, model):
    expected = model.chat(
        MESSAGES, grammar=lmworks.Grammar.json_schema(SCHEMA), max_tokens=150, temperature=1.5, seed=5
    )
    assert ask(client, response_format=PERSON, seed=5).choices[0].message.content == expected


def test_required_calls_are_those_of_the_tools(client):
    for seed in range(4):
        (choice,) = ask(client, tools=[ADD, NOW], tool_choice="required", seed=seed).choices
        check_calls(choice.message.tool_calls, {"add", "now"})
        assert choice.message.content is None
        assert choice.finish_reason in ("tool_calls", "length")
    named = {"type": "function", "function": {"name": "add"}}
    (choice,) = ask(client, tools=[ADD, NOW], tool_choice=named, parallel_tool_calls=False, seed=9).choices
    assert [call.function.name for call in choice.message.tool_calls] == ["add"]
    assert choice.finish_reason == "tool_calls"


def test_a_stream_has_the_calls_as_they_come(client):
    fields = {"tools": [ADD, NOW], "tool_choice": "required", "seed": 2}
    (choice,) = ask(client, **fields).choices
    text, calls, reason = joined(ask(client, **fields, stream=True))
    assert text == ""
    assert [(call["name"], call["arguments"]) for call in calls] == [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls
    ]
    assert all(call["id"] for call in calls)
    assert reason == choice.finish_reason


def test_with_auto_and_none_texts_are_texts(client):
    for fields in ({"tool_choice": "none"}, {"tool_choice": "auto"}, {}):
        (choice,) = ask(client, tools=[ADD], seed=4, max_tokens=20, **fields).choices
        assert choice.message.content
        assert choice.message.tool_calls is None
        assert choice.finish_reason in ("stop", "length")


def test_with_a_format_and_tools_an_answer_is_a_call_or_json_of_the_schema(client):
    """As OpenAI has it. The mark of a call is one token of a vocabulary of some hundred, so that both are drawn."""
    contents, calls = [], []
    for seed in range(12):
        fields = {"response_format": PERSON, "tools": [ADD, NOW], "seed": seed, "temperature": 2, "n": 8}
        for choice in ask(client, **fields).choices:
            if choice.message.tool_calls:
                check_calls(choice.message.tool_calls, {"add", "now"})
                assert choice.message.content is None
                calls.append(choice)
            else:
                jsonschema.validate(json.loads(choice.message.content), SCHEMA)
                contents.append(choice)
    assert contents
    assert calls
    assert {choice.finish_reason for choice in contents} <= {"stop", "length"}
    assert {choice.finish_reason for choice in calls} <= {"tool_calls", "length"}


def test_a_format_beside_tools_is_streamed_as_it_comes_and_holds_where_none_is_called(client):
    for choice in ("auto", "none"):
        fields = {"response_format": PERSON, "tools": [ADD], "tool_choice": choice, "seed": 3}
        (whole,) = ask(client, **fields).choices
        text, calls, reason = joined(ask(client, **fields, stream=True))
        assert (text, reason) == (whole.message.content or "", whole.finish_reason)
        assert len(calls) == len(whole.message.tool_calls or [])
    jsonschema.validate(json.loads(text), SCHEMA)
    (must,) = ask(client, response_format=PERSON, tools=[NOW], tool_choice="required", seed=3).choices
    check_calls(must.message.tool_calls, {"now"})


def test_calls_and_their_results_are_read(client):
    call = ask(client, tools=[NOW], tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "noon"}
    answer = ask(client, messages=[*MESSAGES, call, result], tools=[NOW], tool_choice="none", max_tokens=5)
    alone = ask(client, tools=[NOW], tool_choice="none", max_tokens=5)
    assert answer.usage.prompt_tokens > alone.usage.prompt_tokens


def test_responses_have_schemas_and_functions_too(client):
    answer = client.responses.create(
        model=NAME,
        input="Who?",
        temperature=1.5,
        max_output_tokens=150,
        text={"format": {"type": "json_schema", "name": "person", "schema": SCHEMA}},
    )
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)
    fields = {"model": NAME, "input": "Add.", "tools": FLAT, "tool_choice": "required", "max_output_tokens": 150}
    answer = client.responses.create(**fields, temperature=0)
    assert {item.type for item in answer.output} == {"function_call"}
    for item in answer.output:
        jsonschema.validate(json.loads(item.arguments), NUMBERS if item.name == "add" else {"maxProperties": 0})
    events = list(client.responses.create(**fields, temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == "".join(item.arguments for item in answer.output)
    ended = [event.item for event in events if event.type == "response.output_item.done"]
    assert [(item.name, item.arguments) for item in ended] == [(item.name, item.arguments) for item in answer.output]
    again = [*answer.output, {"type": "function_call_output", "call_id": answer.output[0].call_id, "output": "noon"}]
    named = {"type": "function", "name": "now"}
    second = client.responses.create(
        **{**fields, "input": [{"role": "user", "content": "Add."}, *again], "tool_choice": named}
    )
    assert [item.name for item in second.output] == ["now"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format", "no format 'xml'"),
        ({"response_format": {"type": "json_object", "depth": 3}}, "response_format", "no key 'depth'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format",
            "schema is missing",
        ),
        (
            {"response_format": {**PERSON, "json_schema": {"name": "x", "schema": SCHEMA, "strength": 1}}},
            "response_format",
            "no key 'strength'",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"properties": {"age": {"not": {"type": "null"}}}}},
                }
            },
            "response_format",
            "#/properties/age",
        ),
        ({"response_format": PERSON, "max_tokens": 3}, "max_tokens", "no text of the grammar"),
        (
            {
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}},
                "tools": [ADD],
            },
            "response_format",
            "cannot be compiled",
        ),
        ({"tools": [{"type": "function"}]}, "tools", "not a function"),
        ({"tools": [{"type": "retrieval"}]}, "tools", "not a function"),
        ({"tools": [{**ADD, "cost": 3}]}, "tools", "no key 'cost'"),
        ({"tools": [ADD, ADD]}, "tools", "same name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]},
            "tools",
            "tools[0].function.parameters",
        ),
        ({"tools": []}, "tools", "at least 1"),
        ({"tool_choice": "required"}, "tool_choice", "requests with tools"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "requests with tools"),
        ({"tools": [ADD], "tool_choice": "sometimes"}, "tool_choice", "no choice of a tool"),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "sub"}}},
            "tool_choice",
            "choose one of: add",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_field_and_the_place(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param
    assert words in str(refused.value)
