"""Conversations of a data file -> messages as chat templates read them, and which of them are learned.

A message is ``{"role": ..., "content": ...}`` as OpenAI and Hugging Face write it; ShareGPT's ``from`` and ``value``
are read too. Knows no template and no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.base.errors import InputError
from lmworks.text.plain_text import check_text

Message = dict[str, Any]
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TEMPLATE_KEYS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")
"""Keys, in addition to role and content, that chat templates read."""
NO_TEMPLATE = "give the model a chat template (chat_template.jinja in its folder), or use prompt and completion columns"
"""What helps where a model that has no chat template is given messages."""
LOSS_KEYS = ("weight", "train", "training", "loss")
"""Whether a message is learned: `weight` 0 or 1 is OpenAI's, `train` and `training` true or false are axolotl's."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text; the latter two are those of OpenAI's Responses."""
REFUSED_KEYS = {
    "function_call": "write it as tool_calls: [{...}]",
    "train_detail": "mark whole messages with train: true or false",
    "training_detail": "mark whole messages with train: true or false",
    "refusal": "write what the assistant says as content",
    "audio": "give messages of text",
    "images": "give messages of text",
    "image": "give messages of text",
}
"""Keys that change what a message says or what is learned of it, and cannot be honoured here."""


def validate(messages: Any) -> None:
    """Refuse what is not a conversation: a non-empty list of known roles with texts or tool calls.

    Raises:
        InputError: its place is the message's number, from 1.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise InputError("messages must be a list with at least one message")
    for number, message in enumerate(messages, 1):
        place = f"message {number}"
        if not isinstance(message, dict) or "role" not in message:
            raise InputError("not a message", place, 'write it as {"role": "user", "content": "..."}')
        if message["role"] not in KNOWN_ROLES:
            hint = f"roles are {', '.join(KNOWN_ROLES)}"
            raise InputError(f"unknown role {message['role']!r}", place, hint)
        calls = message.get("tool_calls")
        if calls:
            _validate_calls(message, place)
        if not isinstance(message.get("content"), str) and not (calls and message.get("content") is None):
            kind = type(message.get("content")).__name__
            raise InputError(f"content must be text, not {kind}", place, "give the content as one string")
        check_text(message.get("content") or "", place)


def _validate_calls(message: Message, place: str) -> None:
    if message["role"] != "assistant":
        raise InputError(f"tool_calls of role {message['role']!r}", place, "only an assistant calls tools")
    calls = message["tool_calls"]
    example = '[{"type": "function", "function": {"name": "...", "arguments": {...}}}]'
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InputError("tool_calls must be a list of objects", place, f"write them as {example}")
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError("a tool call without the name of its function", place, f"write them as {example}")


def is_learned(message: Message) -> bool:
    """Whether the message carries loss: an assistant's, unless its weight is 0."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def conversation(value: Any, unused: dict[str, None]) -> list[Message]:
    """A field of a row as messages with role, content and the keys that templates read.

    Messages that carry no loss have ``weight`` 0; no other message has the key.

    Args:
        value: what the field holds.
        unused: receives the keys of messages that nothing reads.

    Raises:
        InputError: it is no conversation, or a key of a message cannot be honoured. Its place is the message's number.
    """
    messages: Any = value
    if isinstance(value, (list, tuple)):
        messages = [_message(message, f"message {number}", unused) for number, message in enumerate(value, 1)]
    validate(messages)
    return messages


def _message(message: Any, place: str, unused: dict[str, None]) -> Any:
    if not isinstance(message, dict):
        return message
    present = {key: value for key, value in message.items() if value is not None and value != []}
    if "from" in present and "value" in present:
        speaker = str(present.pop("from"))
        present = {"role": SHAREGPT_ROLES.get(speaker, speaker), "content": present.pop("value"), **present}
    for key, hint in REFUSED_KEYS.items():
        if key in present:
            raise InputError(f"the key {key!r} cannot be honoured", place, f"{hint}, or leave the key out")
    if "content" in present:
        present["content"] = _text_of(present["content"], place)
    result = {key: present[key] for key in ("role", "content", *TEMPLATE_KEYS) if key in present}
    if "content" not in result and "tool_calls" in result:
        result["content"] = ""  # OpenAI writes null where an assistant only calls tools
    if _loss_of(present, place) is False and result.get("role") == "assistant":
        result["weight"] = 0
    unused.update(dict.fromkeys(key for key in present if key not in result and key not in LOSS_KEYS))
    return result


