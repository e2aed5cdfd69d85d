"""Messages -> token ids and the loss mask: the model's own Jinja template.

`encode` is the only path from messages to ids, at training time and at chat time. It cuts the rendered text where the
assistant's turns begin and end and encodes each piece alone, so the ids of a conversation opened for a reply are, by
construction, the beginning of the ids of the conversation that has the reply. The loss mask follows from positions in
the text, never from token ids. Knows nothing of rows, lengths or batches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from lmworks.base.errors import InputError
from lmworks.text.messages import NO_TEMPLATE, TEMPLATE_KEYS, Message, is_learned, validate
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_folder import ROLES

_TAKES_BOTH = re.compile(r"arguments['\"]?\]?\s+is\s+(not\s+)?(string|mapping)")
_TAKES_OBJECTS = re.compile(r"(arguments|function|calls?)['\"]?\]?\s*\|\s*(tojson|items|dictsort)|arguments\.items")


@dataclass(frozen=True)
class Piece:
    """A part of the rendered conversation that is encoded alone.

    Attributes:
        text: the part.
        after: the rendered text before it ("" at the beginning).
        loss: whether its tokens carry loss.
        content: of an assistant's turn, the text before the end-of-turn token.
        ended: whether an end-of-turn token closes it.
    """

    text: str
    after: str
    loss: bool
    content: str = ""
    ended: bool = False


def encode(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    reply: bool = False,
    turns: Literal["all", "last"] = "all",
    tools: Sequence[dict[str, Any]] | None = None,
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation and, aligned with them, which tokens carry loss.

    Args:
        tokenizer: has the template.
        messages: ``{"role": ..., "content": ...}`` each; an assistant's message of ``weight`` 0 carries no loss.
        reply: end with the opening of the assistant's turn, as a chat does before the model answers.
        turns: loss lies on the content and the end-of-turn token of every assistant turn, or of the last alone.
        tools: functions that the template tells the model of, in OpenAI's form.

    Raises:
        InputError: no template; messages that it or we refuse; a template that rewrites earlier turns.
    """
    cut = pieces(tokenizer, messages, reply, turns, tools)
    ids: list[int] = []
    loss: list[bool] = []
    for piece, part in zip(cut, tokenizer.encode_many([p.text for p in cut], [p.after for p in cut]), strict=True):
        ids += part
        loss += [piece.loss] * len(part)
    return ids, loss


def pieces(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    reply: bool = False,
    turns: Literal["all", "last"] = "all",
    tools: Sequence[dict[str, Any]] | None = None,
) -> list[Piece]:
    """The rendered conversation, cut where the assistant's turns begin and end. Raises as `encode` does."""
    validate(messages)
    _check_calls(tokenizer, messages)
    text = render(tokenizer, messages, reply, tools)
    speakers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    openings = {index: render(tokenizer, messages[:index], True, tools) for index in speakers}
    cut: list[Piece] = []
    done = 0
    for order, index in enumerate(speakers):
        opening, last = openings[index], order == len(speakers) - 1
        wanted = not reply and is_learned(messages[index]) and (turns == "all" or last)
        following = len(text) if last else min(len(text), len(openings[speakers[order + 1]]))
        begin, ends = len(opening), None
        if begin >= done and text.startswith(opening):
            if messages[index].get("tool_calls"):
                ending = render(tokenizer, messages[: index + 1], tools=tools)
                ends = _turn_end(tokenizer, ending, text, begin, following)
            else:
                ends = _ends_of(tokenizer, messages[index]["content"], text, begin, following)
        if ends is None:
            if wanted:
                raise InputError(
                    f"the chat template rewrites what message {index + 1} (assistant) said or how its turn opens",
                    hint="give only the last turn loss: --data.turns last; or use a template that keeps all turns",
                )
            continue
        cut.append(Piece(text[done:begin], text[:done], False))
        content_end, end = ends
        cut.append(Piece(text[begin:end], text[:begin], wanted, text[begin:content_end], end > content_end))
        done = end
    cut.append(Piece(text[done:], text[:done], False))
    return [piece for piece in cut if piece.text]


def _ends_of(tokenizer: Tokenizer, content: str, text: str, begin: int, limit: int) -> tuple[int, int] | None:
    """Where an assistant's content and where its turn ends in the text; None: the content is not there.

    Templates often strip the content, or put a space or an empty thinking block before it.
    """
    closing = _closing_of(tokenizer)
    for part in dict.fromkeys((content, content.strip())):
        place = text.find(part + closing, begin, limit)
        if place >= 0:
            return place + len(part), place + len(part) + len(closing)
        if text.startswith(part, begin):  # there, and not closed in the usual way
            return begin + len(part), begin + len(part)
    return None


