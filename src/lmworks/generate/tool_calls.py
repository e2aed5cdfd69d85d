"""Tools that a model may call, in OpenAI's form: what it is told of them, what it may write, its calls read back."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmworks.base.errors import InputError, as_list
from lmworks.data.prompts import SYSTEM_ROLES
from lmworks.generate.grammar import JSON_STYLE, Grammar
from lmworks.generate.grammar_vocabulary import vocabulary_of
from lmworks.generate.schema_parts import as_part
from lmworks.generate.text import Reply
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
The results come in the next message. Where no function helps, answer in plain text."""


class Tools:
    """The tools of one answer.

    Args:
        tokenizer: of the model, with its chat template.
        tools: functions in OpenAI's form, one or more.
        tool_choice: OpenAI's: "auto", "required", or a function that must be called. With "none" there are no tools.
        parallel: whether an answer may have several calls.

    Attributes:
        grammar: what the model may write.
        of_template: what the chat template is told; None where the system message says it.

    Raises:
        InputError: a tool is malformed, the choice is none of them, or the schema of arguments cannot be compiled.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel: bool = True,
    ) -> None:
        self._tools = [_checked(tool, f"tools[{number}]") for number, tool in enumerate(_listed(tools))]
        functions = {tool["function"]["name"]: tool["function"] for tool in self._tools}
        if len(functions) < len(self._tools):
            raise InputError("two functions have the same name", "tools", "give each a name of its own")
        chosen = _chosen(tool_choice, list(functions))
        schemas = {name: _arguments_schema(function) for name, function in functions.items()}
        known = format_of(tokenizer.chat_template)
        self._tokenizer, self._format = tokenizer, known or HERMES
        self.of_template = self._tools if known is not None else None
        several = parallel and not isinstance(tool_choice, Mapping)
        text = self._format.grammar(
            {name: {"$ref": f"#/$defs/{name}"} for name in chosen},
            {
                "x-guidance": JSON_STYLE,
                "$defs": {name: as_part(schemas[name], f"#/$defs/{name}") for name in chosen},
            },
            tokenizer.specials,
            may_speak=tool_choice == "auto",
            several=several,
        )
        self.grammar = Grammar.lark(text, "tools")
        self._check(schemas)

    def _check(self, schemas: Mapping[str, Any]) -> None:
        """Compile the grammar, and where that fails name the function that does not compile alone."""
        vocabulary = vocabulary_of(self._tokenizer)
        try:
            vocabulary.matcher(self.grammar)
        except InputError:
            for number, schema in enumerate(schemas.values()):
                vocabulary.matcher(Grammar.json_schema(schema, f"tools[{number}].function.parameters"))
            raise

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """A conversation that tells of the tools, where the chat template does not: with a system message, and with
        earlier calls and their results as text.

        Raises:
            InputError: a message is malformed.
        """
        validate(messages)
        if self.of_template is not None:
            return list(messages)
        functions = "\n".join(json.dumps(tool["function"]) for tool in self._tools)
        example = self._format.write([Call("NAME", {"ARGUMENT": "VALUE"})])
        instruction = INSTRUCTION.format(functions=functions, example=example)
        told: list[Message] = [{"role": "system", "content": instruction}]
        for number, message in enumerate(messages):
            before = told[-1]
            if message["role"] in SYSTEM_ROLES and number == 0:
                told[0] = {**message, "content": f"{message['content']}\n\n{instruction}"}
            elif message["role"] == "tool":
                result = f"<tool_response>\n{message['content']}\n</tool_response>"
                if before["role"] == "user" and before["content"].endswith("</tool_response>"):
                    told[-1] = {**before, "content": f"{before['content']}\n{result}"}
                else:
                    told.append({"role": "user", "content": result})
            elif message.get("tool_calls"):
                calls = self._format.write([_call_of(call) for call in message["tool_calls"]])
                spoken = f"{message['content']}\n" if message.get("content") else ""
                told.append({"role": message["role"], "content": f"{spoken}{calls}"})
            else:
                told.append(message)
        return self._with_system(told)

    def _with_system(self, messages: list[Message]) -> list[Message]:
        """The conversation; where the template refuses a system message, with that before the first question."""
        try:
            chat.render(self._tokenizer, messages, reply=True)
        except InputError:
            system, *others = messages
            if others and others[0]["role"] == "user":
                return [{**others[0], "content": f"{system['content']}\n\n{others[0]['content']}"}, *others[1:]]
        return messages

    def read(self, reply: Reply) -> Reply:
        """A reply with its calls, and with the text before them alone. A reply that was cut off keeps its text."""
        text = reply.text
        if reply.stop_reason != "stop":  # by ids, since texts leave out special tokens
            ids = [token for token in reply.ids if token not in self._tokenizer.end_ids]
            text = self._tokenizer.decode(ids, skip_special=False)
        spoken, calls = self._format.read(text)
        if not calls:
            return reply
        return replace(reply, text=spoken, tool_calls=[_as_openai(call) for call in calls])


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
    """The functions that may be called."""
    if isinstance(tool_choice, Mapping):
        function = tool_choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if tool_choice.get("type") != "function" or name is None:
            raise InputError(f"{dict(tool_choice)} is no choice of a tool", "tool_choice", CHOICES)
        if name not in names:
            raise InputError(f"there is no function {name!r}", "tool_choice", f"choose one of: {', '.join(names)}")
        return [name]
    if tool_choice not in ("auto", "required"):
        raise InputError(f"{tool_choice!r} is no choice of a tool", "tool_choice", CHOICES)
    return names


def _arguments_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a function's arguments: an object without further keys, where it does not say otherwise."""
    schema = dict(function.get("parameters") or {})
    schema.setdefault("type", "object")
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


def _as_openai(call: Call) -> dict[str, Any]:
    """A call as OpenAI's API gives it. Its id has nine letters and digits, which Mistral's templates demand."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": secrets.token_hex(5)[:9], "type": "function", "function": function}
