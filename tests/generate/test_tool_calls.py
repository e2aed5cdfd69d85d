"""Calls of tools: the format of a template, what a model may write, and the calls read back."""

from __future__ import annotations

import json

import pytest
from tiny_tokenizers import CHATML, GEMMA, byte_level
from tiny_writers import network_for, with_special

from lmworks.base.errors import InputError
from lmworks.generate.grammar import Grammar
from lmworks.generate.grammar_vocabulary import vocabulary_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete, stream
from lmworks.generate.tool_calls import Tools
from lmworks.generate.tool_formats import HERMES, Call, format_of
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.text import chat
from lmworks.text.tokenizer import Tokenizer

jsonschema = pytest.importorskip("jsonschema")

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
}
TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}},
    "required": ["root"],
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["left"],
        }
    },
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "plant-tree", "parameters": TREE}},
    {"type": "function", "function": {"name": "now"}},
]
TELLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
)
WRITES = {
    "hermes": "{{ '<tool_call>\n' + (call.function | tojson) + '\n</tool_call>' }}",
    "llama": (
        "{{ '{\"name\": \"' + call.function.name + '\", \"parameters\": ' + (call.function.arguments | tojson) + '}' }}"
    ),
    "mistral": "{{ '[TOOL_CALLS] [' + (call.function | tojson) + ']' }}",
}
TEMPLATES = {
    name: TELLS
    + "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.tool_calls %}"
    + "{% for call in message.tool_calls %}"
    + writes
    + "{% endfor %}{% else %}{{ message.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    for name, writes in WRITES.items()
}
CALLS = [Call("weather", {"city": 'Graz "</tool_call>', "days": 2}), Call("now", {})]
PROMPT = [40, 41, 42]


def tokenizer_of(name: str) -> Tokenizer:
    """A tokenizer whose template writes calls in this format."""
    tokenizer = byte_level(TEMPLATES.get(name, CHATML), end_ids=[4])
    return with_special(tokenizer, "[TOOL_CALLS]") if name == "mistral" else tokenizer


