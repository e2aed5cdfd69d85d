"""Tools that a model may call, in OpenAI's form: what it is told of them, what it may write, its calls read back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmworks.base.errors import InputError, as_list
from lmworks.data.prompts import SYSTEM_ROLES
from lmworks.generate.grammar import JSON_STYLE, Grammar, with_style
from lmworks.generate.grammar_vocabulary import vocabulary_of
from lmworks.generate.schema_parts import as_part
from lmworks.generate.text import Reply, TextStream
from lmworks.generate.tool_call_parser import Delta, ToolCallParser
from lmworks.generate.tool_formats import HERMES, Call, format_of
from lmworks.text import chat
from lmworks.text.messages import Message, validate
from lmworks.text.tokenizer import Tokenizer

EXAMPLE = '{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {...}}}}'
CHOICES = 'write "auto", "none", "required" or {"type": "function", "function": {"name": "..."}}'
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
INSTRUCTION = """\
You can call functions. Each line describes one, with a JSON schema of its arguments:
{functions}
A call is written so, alone or after a short text; several calls are written one after another, and nothing after them:
{example}
The results come in the next message. Where no function helps, answer in {form}."""


class Tools:
    """The tools of one answer.

    Args:
        tokenizer: of the model, with its chat template.
        tools: functions in OpenAI's form, one or more.
        tool_choice: OpenAI's: "auto", "none", "required", or a function that must be called. With "none" the model is
            not told of the tools, and earlier calls and results stay in the conversation.
        parallel: whether an answer may have several calls.
        answer: the JSON that the model may write instead of calls, with the choice "auto"; None: any text.

    Attributes:
        grammar: what the model may write; None with the choice "none": anything.
        of_template: what the chat template is told; None where the system message says it.

    Raises:
        InputError: a tool is malformed, the choice is none of them, a schema cannot be compiled, the model has no chat
            template, or writes calls so that they cannot be told from JSON.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel: bool = True,
        answer: Grammar | None = None,
    ) -> None:
        if tokenizer.chat_template is None:
            raise InputError("the model has no chat template, so it knows no tools", "tools", chat.NO_TEMPLATE)
        self._tools = [_checked(tool, f"tools[{number}]") for number, tool in enumerate(_listed(tools))]
        functions = {tool["function"]["name"]: tool["function"] for tool in self._tools}
        if len(functions) < len(self._tools):
            raise InputError("two functions have the same name", "tools", "give each a name of its own")
        self._names = _chosen(tool_choice, list(functions))
        self._answer = answer if tool_choice == "auto" else None
        known = format_of(tokenizer.chat_template)
        self._tokenizer, self._format, self._has_own_format = tokenizer, known or HERMES, known is not None
        self.of_template = self._tools if known is not None and self._names else None
        schemas = {
            name: _arguments_schema(function, f"tools[{number}].function.parameters")
            for number, (name, function) in enumerate(functions.items())
        }
        self.grammar: Grammar | None = None
        if self._names:
            self.grammar = self._grammar(schemas, tool_choice, parallel)
            self._check(self.grammar, schemas)

    def _grammar(self, schemas: Mapping[str, Any], tool_choice: str | Mapping[str, Any], parallel: bool) -> Grammar:
        """What the model may write, by the schemas of the functions' arguments."""
        definitions = {name: as_part(schemas[name], f"#/$defs/{name}") for name in self._names}
        text = self._format.grammar(
            {name: {"$ref": f"#/$defs/{name}"} for name in self._names},
            {"x-guidance": JSON_STYLE, "$defs": definitions},
            self._tokenizer.specials,
            may_speak=tool_choice == "auto",
            several=parallel and not isinstance(tool_choice, Mapping),
            answer=None if self._answer is None else with_style(json.loads(self._answer.source)),
        )
        return Grammar.lark(text, "tools")

    def _check(self, grammar: Grammar, schemas: Mapping[str, Any]) -> None:
        """Compile the grammar, and where that fails name the function that does not compile alone."""
        vocabulary = vocabulary_of(self._tokenizer)
        try:
            vocabulary.start(grammar)
        except InputError:
            for number, schema in enumerate(schemas.values()):
                vocabulary.start(Grammar.json_schema(schema, f"tools[{number}].function.parameters"))
            raise

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """A conversation that tells of the tools, where the chat template does not: with a system message, and with
        earlier calls and their results as text.

        Raises:
            InputError: a message is malformed.
        """
        validate(messages)
        if self._has_own_format:
            return list(messages)
        told: list[Message] = []
        for message in messages:
            if message["role"] == "tool":
                result = f"<tool_response>\n{message['content']}\n</tool_response>"
                before = told[-1] if told else {}
                if before.get("role") == "user" and before["content"].endswith("</tool_response>"):
                    told[-1] = {**before, "content": f"{before['content']}\n{result}"}
                else:
                    told.append({"role": "user", "content": result})
            elif message.get("tool_calls"):
                calls = self._format.write([_call_of(call) for call in message["tool_calls"]])
                spoken = f"{message['content']}\n" if message.get("content") else ""
                told.append({"role": message["role"], "content": f"{spoken}{calls}"})
            else:
                told.append(message)
        return self._with_instruction(told) if self._names else told

    def _with_instruction(self, messages: list[Message]) -> list[Message]:
        """The conversation with what a model is told of its tools: in the system message, or, where the template
        refuses one, before the first question."""
        functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in self._tools)
        example = self._format.write([Call("NAME", {"ARGUMENT": "VALUE"})])
        form = "plain text" if self._answer is None else "JSON"
        instruction = INSTRUCTION.format(functions=functions, example=example, form=form)
        system, others = {"role": "system", "content": instruction}, messages
        if messages[0]["role"] in SYSTEM_ROLES:
            system, others = {**messages[0], "content": f"{messages[0]['content']}\n\n{instruction}"}, messages[1:]
        try:
            chat.render(self._tokenizer, [system, *others], reply=True)
        except InputError:
            if others and others[0]["role"] == "user":
                return [{**others[0], "content": f"{system['content']}\n\n{others[0]['content']}"}, *others[1:]]
        return [system, *others]

    def parser(self) -> ToolCallParser:
        """A parser of one answer, whose pieces have special tokens by their names (``ReplyBuilder`` with
        ``keep_special``)."""
        return ToolCallParser(self._format, self._names, only_first=self._answer is not None)

    def read(self, reply: Reply) -> Reply:
        """A reply with its calls, and with the text outside of them alone."""
        parser = self.parser()
        parser.feed(reply.text)
        parser.finish()
        return _read(reply, parser)

    def stream(self, pieces: TextStream) -> ToolStream:
        """An answer that is being written, its calls apart from its text."""
        return ToolStream(pieces, self.parser())


