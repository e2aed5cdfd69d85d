"""What a generated text must look like: a JSON schema, any JSON object, a regular expression, a Lark grammar, a choice.

A grammar is data, and is made without any library. llguidance (https://github.com/guidance-ai/llguidance) compiles it,
and says of each token whether it may come next; it is imported only then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from lmworks.base.errors import InputError, as_list, check_type
from lmworks.generate.schema_parts import innermost_fault

Kind = Literal["json", "regex", "lark", "choices"]

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written: as Python's json.dumps does it, in one line. Small models would write spaces without end."""
INSTALL = "pip install 'lmworks[grammar]'"
FORMATS = 'write {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {"schema": {...}}}'
HINTS = {
    "json": "leave that part out or write it otherwise; docs/structured_output.md lists what a schema may have",
    "regex": "correct the expression; its syntax is that of Rust's regex crate, without lookarounds",
    "lark": "correct the grammar; docs/structured_output.md says what of Lark's syntax is read",
    "choices": "give other texts",
}
SPECIAL_SIGNS = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
"""Characters that mean something in Rust's regular expressions."""


@dataclass(frozen=True)
class Grammar:
    """What a text must look like, for ``generate(prompt, grammar=...)``. Made by the class methods.

    Attributes:
        kind: what ``source`` is.
        source: the JSON schema as JSON, the regular expression, the Lark grammar, or the choices as a JSON list.
        place: where it came from, for errors.
    """

    kind: Kind
    source: str
    place: str = field(default="grammar", compare=False)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, place: str = "grammar") -> Grammar:
        """JSON that a schema describes (draft 2020-12), its keys in the schema's order.

        Raises:
            InputError: the schema is no JSON object.
        """
        check_type(schema, (Mapping, bool), place, 'give a JSON schema, as in {"type": "object", "properties": {...}}')
        try:
            return cls("json", json.dumps(schema, default=_as_dictionary, allow_nan=False), place)
        except (TypeError, ValueError, RecursionError) as error:
            hint = "give dictionaries, lists and texts"
            raise InputError(f"the schema is not JSON ({error})", place, hint) from error

    @classmethod
    def json_object(cls, place: str = "grammar") -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"}, place)

    @classmethod
    def response_format(cls, wanted: Mapping[str, Any], place: str = "response_format") -> Grammar | None:
        """What ``response_format`` of OpenAI's API asks for; None: any text.

        Args:
            wanted: ``{"type": "text"}``, ``{"type": "json_object"}`` or ``{"type": "json_schema", "json_schema":
                {"name": ..., "schema": {...}}}``. Schemas are always kept to, with ``strict`` or without.
            place: for errors.

        Raises:
            InputError: it is none of these.
        """
        check_type(wanted, Mapping, place, FORMATS)
        kind, described = wanted.get("type"), wanted.get("json_schema")
        if kind == "text":
            return None
        if kind == "json_object":
            return cls.json_object(place)
        if kind != "json_schema":
            raise InputError(f"there is no format {kind!r}", f"{place}.type", FORMATS)
        check_type(described, Mapping, f"{place}.json_schema", FORMATS)
        assert isinstance(described, Mapping)
        return cls.json_schema(described.get("schema", {"type": "object"}), f"{place}.json_schema.schema")

    @classmethod
    def regex(cls, expression: str, place: str = "grammar") -> Grammar:
        """A text that a regular expression matches as a whole, in the syntax of Rust's regex crate."""
        check_type(expression, str, place, "give the expression as a text")
        return cls("regex", expression, place)

    @classmethod
    def lark(cls, grammar: str, place: str = "grammar") -> Grammar:
        """A text of a context-free grammar in Lark's syntax, with a rule ``start``."""
        check_type(grammar, str, place, "give the grammar as a text")
        return cls("lark", grammar, place)

    @classmethod
    def choices(cls, texts: Sequence[str], place: str = "grammar") -> Grammar:
        """One of several texts.

        Raises:
            InputError: there is none, or one is empty.
        """
        texts = as_list(texts, str, place, "give a list of texts")
        if not texts or not all(texts):
            raise InputError("there is no text to choose" if not texts else "a choice is empty", place, "give texts")
        return cls("choices", json.dumps(texts), place)

    def compiled(self, tokenizer: Any) -> Any:
        """The grammar compiled for a vocabulary, at its beginning.

        Args:
            tokenizer: llguidance's LLTokenizer.

        Returns:
            llguidance's LLMatcher.

        Raises:
            InputError: it cannot be compiled; names the part of the schema.
        """
        matcher = _compile(self._text(), tokenizer)
        if not matcher.is_error():
            return matcher
        fault, place = _short(matcher.get_error()), self.place
        if self.kind == "json":
            pointer, fault = innermost_fault(json.loads(self.source), lambda part: _fault_of(part, tokenizer))
            place = f"{place}: {pointer}"
        named = {"json": "schema", "regex": "regular expression", "lark": "grammar", "choices": "choice"}[self.kind]
        raise InputError(f"the {named} cannot be compiled: {fault}", place, HINTS[self.kind])

    def _text(self) -> str:
        """As llguidance reads it."""
        if self.kind == "lark":
            return self.source
        if self.kind == "json":
            return _schema_text(json.loads(self.source))
        expression = self.source
        if self.kind == "choices":
            expression = "|".join(SPECIAL_SIGNS.sub(r"\\\g<0>", text) for text in json.loads(self.source))
        return library().LLMatcher.grammar_from_regex(expression)


def library() -> ModuleType:
    """llguidance.

    Raises:
        InputError: it is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise InputError("grammars need llguidance, which is not installed", "grammar", INSTALL) from error
    return llguidance


def with_style(schema: Any) -> Any:
    """A schema that says how its JSON is written, where it does not say so itself."""
    if not isinstance(schema, dict):
        return {"x-guidance": JSON_STYLE} if schema is True else schema
    style = schema.get("x-guidance", {})
    return {**schema, "x-guidance": {**JSON_STYLE, **style}} if isinstance(style, dict) else schema


def _schema_text(schema: Any) -> str:
    return json.dumps({"grammars": [{"json_schema": with_style(schema)}]})


def _compile(text: str, tokenizer: Any) -> Any:
    guidance = library()
    limits = guidance.LLParserLimits(verbose_errors=False)
    return guidance.LLMatcher(tokenizer, text, log_level=0, limits=limits)


def _fault_of(schema: Any, tokenizer: Any) -> str:
    """What llguidance says against a schema; empty: nothing."""
    matcher = _compile(_schema_text(schema), tokenizer)
    return _short(matcher.get_error()) if matcher.is_error() else ""


def _short(message: str) -> str:
    """An error in one line, without the pictures that llguidance and Rust's regex crate draw."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reasons = [line.removeprefix("error: ") for line in lines[1:] if line.startswith("error: ")]
    return " ".join([*lines[:1], *reasons]).rstrip(".") or "no reason is given"


def _as_dictionary(value: Any) -> Any:
    """Other mappings as dictionaries, for JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")
