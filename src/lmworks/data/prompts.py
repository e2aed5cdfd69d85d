"""Rows -> what a model is asked and what it should answer, with the chat template or without.

The same wording serves training (data/answers) and asking, so the ids of a prompt are the beginning of the ids of
its training example. Examples of how others were answered may stand before a row (in-context learning, Brown et al.
2020): as turns of the conversation, or as text. Knows nothing of losses or lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.text import chat
from lmworks.text.messages import is_learned
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

DEMONSTRATIONS, INSTRUCTION = "demonstrations", "instruction"
"""Fields of a row that is asked after others: those rows, answered; and what is said once before all of them."""
SYSTEM_ROLES = ("system", "developer")
BLANK_LINE = "\n\n"
"""Between the instruction, the demonstrations and the question, where they are text."""


@dataclass(frozen=True)
class Prompt:
    """What a model is given when it is to answer a row, and what the row says it should answer.

    Attributes:
        ids: exactly the beginning of the row's training example.
        text: the question as a person reads it.
        reference: the row's own answer.
        place: where the row came from.
        labels: kind labels: the table's labels.
        choices: for each of them the ids that would follow, its end included.
        content_free: ids of the same prompt about texts that say nothing: what the choices' likelihoods after them
            are is taken away from those after ``ids`` (contextual calibration, Zhao et al. 2021); empty: nothing is.
        stop: texts at which an answer ends.
    """

    ids: list[int]
    text: str
    reference: str
    place: str
    labels: list[str] = field(default_factory=list)
    choices: list[list[int]] = field(default_factory=list)
    content_free: list[list[int]] = field(default_factory=list)
    stop: tuple[str, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens with the longest choice; without choices, with one token to answer."""
        return len(self.ids) + max((len(choice) for choice in self.choices), default=1)


class Answer(NamedTuple):
    """What a model wrote to a prompt.

    Attributes:
        text: without white space around it.
        cut: tokens after which it was stopped, since it may not be longer; 0: it ended by itself.
    """

    text: str
    cut: int = 0


def prompts(table: Table, tokenizer: Tokenizer, settings: DataSettings) -> list[Prompt]:
    """What to ask a model for each row, through the same path as the training examples; texts ask nothing.

    Of a chat the last assistant turn that carries loss is asked for.
    """
    if table.kind == "text":
        return []
    templated = uses_template(table, tokenizer, settings)
    choices = table.labels
    return [_prompt(row, tokenizer, settings, templated, choices) for row in table.rows]


def accepted_rows(table: Table, tokenizer: Tokenizer, settings: DataSettings) -> Table:
    """The table without the rows that the chat template refuses, where bad rows are to be skipped; else as it is.

    Called before the table is split, so that training and held-out rows are both of those that remain.
    """
    if settings.on_bad_row != "skip" or not uses_template(table, tokenizer, settings):
        return table
    rows, refused = [], []
    for row in table.rows:
        try:
            chat.pieces(tokenizer, as_messages(row, settings, table.labels), turns=settings.turns)
            rows.append(row)
        except InputError as error:
            refused.append(f"{row.place}: {error.place + ': ' if error.place else ''}{error.fault}")
    if not refused:
        return table
    if not rows:
        raise InputError(f"there is no usable row ({refused[0]})", table.name, "change the rows, or take another model")
    note = f"{count_of(len(refused), 'row')} left out, which the chat template refuses (first: {refused[0]})"
    return replace(table, rows=rows, notes=[*table.notes, note], skipped=[*table.skipped, *refused])


def _prompt(row: Row, tokenizer: Tokenizer, settings: DataSettings, templated: bool, choices: list[str]) -> Prompt:
    if not templated:
        text, _ = plain(row, settings)
        reference = row.values["label"] if "label" in row.values else row.values["completion"]
        answers = [plain(Row({**row.values, "label": choice}), settings)[1] for choice in choices]
        end = end_of_answer(row, tokenizer)
        follow = [[*ids, *end] for ids in tokenizer.encode_many(answers, [text] * len(answers))]
        stop = (BLANK_LINE,) if row.values.get(DEMONSTRATIONS) else ()
        shown = row.values.get("text", text)
        return Prompt(tokenizer.encode_prompt(text), shown, reference, row.place, choices, follow, stop=stop)
    messages = as_messages(row, settings, choices)
    last = [index for index, message in enumerate(messages) if is_learned(message)][-1]
    ids, _ = chat.encode(tokenizer, messages[:last], reply=True)
    follow = []
    for choice in choices:
        full, loss = chat.encode(tokenizer, [*messages[:last], {"role": "assistant", "content": choice}])
        follow.append([token for token, learned in zip(full, loss, strict=True) if learned])
    asked = next((message["content"] for message in reversed(messages[:last]) if message["role"] == "user"), "")
    reference = messages[last]["content"]
    if messages[last].get("tool_calls"):
        written = [piece for piece in chat.pieces(tokenizer, messages[: last + 1], turns="last") if piece.loss]
        reference = written[-1].content
    return Prompt(ids, row.values.get("text", asked), reference, row.place, choices, follow)


