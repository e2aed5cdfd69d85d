"""What an answer must look like: ``response_format`` and ``tools`` of a request as a grammar, and its calls read back.

Keys that OpenAI's API does not have are refused; schemas are kept to, with ``strict`` or without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmworks.generate.grammar import Grammar
from lmworks.generate.grammar_matcher import CompiledGrammar
from lmworks.generate.tool_call_parser import Delta, ToolCallParser
from lmworks.generate.tool_calls import Tools
from lmworks.serve.api_errors import ApiError, about_field
from lmworks.serve.request import FinishReason
from lmworks.serve.token_choice import ChoiceSettings
from lmworks.text.tokenizer import Tokenizer

FORMAT_KEYS = {"text": {"type"}, "json_object": {"type"}, "json_schema": {"type", "json_schema"}}
SCHEMA_KEYS = {"name", "description", "schema", "strict"}
TOOL_KEYS, FUNCTION_KEYS = {"type", "function"}, {"name", "description", "parameters", "strict"}


@dataclass(frozen=True)
class Wanted:
    """What a request says of the form of its answers, in the words of /v1/chat/completions.

    Attributes:
        response_format: None: any text.
        tools: functions; None: there are none.
        tool_choice: which of them may be called; None: "auto".
        parallel: whether an answer may have several calls.
        format_field: of the request, which holds the format.
    """

    response_format: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel: bool = True
    format_field: str = "response_format"


class Structure:
    """The form of the answers of one request.

    Args:
        wanted: what the request says.
        tokenizer: of the model.
        vocab_size: V, the number of its logits.

    Attributes:
        tools: what the model may call; None: nothing.

    Raises:
        ApiError: it is malformed, or a schema cannot be compiled: with the field, and the place in the schema.
    """

    def __init__(self, wanted: Wanted, tokenizer: Tokenizer, vocab_size: int) -> None:
        answer = None if wanted.response_format is None else _format_grammar(wanted)
        with about_field(wanted.format_field):
            self._compiled = None if answer is None else CompiledGrammar(answer, tokenizer, vocab_size)
        self.tools = _tools(wanted, tokenizer, answer)
        if self.tools is not None and self.tools.grammar is not None:
            with about_field("tools"):
                self._compiled = CompiledGrammar(self.tools.grammar, tokenizer, vocab_size)

    def apply(self, settings: ChoiceSettings) -> ChoiceSettings:
        """Settings by which answers get this form."""
        matcher = None if self._compiled is None else self._compiled.matcher
        return replace(settings, grammar=matcher, keeps_special=self.tools is not None)

    def reader(self) -> AnswerReader:
        """Reads one answer."""
        return AnswerReader(None if self.tools is None else self.tools.parser())


class AnswerReader:
    """Takes an answer piece by piece: its text, and its calls of tools.

    Args:
        parser: a new one; None: all is text.
    """

    def __init__(self, parser: ToolCallParser | None) -> None:
        self._parser, self._text = parser, ""

    def feed(self, text: str) -> list[Delta]:
        """Take more of the answer; what is certain of it, as ``delta`` of OpenAI's chunks."""
        if self._parser is not None:
            return self._parser.feed(text)
        self._text += text
        return [{"content": text}] if text else []

    def finish(self) -> list[Delta]:
        """The answer is over: the rest of it."""
        return [] if self._parser is None else self._parser.finish()

    def message(self) -> dict[str, Any]:
        """All of it as a message of OpenAI's API, once it is over."""
        return {"role": "assistant", "content": self._text} if self._parser is None else self._parser.message()

    def finish_reason(self, reason: FinishReason | None) -> str | None:
        """Why it ended, in OpenAI's words."""
        has_calls = self._parser is not None and bool(self._parser.tool_calls)
        return "tool_calls" if has_calls and reason == "stop" else reason


def _format_grammar(wanted: Wanted) -> Grammar | None:
    """What a format demands; None: any text."""
    field, values = wanted.format_field, wanted.response_format
    assert values is not None
    described = values.get("json_schema")
    if keys := FORMAT_KEYS.get(str(values.get("type"))):
        _check_keys(values, keys, field, field)
        if isinstance(described, Mapping):
            _check_keys(described, SCHEMA_KEYS, f"{field}.json_schema", field)
            if "schema" not in described:
                raise ApiError(400, f"{field}.json_schema.schema is missing", field, "missing_parameter")
    with about_field(field):
        return Grammar.response_format(values, field)


def _tools(wanted: Wanted, tokenizer: Tokenizer, answer: Grammar | None) -> Tools | None:
    """What the model may call beside an answer of this grammar; None: nothing."""
    if wanted.tools is None:
        for field, value in (("tool_choice", wanted.tool_choice), ("parallel_tool_calls", not wanted.parallel)):
            if value:
                raise ApiError(400, f"{field} is for requests with tools", field, "invalid_value")
        return None
    _check_tools(wanted.tools)
    with about_field("tools", "tool_choice"):
        return Tools(tokenizer, wanted.tools, wanted.tool_choice or "auto", wanted.parallel, answer)


def _check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    for number, tool in enumerate(tools):
        _check_keys(tool, TOOL_KEYS, f"tools[{number}]", "tools")
        if isinstance(function := tool.get("function"), Mapping):
            _check_keys(function, FUNCTION_KEYS, f"tools[{number}].function", "tools")


def _check_keys(values: Mapping[str, Any], known: set[str], place: str, field: str) -> None:
    """Refuse keys that mean nothing here; those that are null count as not given."""
    for key, value in values.items():
        if key not in known and value is not None:
            message = f"{place}: there is no key {key[:80]!r} here: known are {', '.join(sorted(known))}"
            raise ApiError(400, message, field, "unknown_parameter")
