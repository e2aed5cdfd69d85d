"""What a person gives a model -> the prompt that it reads: in the format of its run, after examples, or as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.base.errors import InputError
from lmworks.data.prompts import Prompt, as_messages
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.input_format import Input, InputFormat
from lmworks.text import chat
from lmworks.text.messages import with_texts
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer


def prompts_of(
    values: Sequence[Input], tokenizer: Tokenizer, form: InputFormat | None, few_shot: FewShotPrompt | None = None
) -> list[Prompt]:
    """Texts, or columns of rows, as the model reads them.

    Args:
        values: the inputs.
        tokenizer: of the model.
        form: how inputs looked in the model's run; None: texts are read as they are.
        few_shot: what stands before each of them.

    Raises:
        InputError: an input does not fit the format.
    """
    if form is not None and form.has_prompt:
        return form.prompts_of(values, tokenizer, few_shot)
    texts = []
    for value in values:
        if not isinstance(value, str):
            raise InputError("this model has no prompt built from columns", "the input", "give a text")
        texts.append(value)
    if few_shot is None:
        return [Prompt(tokenizer.encode(text, special=True), text, "", "the input") for text in texts]
    return [conversation_of([{"role": "user", "content": text}], tokenizer, form, few_shot) for text in texts]


def conversation_of(
    messages: Sequence[dict[str, Any]],
    tokenizer: Tokenizer,
    form: InputFormat | None,
    few_shot: FewShotPrompt | None,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Prompt:
    """A conversation as the model reads it; arguments as of :func:`prompts_of`, and the functions that the chat
    template tells of.

    Raises:
        InputError: a message is malformed, or the chat template refuses it.
    """
    messages = with_texts(messages)
    if form is not None and form.has_prompt:
        chat.validate(messages)
        templated = tokenizer.chat_template is not None and form.template != "off"
        if form.kind == "label" or not templated:
            return form.prompts_of([messages[-1]["content"]], tokenizer, few_shot)[0]
    turns = list(messages) if form is None else form.messages_of(messages)
    if few_shot is not None:
        chat.validate(messages)
        row = Row({"messages": [*turns, {"role": "assistant", "content": ""}]})
        asked = few_shot.table(Table("the conversation", "chat", [row])).rows[0]
        turns = as_messages(asked, DataSettings(), [])[:-1]
    ids, _ = chat.encode(tokenizer, turns, reply=True, tools=tools)
    return Prompt(ids, messages[-1]["content"], "", "the conversation")