def uses_template(table: Table, tokenizer: Tokenizer, settings: DataSettings) -> bool:
    """Whether rows are written through the model's chat template.

    Raises:
        InputError: they must be, and there is none.
    """
    if table.kind == "text":
        return False
    must = table.kind == "chat" or settings.template == "on"
    if must and tokenizer.chat_template is None:
        raise InputError("this model has no chat template", table.name, chat.NO_TEMPLATE)
    if table.kind == "chat" and settings.template == "off":
        hint = "leave template at auto, or use prompt and completion columns"
        raise InputError("conversations cannot be written without a chat template", "template", hint)
    return tokenizer.chat_template is not None and settings.template != "off"


def end_of_answer(row: Row, tokenizer: Tokenizer) -> list[int]:
    """What follows the answer to a row that is written without a template: the end of the text, or after demonstrations
    what stands behind their answers."""
    if row.values.get(DEMONSTRATIONS):
        return tokenizer.encode(BLANK_LINE, after="answer")
    return [tokenizer.eos_id] if tokenizer.eos_id is not None else []


def plain(row: Row, settings: DataSettings) -> tuple[str, str]:
    """Prompt and answer without a template. A pattern that the person gave is kept to the letter."""
    prompt, answer = _plain_alone(row, settings)
    before = [row.values[INSTRUCTION]] if row.values.get(INSTRUCTION) else []
    before += ["".join(_plain_alone(shown, settings)) for shown in row.values.get(DEMONSTRATIONS, ())]
    return BLANK_LINE.join([*before, prompt]), answer


def _plain_alone(row: Row, settings: DataSettings) -> tuple[str, str]:
    """Prompt and answer of a row, without what stands before it."""
    if "label" in row.values:
        prompt = row.values.get("prompt", f"{row.values.get('text', '')}\nLabel:")
        answer = row.values["label"]
        return prompt, answer if prompt[-1:].isspace() else f" {answer}"
    prompt, answer = row.values["prompt"], row.values["completion"]
    if settings.prompt is None and not prompt[-1:].isspace() and not answer[:1].isspace():
        prompt += "\n"
    return prompt, answer


def as_messages(row: Row, settings: DataSettings, choices: list[str]) -> list[dict[str, Any]]:
    """A row as a conversation; the turns of its demonstrations come first and carry no loss."""
    messages = _messages_alone(row, choices)
    begin = int(messages[0]["role"] in SYSTEM_ROLES)
    demonstrations = row.values.get(DEMONSTRATIONS, ())
    messages[begin:begin] = [turn for shown in demonstrations for turn in _turns(_messages_alone(shown, choices))]
    if row.values.get(INSTRUCTION):
        first = next(index for index, message in enumerate(messages) if message["role"] == "user")
        content = f"{row.values[INSTRUCTION]}{BLANK_LINE}{messages[first]['content']}"
        messages[first] = {**messages[first], "content": content}
    if settings.system is not None and messages[0]["role"] not in SYSTEM_ROLES:
        messages.insert(0, {"role": "system", "content": settings.system})
    return messages


def _messages_alone(row: Row, choices: list[str]) -> list[dict[str, Any]]:
    """A row as a conversation, without what stands before it."""
    if "messages" in row.values:
        return list(row.values["messages"])
    if "label" in row.values:
        asked = f"{row.values['text']}\n\nAnswer with one of: {', '.join(choices)}." if "text" in row.values else ""
        prompt, answer = row.values.get("prompt", asked), row.values["label"]
    else:
        prompt, answer = row.values["prompt"], row.values["completion"]
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns of a conversation up to its last answer, of which none is learned."""
    last = max((index for index, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    turns = [message for message in messages[: last + 1] if message["role"] not in SYSTEM_ROLES]
    return [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
