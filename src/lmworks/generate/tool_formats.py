"""How models write calls of tools: the format of a chat template, its grammar, and the texts that open a call.

format   written as                                                                      by
hermes   <tool_call>\\n{"name": "f", "arguments": {...}}\\n</tool_call>, one after another   Hermes, Qwen 2.5, Qwen 3
mistral  [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]                            Mistral
llama    {"name": "f", "parameters": {...}}, one call                                    Llama 3.1, 3.2

A model whose template writes no tools, or writes them in another format, is told the hermes format in the system
message. Knows no tokens but the names of special ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lmworks.base.errors import InputError

_TAKES_TOOLS = re.compile(r"\btools\b")
_OTHER_CALLS = re.compile(r"<function=|<arg_key>|\[ARGS\]")
"""Formats that stand in the same marks, but are not JSON throughout."""
_LLAMA_CALL = re.compile(r'"parameters"\s*:')
_MISTRAL_CALL = re.compile(r"\[TOOL_CALLS\]( ?)\[")
ANY_TEXT = r"/(.|\n)*/"


class Call(NamedTuple):
    """A call of a function: its name, and its arguments by name."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolFormat:
    """A way to write calls.

    Attributes:
        name: of the format.
        begin: what stands before a call, or before the list of calls; empty: the call begins the text.
        end: what stands after it.
        arguments_key: the key of the arguments in the JSON of a call.
        as_list: whether all calls are one JSON list.
        repeats: whether a text may have several calls.
        optional: a special token that may stand before a call.
    """

    name: str
    begin: str
    end: str
    arguments_key: str = "arguments"
    as_list: bool = False
    repeats: bool = True
    optional: str = ""

    def grammar(
        self,
        schemas: Mapping[str, Any],
        definitions: Mapping[str, Any],
        specials: Mapping[str, int],
        may_speak: bool = True,
        several: bool = True,
        answer: Any = None,
    ) -> str:
        """The Lark grammar of what a model may write.

        Args:
            schemas: function -> JSON schema of its arguments.
            definitions: what the schemas refer to, under ``$defs``, and options of the JSON's style.
            specials: the tokenizer's special tokens, which a grammar names by id.
            may_speak: whether it may write a text instead of a call, or before it.
            several: whether it may write several calls.
            answer: a JSON schema of the text that it may write instead of calls; None: any text, before them too.

        Raises:
            InputError: such a text cannot be told from a call.
        """
        several = several and self.repeats
        begin, end = (_terminals(text, specials) for text in (self.begin, self.end))
        more = ' ("\\n" call)*' if several and not self.as_list else ""
        rules = {"start": f"call{more}", "call": _joined(begin, "body", end)}
        rules["body"] = f"%json {json.dumps(self._schema(schemas, definitions, several))}"
        if may_speak and answer is not None:
            rules["start"] = f"answer | {self._marked_call(specials)}{more}"
            rules["answer"] = f"%json {json.dumps(answer)}"
        elif may_speak and not self.begin:  # a text that begins as a call is one
            rules["start"] = "text | call"
            rules["text"] = r"/[^{](.|\n)*/"
            if self.optional in specials:
                rules["start"] += f" | {_terminals(self.optional, specials)} call"
        elif may_speak and _first_special(self.begin, specials):
            rules["start"] = f"text | text call{more}"
            rules["text"] = ANY_TEXT
        elif may_speak:  # lazy: as soon as the mark is written, a call follows
            mark = self.begin.rstrip("\n")
            rest = _joined(_terminals(self.begin[len(mark) :], specials), "body", end)
            rules["start"] = f"text | marked {rest}{more}"
            rules["text"] = ANY_TEXT
            rules["marked[lazy]"] = f"{ANY_TEXT} {json.dumps(mark)}"
        return "%llguidance {}\n" + "".join(f"{name}: {rule}\n" for name, rule in rules.items())

    def _marked_call(self, specials: Mapping[str, int]) -> str:
        """A call that cannot be taken for JSON, since a mark stands before it, in the words of a grammar."""
        if self.begin:
            return "call"
        if self.optional not in specials:
            fault = "the model writes calls as plain JSON, so they cannot be told from an answer in JSON"
            raise InputError(fault, "tools", "leave out the format of the answer, or the tools")
        return f"{_terminals(self.optional, specials)} call"

    def write(self, calls: Sequence[Call]) -> str:
        """Calls as a model writes them."""
        bodies = [
            json.dumps({"name": call.name, self.arguments_key: call.arguments}, ensure_ascii=False) for call in calls
        ]
        if self.as_list:
            return f"{self.begin}[{', '.join(bodies)}]{self.end}"
        return "\n".join(f"{self.begin}{body}{self.end}" for body in bodies)

    def openings(self, names: Sequence[str], follows: bool = False) -> dict[str, str]:
        """What a model writes up to the arguments of a call: this text -> the function.

        Args:
            names: of the functions.
            follows: the texts from the end of one call's arguments to the next call's; else those of the first call.
        """
        bodies = {f'{{"name": {json.dumps(name)}, "{self.arguments_key}": ': name for name in names}
        if not follows:
            begin = f"{self.begin}[" if self.as_list else self.begin
            marks = [begin, f"{self.optional}{begin}"] if self.optional else [begin]
        elif not self.repeats:
            marks = []
        else:
            marks = ["}, " if self.as_list else f"}}{self.end}\n{self.begin}"]
        return {f"{mark}{body}": name for mark in marks for body, name in bodies.items()}

    @property
    def marks(self) -> list[str]:
        """Texts by which a call begins, each of them no beginning of a text."""
        return [self.begin.rstrip()] if self.begin else [mark for mark in (self.optional, "{") if mark]

    def _schema(self, schemas: Mapping[str, Any], definitions: Mapping[str, Any], several: bool) -> dict[str, Any]:
        options = [
            {
                "type": "object",
                "properties": {"name": {"const": name}, self.arguments_key: schema},
                "required": ["name", self.arguments_key],
                "additionalProperties": False,
            }
            for name, schema in schemas.items()
        ]
        body: dict[str, Any] = options[0] if len(options) == 1 else {"anyOf": options}
        if self.as_list:
            body = {"type": "array", "items": body, "minItems": 1, **({} if several else {"maxItems": 1})}
        return {**definitions, **body}