def allows(tokenizer: Tokenizer, tools: Tools, text: str) -> bool:
    """Whether a model may write a text and end there."""
    matcher, ids = vocabulary_of(tokenizer).start(tools.grammar)[0], tokenizer.encode(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize(("template", "wanted"), [*((TEMPLATES[name], name) for name in WRITES), (CHATML, None)])
def test_the_format_is_that_of_the_template(template, wanted):
    known = format_of(template)
    assert (known and known.name) == wanted


def test_formats_in_the_same_marks_that_are_no_json_are_not_taken_for_it():
    assert format_of(TEMPLATES["hermes"].replace("<tool_call>\n", "<tool_call>\n<function=")) is None
    assert format_of(TEMPLATES["mistral"].replace("[TOOL_CALLS] [", "[TOOL_CALLS]name[ARGS]")) is None


def test_a_mistral_template_says_whether_a_space_stands_before_the_list():
    assert format_of(TEMPLATES["mistral"]).begin == "[TOOL_CALLS] "
    assert format_of(TEMPLATES["mistral"].replace("CALLS] [", "CALLS][")).begin == "[TOOL_CALLS]"


@pytest.mark.parametrize("name", [*WRITES, "generic"])
def test_what_may_be_written_is_text_or_calls(name):
    tokenizer = tokenizer_of(name)
    written = format_of(tokenizer.chat_template) or HERMES
    tools = Tools(tokenizer, TOOLS)
    one, two = written.write([Call("weather", {"city": "Graz"})]), written.write(CALLS)
    assert allows(tokenizer, tools, one)
    assert allows(tokenizer, tools, "It is warm.")
    assert allows(tokenizer, tools, two) == written.repeats
    assert allows(tokenizer, tools, f"Let me see.{one}")
    assert not allows(tokenizer, tools, one.replace("weather", "whether"))
    assert not allows(tokenizer, tools, one.replace("city", "town"))
    assert not allows(tokenizer, tools, one[:-1])
    alone = Tools(tokenizer, TOOLS, parallel=False)
    assert allows(tokenizer, alone, one)
    assert not allows(tokenizer, alone, two)
    must = Tools(tokenizer, TOOLS, "required")
    assert allows(tokenizer, must, one)
    assert not allows(tokenizer, must, "It is warm.")
    named = Tools(tokenizer, TOOLS, {"type": "function", "function": {"name": "now"}})
    assert allows(tokenizer, named, written.write([Call("now", {})]))
    assert not allows(tokenizer, named, one)
    assert not allows(tokenizer, named, two)


@pytest.mark.parametrize("name", [*WRITES, "generic"])
def test_beside_calls_an_answer_may_be_json_of_a_schema(name):
    tokenizer = tokenizer_of(name)
    written = format_of(tokenizer.chat_template) or HERMES
    answer = Grammar.json_schema({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
    if name == "llama":
        with pytest.raises(InputError, match="cannot be told from an answer in JSON"):
            Tools(tokenizer, TOOLS, answer=answer)
        tokenizer = with_special(tokenizer_of(name), written.optional)
    tools = Tools(tokenizer, TOOLS, answer=answer)
    call, answered = written.write([Call("now", {})]), '{"name": "now", "parameters": {}}'
    marked = f"{written.optional}{call}"
    assert allows(tokenizer, tools, marked)
    assert allows(tokenizer, tools, answered)
    assert not allows(tokenizer, tools, f"{answered}{marked}")
    assert not allows(tokenizer, tools, "It is warm.")
    assert not allows(tokenizer, tools, '{"age": 3}')
    for text, content, names in ((marked, "", ["now"]), (answered, answered, [])):
        parser = tools.parser()
        deltas = [delta for sign in text for delta in parser.feed(sign)] + parser.finish()
        assert "".join(delta.get("content", "") for delta in deltas) == parser.content == content
        assert [one["function"]["name"] for one in parser.tool_calls] == names


@pytest.mark.parametrize("name", [*WRITES, "generic"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "plant-tree"}}])
def test_a_random_model_writes_valid_calls_alone(name, choice):
    tokenizer = tokenizer_of(name)
    tools = Tools(tokenizer, TOOLS, choice)
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in TOOLS}
    network = network_for(tokenizer)
    for seed in range(4):
        options = SamplingSettings(temperature=2.0, seed=seed, max_tokens=260)
        (reply,) = complete(
            TorchStepper(network), tokenizer, [tokenizer.encode("The sky")], options, grammar=tools.grammar
        )
        reply = tools.read(reply)
        assert reply.text == ""
        assert reply.tool_calls
        for call in reply.tool_calls:
            function = call["function"]
            jsonschema.validate(json.loads(function["arguments"]), schemas[function["name"]])
            assert choice == "required" or function["name"] == "plant-tree"
            assert len(call["id"]) == 9
        assert len({call["id"] for call in reply.tool_calls}) == len(reply.tool_calls)


@pytest.mark.parametrize("name", [*WRITES, "generic"])
def test_a_stream_of_a_random_model_gives_its_calls_as_they_come(name):
    """With the choice auto the mark of a call is given, since a random model would not write it."""
    tokenizer = tokenizer_of(name)
    tools = Tools(tokenizer, TOOLS)
    stepper = TorchStepper(network_for(tokenizer))
    options = SamplingSettings(temperature=1.5, seed=1, max_tokens=200)
    for asked in (tools, Tools(tokenizer, TOOLS, "required")):

        def answer(asked=asked):
            return asked.stream(stream(stepper, tokenizer, PROMPT, options, grammar=asked.grammar))

        written = answer()
        deltas = list(written.deltas())
        reply = written.reply
        assert "".join(delta.get("content", "") for delta in deltas) == reply.text
        assert "".join(answer()) == reply.text
        assert "tool_call" not in reply.text
        assert "[TOOL_CALLS]" not in reply.text
        calls = [part for delta in deltas for part in delta.get("tool_calls", ())]
        for number, call in enumerate(reply.tool_calls or ()):
            parts = [part["function"]["arguments"] for part in calls if part["index"] == number]
            assert "".join(parts) == call["function"]["arguments"]
            assert len(parts) > 1
            assert json.loads("".join(parts)) is not None
        assert reply.tool_calls or asked is tools
        (whole,) = complete(stepper, tokenizer, [PROMPT], options, grammar=asked.grammar)
        whole = asked.read(whole)
        assert (whole.text, len(whole.tool_calls or ())) == (reply.text, len(reply.tool_calls or ()))


