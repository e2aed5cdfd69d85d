"""The format of a model's inputs in training: the prompt's pattern, the system message, the labels.

A run writes it as ``lmworks.json`` into the folder of its result; other libraries ignore this file. The opened model
formats its inputs in the same way. Independent of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from lmworks.base.errors import InputError, as_list
from lmworks.base.files import atomic_write
from lmworks.base.settings import Settings
from lmworks.data.prompts import Prompt, as_messages, prompts
from lmworks.evaluate.answer_spans import MAX_ANSWER_TOKENS, STRIDE
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.text.columns import names_in
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

FILE = "lmworks.json"
TEXT_HINT, TEXTS_HINT = "give a text", "give a text or a list of texts"
MESSAGES_HINT = 'give a list of messages: [{"role": "user", "content": "..."}]'
Input = str | Mapping[str, Any]
InputKind = Literal["text", "prompt", "label", "source", "class", "span", "words"]
KIND_OF_TASK: dict[str, InputKind] = {"instructions": "prompt", "labels": "label", "seq2seq": "source"}
"""The kind of inputs by task, for files of versions that did not save the kind; all other tasks: text."""


class InputFormat(Settings):
    """The part of a run's settings that says how one input is put to the model."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str = Field(description="What was trained, by the task's name.")
    kind: InputKind = Field(
        description="text: a text or conversation as it is; prompt: the prompt of an answer; label: a text that is "
        "labelled in words; source: what an encoder reads; class: a text that a head classifies; span: a question and "
        "the context in which a head finds its answer; words: a text whose words a head tags."
    )
    text: str | None = Field(None, description="label: the text built from columns, where the run had a pattern.")
    prompt: str | None = Field(None, description="The prompt built from columns, where the run had a pattern.")
    template: Literal["auto", "on", "off"] = Field("auto", description="Whether the model's chat template was used.")
    system: str | None = Field(None, description="System message of conversations that have none.")
    labels: tuple[str, ...] = Field((), description="label: all of them, sorted.")
    prefix: str = Field("", description="source: stands before each source.")
    slide: bool = Field(False, description="Pretrained here on windows of texts: a full context slides.")

    stride: int = Field(STRIDE, description="span: tokens that two windows over a context share; 0: one window alone.")
    max_answer_tokens: int = Field(MAX_ANSWER_TOKENS, description="span: tokens of the longest answer.")
    max_tokens: int | None = Field(None, description="span: tokens of the longest window; None: the model's context.")
    null_threshold: float | None = Field(
        None,
        description="span: how much the score of no answer exceeds that of the best span where there is no answer; "
        "None: every question is answered.",
    )

    @classmethod
    def read(cls, folder: Path) -> InputFormat | None:
        """The input format in a model's folder; None where there is none.

        Raises:
            InputError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                values.setdefault("kind", KIND_OF_TASK.get(str(values.get("task")), "text"))
            return cls.model_validate(values)
        except (OSError, ValueError, ValidationError) as error:
            hint = "delete the file: the model then opens without the prompt that it was trained with"
            raise InputError(f"cannot be read ({str(error).splitlines()[0]})", str(path), hint) from error

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        text = json.dumps(self.model_dump(exclude_defaults=True), ensure_ascii=False, indent=2)
        atomic_write(folder / FILE, text + "\n")

    @property
    def has_prompt(self) -> bool:
        """Whether an input becomes part of a prompt; other models read texts as they are."""
        return self.kind not in ("text", "class", "span", "words")

    @property
    def columns(self) -> list[str]:
        """The columns that the pattern uses; none without a pattern."""
        pattern = self.prompt or self.text
        return list(dict.fromkeys(names_in(pattern))) if pattern else []

    def fill(self, value: Input) -> str:
        """The prompt, or the text that is labelled, as the pattern makes it.

        Args:
            value: a text, or the columns of a row (as JSON, too). A text serves a pattern of one column.

        Raises:
            InputError: the pattern has other columns.
        """
        pattern, columns = self.prompt or self.text, self.columns
        if isinstance(value, str) and len(columns) > 1:
            value = _object(value) or value
        if isinstance(value, str) and len(columns) > 1:
            example = ", ".join(f'"{column}": "..."' for column in columns)
            fault = f"the prompt that this model was trained with is built from {' and '.join(columns)}"
            raise InputError(fault, "the input", f"give {{{example}}}, or the whole prompt with --raw (raw=True)")
        values = dict.fromkeys(columns, value) if isinstance(value, str) else dict(value)
        missing = [column for column in columns if column not in values]
        if missing or (not columns and not isinstance(value, str)):
            needs = f"needs {' and '.join(missing)}" if missing else "is built from no columns: give a text"
            raise InputError(f"the prompt {needs}", "the input", f"the pattern is {pattern!r}")
        return str(value) if pattern is None else pattern.format(**values)

    def fill_text(self, value: Input) -> str:
        """The text that a head reads, as the pattern of the text makes it."""
        return self.model_copy(update={"prompt": None}).fill(value)

    def prompts_of(
        self, values: Sequence[Input], tokenizer: Tokenizer, few_shot: FewShotPrompt | None = None
    ) -> list[Prompt]:
        """Inputs as the training examples have them, up to the answer; or as a model that is not trained is asked.

        Args:
            values: the inputs.
            tokenizer: of the model.
            few_shot: what is said before each of them.

        Raises:
            InputError: as :meth:`fill`, or as the chat template does.
        """
        texts = [self.fill(value) for value in values]
        if self.kind == "source":
            ids = tokenizer.encode_whole([self.prefix + text for text in texts])
            return [Prompt(each, text, "", "the input") for each, text in zip(ids, texts, strict=True)]
        settings = DataSettings(template=self.template, system=self.system, prompt=self.prompt)
        table = Table("the input", "completion", [Row({"prompt": text, "completion": ""}) for text in texts])
        if self.kind == "label":
            name = "prompt" if self.prompt else "text"
            rows = [Row({name: text, "label": ""}) for text in texts]
            table = Table("the input", "labels", rows, labels=list(self.labels))
        return prompts(table, tokenizer, settings) if few_shot is None else few_shot.prompts(table, tokenizer, settings)

    def messages_of(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A conversation with the run's system message, and what the person says in the run's pattern."""
        copies = [dict(message) for message in messages]
        if self.kind == "prompt" and len(self.columns) == 1:
            for message in copies:
                if message.get("role") == "user" and isinstance(message.get("content"), str):
                    message["content"] = self.fill(message["content"])
        if not copies:
            return copies
        return as_messages(Row({"messages": copies}), DataSettings(system=self.system), [])


def texts_of(value: str | Sequence[str]) -> list[str]:
    """A text, or several, as a list."""
    return [value] if isinstance(value, str) else as_list(value, str, "texts", TEXTS_HINT)


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; None where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