class ToolStream(TextStream):
    """The text of an answer outside of its calls, piece by piece. ``reply`` has the calls once it is over.

    Args:
        pieces: the answer as the model writes it.
        parser: a new one.
    """

    def __init__(self, pieces: TextStream, parser: ToolCallParser) -> None:
        self._written, self._parser = pieces, parser
        texts = (delta["content"] for delta in self.deltas() if "content" in delta)
        super().__init__(texts, self._read)

    def deltas(self) -> Iterator[Delta]:
        """All of it instead of the text alone: a ``delta`` of OpenAI's API for each piece, of text or of a call."""
        for piece in self._written:
            yield from self._parser.feed(piece)
        yield from self._parser.finish()
        self.reply = self._read()

    def _read(self) -> Reply:
        assert self._written.reply is not None  # all pieces were taken
        return _read(self._written.reply, self._parser)


def _read(reply: Reply, parser: ToolCallParser) -> Reply:
    """A reply with what a parser made of its text."""
    return replace(reply, text=parser.content, tool_calls=parser.tool_calls or None)


def _listed(tools: Any) -> list[Mapping[str, Any]]:
    entries = as_list(tools, Mapping, "tools", f"give a list of tools, each as {EXAMPLE}")
    if not entries:
        raise InputError("there is no tool", "tools", f"give one or more, each as {EXAMPLE}; or leave tools out")
    return entries


def _checked(tool: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A tool as the chat template reads it."""
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        raise InputError("not a function", place, f"write it as {EXAMPLE}")
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        hint = "name it with at most 64 letters, digits, _ and -"
        raise InputError(f"{name!r} is no name of a function", f"{place}.function.name", hint)
    if not isinstance(function.get("parameters") or {}, Mapping):
        hint = 'give a JSON schema of the arguments, as in {"type": "object", "properties": {...}}'
        raise InputError("the parameters are no JSON schema", f"{place}.function.parameters", hint)
    return {"type": "function", "function": dict(function)}


def _chosen(tool_choice: Any, names: list[str]) -> list[str]:
    """The functions that may be called; none: none may."""
    if isinstance(tool_choice, Mapping):
        function = tool_choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if tool_choice.get("type") != "function" or name is None:
            raise InputError(f"{dict(tool_choice)} is no choice of a tool", "tool_choice", CHOICES)
        if name not in names:
            raise InputError(f"there is no function {name!r}", "tool_choice", f"choose one of: {', '.join(names)}")
        return [name]
    if tool_choice not in ("auto", "none", "required"):
        raise InputError(f"{tool_choice!r} is no choice of a tool", "tool_choice", CHOICES)
    return [] if tool_choice == "none" else names


def _arguments_schema(function: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The JSON schema of a function's arguments: an object without further keys, where it does not say otherwise."""
    schema = dict(function.get("parameters") or {})
    if schema.setdefault("type", "object") != "object":
        fault = f"the arguments of a function are an object, and the schema is of type {schema['type']!r}"
        raise InputError(fault, f"{place}: #/type", 'write "type": "object", and the arguments as its properties')
    if not any(key in schema for key in ("$ref", "anyOf", "oneOf", "allOf", "patternProperties")):
        schema.setdefault("properties", {})
        schema.setdefault("additionalProperties", False)
    return schema


def _call_of(call: Mapping[str, Any]) -> Call:
    """A call of an earlier message."""
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            fault = f"the arguments of {function.get('name')!r} are not JSON ({error})"
            raise InputError(fault, "messages", "write the arguments as a JSON object") from error
    return Call(function.get("name", ""), arguments)