HERMES = ToolFormat("hermes", "<tool_call>\n", "\n</tool_call>")
LLAMA = ToolFormat("llama", "", "", arguments_key="parameters", repeats=False, optional="<|python_tag|>")
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", "", as_list=True)


def format_of(template: str | None) -> ToolFormat | None:
    """The format in which a chat template writes calls; None: it writes none, or in a format that is not known."""
    if template is None or not _TAKES_TOOLS.search(template) or _OTHER_CALLS.search(template):
        return None
    if "<tool_call>" in template:
        return HERMES
    if match := _MISTRAL_CALL.search(template):
        return replace(MISTRAL, begin=f"[TOOL_CALLS]{match[1]}")
    return LLAMA if _LLAMA_CALL.search(template) else None


def _first_special(text: str, specials: Mapping[str, int]) -> str:
    """The special token that a text begins with; empty: none."""
    return max((token for token in specials if token and text.startswith(token)), key=len, default="")


def _terminals(text: str, specials: Mapping[str, int]) -> str:
    """A text in a Lark grammar: special tokens by their ids, the rest as strings."""
    terms: list[str] = []
    while text:
        token = _first_special(text, specials)
        places = [place for name in specials if name and (place := text.find(name)) > 0]
        part = token or text[: min(places, default=len(text))]
        terms.append(f"<[{specials[token]}]>" if token else json.dumps(part))
        text = text[len(part) :]
    return " ".join(terms)


def _joined(*terms: str) -> str:
    return " ".join(term for term in terms if term)
