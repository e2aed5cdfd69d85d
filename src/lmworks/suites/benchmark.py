"""A benchmark as data: the files in which it is published, how a row becomes a question, what is measured.

Everything that depends on a row is an expression or a template (suites/expressions) over the row's columns, the
layout's ``fields``, and ``file``, the name of its file. Knows no model.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lmworks.base.settings import Settings
from lmworks.suites.expressions import fault_of

FormName = Literal["choices", "generation", "last_word", "similarity", "retrieval", "entities"]
"""How a benchmark asks: the likeliest of some options; a text; the last word of a text; how similar two texts are;
which documents answer a query; the entities in a text."""
_EXPRESSIONS = ("choices", "answer", "references", "value", "group", "pair")
_TEMPLATES = ("prompt", "continuation", "query", "example_answer")
_NEEDED = {
    "choices": (("prompt", "continuation"), ("choices", "label_words"), ("answer",)),
    "generation": (("prompt",), ("references",)),
    "last_word": (("prompt",), ("continuation",)),
    "similarity": (("texts",), ("value",)),
    "entities": (("prompt",), ("label_words",)),
}
"""For each form the groups of settings of which it needs one."""


class Layout(Settings):
    """One of the ways in which the files of a benchmark are published."""

    file: str = Field(
        description="End of the path of its file, anywhere below the data folder; {split} is the split, * any text."
    )
    split: str = Field("test", description="The split that is evaluated, by the name that it has in this layout.")
    examples: str | None = Field(None, description="File of the rows that few-shot prompts show, in the same way.")
    beside: dict[str, str] = Field(
        default_factory=dict,
        description="Files with a line for each row, beside its file, by the line's name: {label: labels.lst}.",
    )
    read: dict[str, Any] = Field(
        default_factory=dict, description="How the file is read: settings of data, such as {header: false}."
    )
    each: dict[str, str] = Field(
        default_factory=dict,
        description="Lists within a row whose entries are rows of their own: {question: passage.questions}.",
    )
    where: str | None = Field(None, description="Which rows count.")
    fields: dict[str, str] = Field(default_factory=dict, description="Names for values of a row.")

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        texts = [*self.each.values(), *self.fields.values(), *filter(None, [self.where])]
        if fault := next(filter(None, (fault_of(text, False) for text in texts)), None):
            raise ValueError(fault)
        return self


class Benchmark(Settings):
    """One data set with the way in which a model is asked, and its metrics."""

    about: str = Field(description="What is asked, in a phrase.")
    source: str = Field("", description="Who published it.")
    url: str = Field("", description="Where its files are.")
    hub: str | None = Field(None, description="owner/name of a data set of the Hugging Face hub that has them.")
    form: FormName = Field(description="How it asks.")
    layouts: list[Layout] = Field(min_length=1, description="Tried in this order.")

    prompt: str = Field("", description="What the model is given; {{ option }} and {{ options }} may stand in it.")
    choices: str | None = Field(None, description="choices: the options of a row, a list of texts.")
    label_words: dict[str, str] = Field(
        default_factory=dict,
        description="choices, entities: each label and how it is written; of choices in place of options.",
    )
    answer: str | None = Field(
        None, description="choices: the right one: its number from 0, its text or label; or a list of these."
    )
    continuation: str = Field("{{ option }}", description="What follows the prompt.")
    separator: str = Field(" ", description="Between prompt and continuation, where neither has white space there.")
    letters: bool = Field(False, description="choices: {{ options }} lists them as A., B. ..., and a letter is asked.")
    query: str | None = Field(
        None, description="choices: the text to whose vector that of the right option is nearest; none: there is none."
    )
    references: str | None = Field(None, description="generation: the right answer, or a list of them.")
    example_answer: str | None = Field(None, description="generation: the answer that a few-shot prompt shows.")
    max_tokens: int = Field(64, ge=1, description="generation: most tokens of an answer.")
    stop: list[str] = Field(default_factory=list, description="generation: texts at which an answer ends.")
    texts: list[str] = Field(default_factory=list, description="The one or two texts that a classifier reads.")
    value: str | None = Field(None, description="similarity: how similar people found them, a number.")
    group: str | None = Field(None, description="What rows belong together: a subject, a phenomenon.")
    pair: str | None = Field(None, description="Rows that ought to have the same answer: those of one value.")
    metrics: list[str] = Field(min_length=1, description="What is measured, the headline first.")
    shots: int = Field(0, ge=0, description="Examples that are shown where nobody says how many.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for names in _NEEDED.get(self.form, ()):
            if not any(self.model_fields_set & {name} for name in names):
                raise ValueError(f"a benchmark of form {self.form} needs {' or '.join(names)}")
        expressions = [getattr(self, name) for name in _EXPRESSIONS] + self.texts
        templates = [getattr(self, name) for name in _TEMPLATES]
        faults = [fault_of(text, False) for text in filter(None, expressions)]
        faults += [fault_of(text, True) for text in filter(None, templates)]
        if fault := next(filter(None, faults), None):
            raise ValueError(fault)
        return self


class Suite(Settings):
    """Benchmarks that are run together."""

    about: str = Field(description="What it is, in a phrase.")
    includes: list[str] = Field(default_factory=list, description="Benchmarks of other suites that belong to it.")
    benchmarks: dict[str, Benchmark] = Field(default_factory=dict, description="Its own, by name.")