def test_without_a_choice_earlier_calls_stay_and_no_tool_is_told():
    asked = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": "{}"}}]},
        {"role": "tool", "content": "noon"},
    ]
    for name in ("generic", "hermes"):
        tokenizer = tokenizer_of(name)
        tools = Tools(tokenizer, TOOLS, "none")
        assert (tools.grammar, tools.of_template) == (None, None)
        text = chat.render(tokenizer, tools.messages(asked), True, tools.of_template)
        assert "weather" not in text
        assert '{"name": "now", "arguments": {}}' in text
        assert tools.parser().feed("<tool_call>") == [{"content": "<tool_call>"}]


def test_a_model_without_a_chat_template_knows_no_tools():
    with pytest.raises(InputError, match="no chat template") as caught:
        Tools(byte_level(), TOOLS)
    assert caught.value.place == "tools"


def test_a_template_without_tools_is_told_of_them_in_the_system_message():
    tokenizer = tokenizer_of("generic")
    tools = Tools(tokenizer, TOOLS)
    assert tools.of_template is None
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}},
                {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "warm"},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
    ]
    told = tools.messages(asked)
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert told[0]["content"].startswith("Be brief.\n\nYou can call functions.")
    assert all(json.dumps(tool["function"]) in told[0]["content"] for tool in TOOLS)
    assert told[2]["content"] == HERMES.write([Call("weather", {"city": "Graz"}), Call("now", {})])
    assert told[3]["content"] == "<tool_response>\nwarm\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
    assert "Be brief." in chat.render(tokenizer, told, reply=True)


def test_texts_in_other_scripts_are_told_as_they_are():
    described = {"name": "weather", "description": "Das Wetter in 東京 für morgen"}
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "東京"}}}
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    tools = Tools(tokenizer_of("generic"), [{"type": "function", "function": described}])
    told = tools.messages([*messages, {"role": "tool", "tool_call_id": "a", "content": "warm"}])
    assert described["description"] in told[0]["content"]
    assert "東京" in told[2]["content"]


def test_a_template_that_takes_tools_is_given_them():
    tokenizer = tokenizer_of("hermes")
    tools = Tools(tokenizer, TOOLS)
    messages = [{"role": "user", "content": "Weather?"}]
    assert tools.messages(messages) == messages
    text = chat.render(tokenizer, messages, True, tools.of_template)
    assert all(json.dumps(tool) in text for tool in TOOLS)
    ids, _ = chat.encode(tokenizer, messages, True, tools=tools.of_template)
    assert tokenizer.decode(ids, skip_special=False) == text


def test_where_a_template_refuses_a_system_message_the_first_question_has_it():
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tools = Tools(byte_level(refuses + GEMMA), TOOLS)
    (message,) = tools.messages([{"role": "user", "content": "Weather?"}])
    assert message["role"] == "user"
    assert message["content"].startswith("You can call functions.")
    assert message["content"].endswith("Weather?")


@pytest.mark.parametrize(
    ("tools", "choice", "place"),
    [
        ([], "auto", "tools"),
        (["weather"], "auto", "tools, entry 1"),
        ([{"type": "retrieval"}], "auto", "tools[0]"),
        ([TOOLS[0], {"type": "function", "function": {"name": "a b"}}], "auto", "tools[1].function.name"),
        ([{"type": "function", "function": {"name": "a", "parameters": "x"}}], "auto", "tools[0].function.parameters"),
        ([TOOLS[0], TOOLS[0]], "auto", "tools"),
        (
            [{"function": {"name": "a", "parameters": {"type": "array"}}}],
            "auto",
            "tools[0].function.parameters: #/type",
        ),
        (
            [TOOLS[0], {"function": {"name": "a", "parameters": {"properties": {"x": {"type": "strng"}}}}}],
            "auto",
            "tools[1].function.parameters: #/properties/x",
        ),
        (TOOLS, "always", "tool_choice"),
        (TOOLS, {"type": "function", "function": {"name": "whether"}}, "tool_choice"),
        (TOOLS, {"type": "allowed_tools"}, "tool_choice"),
    ],
)
def test_what_is_wrong_with_tools_is_named_by_its_place(tools, choice, place):
    with pytest.raises(InputError) as caught:
        Tools(byte_level(CHATML), tools, choice)
    assert caught.value.place == place
