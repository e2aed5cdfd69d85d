"""Calls of tools read out of a text while it is written, as the deltas of OpenAI's API.

Knows the formats in which models write calls (generate/tool_formats.py), and nothing of tokens and grammars. It reads
what a grammar lets a model write: the keys of a call in the format's order, and spaces as the format has them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from lmworks.generate.tool_formats import ToolFormat

Delta = dict[str, Any]
"""A ``delta`` of a chunk of /v1/chat/completions: ``{"content": ...}``, or ``{"tool_calls": [{"index": 0, ...}]}``."""


class ToolCallParser:
    """Takes an answer piece by piece, and gives what is certain of it: text at once, calls as they come.

    A call's name comes when it is whole, its arguments as the model writes them. An ending of the text that may become
    the mark of a call is held back, with the white space before it, which is left out where a call follows.

    Args:
        form: how the model writes calls.
        names: of the functions that it may call; none: all is text.
        only_first: a call has a mark, and begins the answer; any other answer is text throughout, such as JSON.

    Attributes:
        content: the text outside of calls, so far.
        tool_calls: the calls so far, in OpenAI's form. The arguments of the last one are whole unless the answer was
            cut, as by a stop string.
    """

    def __init__(self, form: ToolFormat, names: Sequence[str], only_first: bool = False) -> None:
        self._format, self._only_first = form, only_first
        self._first, self._next = form.openings(names), form.openings(names, follows=True)
        if only_first:
            self._first = {opening: name for opening, name in self._first.items() if not opening.startswith("{")}
        self._held = ""  # what is not sorted yet
        self._arguments: _ObjectEnd | None = None
        self.content = ""
        self.tool_calls: list[dict[str, Any]] = []

    def feed(self, text: str) -> list[Delta]:
        """Take more of the answer, special tokens in it by their names; give what is certain now."""
        self._held += text
        deltas = []
        while delta := self._step():
            deltas.append(delta)
        return deltas

    def finish(self) -> list[Delta]:
        """The answer is over: give the text that was held back. A call without its name is left out: a limit or a stop
        string cut it."""
        rest, self._held = self._held, ""
        if self.tool_calls:
            return []
        places = [place for mark in self._format.marks if self._first and (place := rest.find(mark)) >= 0]
        if places:
            rest = rest[: min(places)].rstrip()
        return [self._say(rest)] if rest else []

    def message(self) -> dict[str, Any]:
        """The answer as a message of OpenAI's API, once it is over: an assistant's, ``content`` None beside calls
        without a text."""
        calls = {"tool_calls": self.tool_calls} if self.tool_calls else {}
        return {"role": "assistant", "content": self.content or (None if calls else ""), **calls}

    def _step(self) -> Delta | None:
        """Sort the next part of what is held; None: more is needed."""
        if self._arguments is not None:
            return self._continue_arguments(self._arguments)
        if not self.tool_calls:
            return self._speak_or_call()
        for opening, name in self._next.items():
            if self._held.startswith(opening):
                return self._begin_call(name, len(opening))
        return None

    def _speak_or_call(self) -> Delta | None:
        """Text, or the first call."""
        held = self._held
        for place in self._possible_places():
            rest = held[place:]
            opening = next((opening for opening in self._first if rest.startswith(opening)), None)
            if opening is None and not any(opening.startswith(rest) for opening in self._first):
                continue
            spoken = held[:place].rstrip()
            if spoken:
                self._held = held[len(spoken) :]
                return self._say(spoken)
            return None if opening is None else self._begin_call(self._first[opening], place + len(opening))
        spoken = held.rstrip() if self._first and self._format.begin else held
        self._held = held[len(spoken) :]
        return self._say(spoken) if spoken else None

    def _possible_places(self) -> Sequence[int]:
        """Where in what is held a call may begin."""
        if not self._first:
            return ()
        if self._format.begin and not self._only_first:
            return range(len(self._held))
        return range(0 if self.content else 1)

    def _say(self, text: str) -> Delta:
        self.content += text
        return {"content": text}

    def _begin_call(self, name: str, size: int) -> Delta:
        """A new call, which ``size`` characters of what is held open."""
        self._held, self._arguments = self._held[size:], _ObjectEnd()
        # nine letters and digits, which Mistral's templates demand
        function = {"name": name, "arguments": ""}
        call = {"id": secrets.token_hex(5)[:9], "type": "function", "function": function}
        self.tool_calls.append(call)
        told = {"index": len(self.tool_calls) - 1, **call, "function": dict(function)}
        return {"tool_calls": [told]}

    def _continue_arguments(self, arguments: _ObjectEnd) -> Delta | None:
        """More of the arguments of the last call."""
        size = arguments.find(self._held)
        if size is not None:
            self._arguments = None
        piece, self._held = self._held[:size], "" if size is None else self._held[size:]
        if not piece:
            return None
        self.tool_calls[-1]["function"]["arguments"] += piece
        return {"tool_calls": [{"index": len(self.tool_calls) - 1, "function": {"arguments": piece}}]}


class _ObjectEnd:
    """Finds where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False

    def find(self, piece: str) -> int | None:
        """The place in the next piece after the object's last bracket; None: it goes on."""
        for place, sign in enumerate(piece):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped, self._in_string = sign == "\\", sign != '"'
            elif sign == '"':
                self._in_string = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return None
