"""Templates of prompts: an instruction and the pattern of each row; read from files, and applied to rows.

A row becomes a row that is asked after others (data/prompts): the same wording serves the rows that are shown as
examples and the row that is asked. Knows no model and no token.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.notation import read_yaml
from lmworks.base.settings import Settings, build
from lmworks.data.prompts import DEMONSTRATIONS, INSTRUCTION
from lmworks.text.columns import names_in
from lmworks.text.plain_text import read_text
from lmworks.text.rows import Row

DEFAULTS = Path(__file__).with_suffix(".yaml")
DIVIDER = "---"
"""The line between two candidates of a text file."""
LIST, LABELS_FIELD = "prompts", "labels"


class PromptTemplate(Settings):
    """How a model is asked: what is said once, and how each row is written."""

    model_config = ConfigDict(frozen=True)

    instruction: str = Field("", description="Stands once before everything; {labels} are all labels.")
    input: str = Field(
        "",
        description="How each row is written: {text} and {labels}, of rows with prompts {prompt}. "
        "Empty: as rows are written in training.",
    )

    def ask(self, row: Row, demonstrations: Iterable[Row], labels: Sequence[str]) -> Row:
        """A row that is asked after others.

        Args:
            row: of kind labels, completion or chat.
            demonstrations: rows of the same kind, which are shown with their answers, in this order.
            labels: all of them; empty without labels.
        """
        asked = self._written(row, labels)
        before: dict[str, Any] = {}
        if shown := [self._written(other, labels) for other in demonstrations]:
            before[DEMONSTRATIONS] = shown
        if self.instruction:
            before[INSTRUCTION] = self.instruction.format(labels=", ".join(labels))
        return Row({**asked.values, **before}, row.place, row.key)

    def _written(self, row: Row, labels: Sequence[str]) -> Row:
        """A row with its prompt as this template writes it."""
        if not self.input:
            return row
        values = dict(row.values)
        if "label" in values:
            values["prompt"] = self.fill(values["text"], labels)
        elif "messages" in values:
            values["messages"] = self._messages(values["messages"])
        else:
            values["prompt"] = self.input.format(prompt=values["prompt"])
        return Row(values, row.place, row.key)

    def fill(self, text: str, labels: Sequence[str]) -> str:
        """The pattern of a text that is labelled, filled in."""
        return self.input.format(text=text, labels=", ".join(labels))

    def _messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """A conversation with what the person says as this template writes it."""
        return [
            {**message, "content": self.input.format(prompt=message["content"])}
            if message["role"] == "user" and isinstance(message.get("content"), str)
            else message
            for message in messages
        ]


def default_templates(has_labels: bool) -> list[PromptTemplate]:
    """The candidates where nobody names a file."""
    return _templates(read_yaml(DEFAULTS)["of_texts" if has_labels else "of_prompts"], str(DEFAULTS), has_labels)


def read_templates(path: str | Path, has_labels: bool) -> list[PromptTemplate]:
    """The candidates in a file.

    Args:
        path: YAML: under ``prompts`` a list of patterns, or of ``{instruction: ..., input: ...}``; of any other name:
            patterns divided by lines of ---.
        has_labels: whether rows have labels.

    Raises:
        InputError: there is none, or one lacks the field of the row, or has another.
    """
    path = Path(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        entries: Any = read_yaml(path).get(LIST)
    else:
        parts = "\n".join(read_text(path).splitlines()).split(f"\n{DIVIDER}\n")
        entries = [part.strip("\n") for part in parts]
    if not isinstance(entries, list) or not entries:
        hint = f'write {LIST}: and below it a list of patterns, or of {{instruction: "...", input: "..."}}'
        raise InputError("is no list of prompts", str(path), hint)
    return _templates(entries, str(path), has_labels)


def _templates(entries: Sequence[Any], place: str, has_labels: bool) -> list[PromptTemplate]:
    templates = []
    for number, entry in enumerate(entries, 1):
        where = f"{place}, prompt {number}"
        if isinstance(entry, str):
            entry = {"input": entry}
        if not isinstance(entry, dict):
            hint = 'write a pattern, or {instruction: "...", input: "..."}'
            raise InputError("is no prompt", where, hint)
        template = build(PromptTemplate, entry, where)
        if isinstance(entry.get("input"), str):
            _check_fields(template.input, "text" if has_labels else "prompt", has_labels, f"{where}, input")
        _check_fields(template.instruction, None, has_labels, f"{where}, instruction")
        templates.append(template)
    return templates


def _check_fields(pattern: str, needed: str | None, has_labels: bool, place: str) -> None:
    """Refuse a pattern without the field of the row, or with fields that rows do not have."""
    allowed = [*([needed] if needed else []), *([LABELS_FIELD] if has_labels else [])]
    try:
        fields = names_in(pattern)
    except InputError as error:
        raise InputError(error.fault, place, error.hint) from error
    if any(spec or conversion for _, name, spec, conversion in string.Formatter().parse(pattern) if name is not None):
        raise InputError("has a field with a format", place, "let fields stand alone, as {text}")
    if needed is not None and needed not in fields:
        raise InputError(f"has no {{{needed}}}, where the row stands", place, f"write {{{needed}}} into it")
    if unknown := [field for field in fields if field not in allowed]:
        listed = list_names([f"{{{name}}}" for name in allowed]) or "none"
        hint = f"the fields here are {listed}; write {{{{ and }}}} for braces"
        raise InputError(f"has {{{unknown[0]}}}, which is no field", place, hint)