def _turn_end(tokenizer: Tokenizer, ending: str, text: str, begin: int, limit: int) -> tuple[int, int] | None:
    """The same for a turn with tool calls, which the template writes in its own way.

    Args:
        ending: the conversation rendered up to and with this turn; as far as the text agrees with it, the turn goes.
    """
    pairs = enumerate(zip(ending, text[:limit], strict=False))
    end = next((place for place, (first, second) in pairs if first != second), min(len(ending), limit))
    turn = text[begin:end]
    if not turn.strip():
        return None
    closing = _closing_of(tokenizer)
    place = turn.rfind(closing) if closing else -1
    if place < 0:  # tool calls may be closed by another special token
        ends = [(turn.rfind(token), token) for token in tokenizer.specials if turn.rstrip().endswith(token)]
        place, closing = max(ends, key=lambda end: len(end[1]), default=(len(turn.rstrip()), ""))
    return begin + place, begin + place + len(closing)


def _closing_of(tokenizer: Tokenizer) -> str:
    return _turn_closing(tokenizer.chat_template or "", tuple(tokenizer.specials), _special_texts(tokenizer))


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The id of the special token that closes an assistant's turn under this template, or None."""
    if tokenizer.chat_template is None:
        return None
    closing = _closing_of(tokenizer)
    ends = [token for token in tokenizer.specials if closing.endswith(token)]
    return tokenizer.specials[max(ends, key=len)] if ends else None


@lru_cache(maxsize=32)
def _turn_closing(template: str, specials: tuple[str, ...], texts: tuple[tuple[str, str], ...]) -> str:
    """What the template writes from the end of an assistant's content to its end-of-turn token; "" without one.

    The special token may have any name, so a short conversation is rendered and looked through.
    """
    from lmworks.text import chat_template  # here, since who continues a text need not wait for jinja2

    reply = "PROBE-OF-THE-REPLY"
    probe = [{"role": "user", "content": "PROBE"}, {"role": "assistant", "content": reply}]
    try:
        text = chat_template.render(template, {"messages": probe, "add_generation_prompt": False, **dict(texts)})
    except chat_template.RefusedMessages:
        return ""
    rest = text.partition(reply)[2]
    closings = [(place, -len(token), token) for token in specials if (place := rest.find(token)) >= 0]
    if not closings:
        return ""
    place, _, token = min(closings)
    return rest[: place + len(token)]


def unwritten_keys(tokenizer: Tokenizer, messages: Sequence[Message]) -> set[str]:
    """Keys of messages, other than role and content, that the template does not use."""
    present = {key for message in messages for key in TEMPLATE_KEYS if key in message}
    return {key for key in present if key not in (tokenizer.chat_template or "")}


def _check_calls(tokenizer: Tokenizer, messages: Sequence[Message]) -> None:
    """Refuse tool calls where the template would leave them out.

    Raises:
        InputError: its place is the message's number, from 1.
    """
    template = tokenizer.chat_template
    number = next((number for number, message in enumerate(messages, 1) if message.get("tool_calls")), None)
    if number is not None and template is not None and "tool_calls" not in template:
        hint = "use a model whose template writes tool_calls, or write the call as the message's content"
        raise InputError("the model's chat template does not write tool_calls", f"message {number}", hint)


def _as_template_reads(message: Message, template: str) -> Message:
    """A message without what is not for the template, its tool calls' arguments as the template expects them."""
    result = {key: value for key, value in message.items() if key != "weight"}
    if result.get("content") is None:
        result["content"] = ""
    if result.get("tool_calls"):
        result["tool_calls"] = [_call(call, template) for call in result["tool_calls"]]
    return result


def _call(call: dict[str, Any], template: str) -> dict[str, Any]:
    """A tool call with its arguments as an object where the template writes them by `tojson`, else as JSON text.

    OpenAI's format has JSON text; most of Hugging Face's templates take objects.
    """
    function = dict(call.get("function", call))
    arguments = function.get("arguments", {})
    if _TAKES_BOTH.search(template):
        return call
    objects = _TAKES_OBJECTS.search(template) is not None
    try:
        if objects and isinstance(arguments, str):
            function["arguments"] = json.loads(arguments)
        elif not objects and not isinstance(arguments, str):
            function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        hint = "write the arguments as a JSON object"
        raise InputError(f"the arguments of {function.get('name')!r} are not JSON ({error})", hint=hint) from error
    return {**call, "function": function} if "function" in call else function


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    reply: bool = False,
    tools: Sequence[dict[str, Any]] | None = None,
) -> str:
    """The conversation as the template writes it.

    Raises:
        InputError: no template, or the template refuses the messages.
    """
    if tokenizer.chat_template is None:
        raise InputError("this model has no chat template", hint=NO_TEMPLATE)
    from lmworks.text import chat_template  # as in _turn_closing

    values = {
        "messages": [_as_template_reads(message, tokenizer.chat_template) for message in messages],
        "add_generation_prompt": reply,
        **({"tools": list(tools)} if tools else {}),
        **dict(_special_texts(tokenizer)),
    }
    return chat_template.render(tokenizer.chat_template, values)


def _special_texts(tokenizer: Tokenizer) -> tuple[tuple[str, str], ...]:
    """bos_token, eos_token ... as templates name them."""
    texts = []
    for role in ROLES:
        token_id = getattr(tokenizer, f"{role}_id", None)
        token = tokenizer.core.id_to_token(token_id) if token_id is not None else None
        if token is not None:
            texts.append((f"{role}_token", token))
    return tuple(texts)