def with_texts(messages: Any) -> Any:
    """The same messages, contents that are lists of parts joined into one text each.

    Raises:
        InputError: a part is no text. Its place is the message's number and the part's.
    """
    if not isinstance(messages, (list, tuple)):
        return messages
    return [
        {**message, "content": _text_of(message["content"], f"message {number}")}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for number, message in enumerate(messages, 1)
    ]


def _text_of(content: Any, place: str) -> Any:
    """A content that is a list of parts, ``{"type": "text", "text": ...}`` each, as the text that they make; any other
    content as it is."""
    if not isinstance(content, (list, tuple)):
        return content
    texts = []
    for number, part in enumerate(content, 1):
        if isinstance(part, dict) and part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        fault = f"a part of the content is {_kind_of(part)}, and only text is read"
        raise InputError(fault, f"{place}, part {number}", 'write parts as {"type": "text", "text": "..."}')
    return "".join(texts)


def _kind_of(part: object) -> str:
    """What a part of a content is, for the message that it is no text."""
    if not isinstance(part, dict):
        return f"a {type(part).__name__}"
    if part.get("type") in TEXT_PARTS:
        return f"of type {part['type']!r} with a {type(part.get('text')).__name__} as its text"
    return f"of type {part.get('type')!r}"


def _loss_of(message: Message, place: str) -> bool | None:
    """Whether the message is to be learned; None: it does not say."""
    marks = {key: message[key] for key in LOSS_KEYS if key in message}
    for key, value in marks.items():
        if value not in (0, 1):  # True and False are among them
            hint = f"write {key}: 0 or 1; or leave the key out"
            raise InputError(f"{key} is {value!r}, and only whole messages are learned or not", place, hint)
    if len({bool(value) for value in marks.values()}) > 1:
        both = " and ".join(f"{key}: {value!r}" for key, value in marks.items())
        raise InputError(f"{both} contradict each other", place, "keep one of these keys")
    wanted = next((bool(value) for value in marks.values()), None)
    if wanted and message.get("role") != "assistant":
        key, value = next(iter(marks.items()))
        fault = f"{key}: {value!r} of role {message.get('role')!r}, but only what the assistant says is learned"
        raise InputError(fault, place, "leave the key out")
    return wanted


def joined(prompt: Any, completion: Any, unused: dict[str, None]) -> list[Message]:
    """Prompt and completion, either of them a text or a list of messages, as one conversation.

    Only the completion is learned: the prompt's assistant messages get ``weight`` 0 (TRL's conversational
    prompt-completion format). Raises as `conversation` does; messages are counted through both lists.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answered = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    for name, part in (("prompt", asked), ("completion", answered)):
        if not isinstance(part, (list, tuple)) or not part:
            raise InputError(f"the {name} is neither a text nor a list of messages")
    messages = conversation([*asked, *answered], unused)
    for message in messages[: len(asked)]:
        if message["role"] == "assistant":
            message["weight"] = 0
    return messages


def check_answers(messages: Sequence[Message]) -> None:
    """Refuse a conversation with nothing to learn.

    Raises:
        InputError: no assistant message is learned, or one says nothing. Its place is the message's number, or empty.
    """
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError("has no assistant message", hint="give each conversation a turn to learn")
    if not any(map(is_learned, messages)):
        raise InputError("no assistant message is learned: each has weight 0", hint="give one of them weight 1")
    for number, message in enumerate(messages, 1):
        if is_learned(message) and not message["content"].strip() and "tool_calls" not in message:
            raise InputError(
                "has an empty assistant message", f"message {number}", "write what the assistant is to say"
            )
