"""The prompts among which a run of method prompting chooses: templates, examples, and the rows to choose on.

They are checked before anything is computed: labels that a prompt can name, examples that fit the context.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lmworks.adapt.prompting import PromptingSettings
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.base.seeds import derived_seed
from lmworks.data.examples import Examples
from lmworks.data.prompt_templates import PromptTemplate, default_templates, read_templates
from lmworks.data.prompts import DEMONSTRATIONS, Prompt, prompts
from lmworks.language_model.few_shot import (
    CONTENT_FREE,
    FewShotPrompt,
    FixedExamples,
    NearestExamples,
    ShownExamples,
    text_of,
)
from lmworks.language_model.opening import embed_by
from lmworks.run.evaluation import Evaluation
from lmworks.run.prompting_plan import PromptingWork
from lmworks.run.recipe import Recipe
from lmworks.tasks.instructions import as_prompts
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tokenizer import Tokenizer

VECTOR_BYTES = 4 * 384
"""Of a text's vector by the default encoder, for the plan."""
LONGEST = 3
"""So many of the longest rows are written with examples, to see whether they fit."""


@dataclass
class PromptCandidates:
    """What a run chooses a prompt from.

    Attributes:
        settings: of the method.
        data: of the rows.
        templates: the candidates.
        train: all training rows.
        validation: those on which a candidate is measured.
        pool: the others, of which examples are shown meanwhile.
        held_out: rows that were never trained on.
        context: tokens that the model reads.
        room: tokens that an answer may take.
    """

    settings: PromptingSettings
    data: DataSettings
    templates: list[PromptTemplate]
    train: Table
    validation: Table
    pool: Table
    held_out: Table
    context: int
    room: int

    @classmethod
    def of(cls, recipe: Recipe, train: Table, held_out: Table, tokenizer: Tokenizer, context: int) -> PromptCandidates:
        """The candidates of a recipe.

        Args:
            recipe: of method prompting, its evaluation settled.
            train, held_out: both sides of its rows.
            tokenizer: of the model.
            context: tokens that the model reads.

        Raises:
            InputError: there are too few rows, labels cannot be named, or a file of templates cannot be used.
        """
        settings: PromptingSettings = recipe.adaptation.settings
        train, held_out = as_prompts(train), as_prompts(held_out)
        has_labels = bool(train.labels)
        _check_labels(train, tokenizer)
        templates = (
            read_templates(settings.templates, has_labels) if settings.templates else default_templates(has_labels)
        )
        kept = settings.shots + (len(templates) > 1)
        if len(train) < kept:
            fault = f"{count_of(len(train), 'training row')}, and {settings.shots} examples"
            if len(templates) > 1:
                fault += f" and a row to choose among {len(templates)} prompts"
            hint = f"add rows, or show fewer: --prompting.shots {max(0, len(train) - (len(templates) > 1))}"
            raise InputError(f"{fault} are wanted", train.name, hint)
        count = min(settings.validation, len(train) // 2, len(train) - settings.shots) if len(templates) > 1 else 0
        count = max(count, int(len(templates) > 1))
        order = np.random.default_rng(derived_seed(recipe.train.seed, "prompting")).permutation(len(train))
        validation, pool = (
            replace(train, rows=[train.rows[i] for i in part]) for part in (order[:count], order[count:])
        )
        room = 0 if has_labels else recipe.evaluate.longest
        data = recipe.data
        return cls(settings, data, templates, train, validation, pool, held_out, context, room)

    @property
    def is_nearest(self) -> bool:
        """Whether each text has examples of its own."""
        return self.settings.examples == "nearest" and self.settings.shots > 0

    @property
    def calibrates(self) -> bool:
        """Whether likelihoods of labels are calibrated."""
        return self.settings.calibration and bool(self.train.labels)

    def examples(self) -> tuple[ShownExamples, ShownExamples]:
        """What is shown before rows while a prompt is chosen, and afterwards.

        Nearest examples are afterwards found among all training rows; others stay those with which it was chosen.
        """
        if not self.is_nearest:
            fixed = FixedExamples(draw(self.pool, self.settings.shots))
            return fixed, fixed
        embed = embed_by(self.settings.encoder)
        vectors = embed([text_of(row) for row in self.train.rows])
        number = {id(row): index for index, row in enumerate(self.train.rows)}
        own = vectors[[number[id(row)] for row in self.pool.rows]]
        shots, encoder = self.settings.shots, self.settings.encoder
        return (
            NearestExamples(self.pool.rows, own, shots, embed, encoder),
            NearestExamples(self.train.rows, vectors, shots, embed, encoder),
        )

    def prompt(self, template: PromptTemplate, examples: ShownExamples) -> FewShotPrompt:
        """A candidate with these examples."""
        return FewShotPrompt(template, examples, self.calibrates)

    def check_fit(self, tokenizer: Tokenizer, places: Container[str]) -> None:
        """Refuse examples that leave no room in the context for the longest rows and their answers.

        Args:
            tokenizer: of the model.
            places: of the held-out rows that fit without examples.

        Raises:
            InputError: they leave none; says how many would.
        """
        if self.is_nearest:
            return  # which examples a row has is not known yet
        rows = [*self.validation.rows, *(row for row in self.held_out.rows if row.place in places)]
        longest = replace(self.held_out, rows=sorted(rows, key=lambda row: -len(text_of(row)))[:LONGEST])
        fixed = draw(self.pool, self.settings.shots)
        asked = [self.prompt(template, FixedExamples(fixed)) for template in self.templates]
        self.check_prompts(asked if rows else [], longest, tokenizer)

    def check_prompts(self, asked: Sequence[FewShotPrompt], table: Table, tokenizer: Tokenizer) -> None:
        """Refuse prompts that leave no room in the context for these rows and their answers.

        Raises:
            InputError: as :meth:`check_fit`.
        """
        misfits = [misfit for prompt in asked for misfit in self._misfits(prompt, table, tokenizer)]
        if not misfits:
            return
        fewest = min(misfits, key=lambda misfit: misfit.shots)
        answer = f" and an answer of up to {self.room}" if self.room else ""
        examples = count_of(self.settings.shots, "example")
        fault = f"{fewest.tokens} tokens with {examples}{answer}; the context is {self.context}"
        hint = f"show fewer: --prompting.shots {fewest.shots}"
        raise InputError(fault, fewest.place, hint if fewest.shots >= 0 else "shorten the row, or the templates")

    def _misfits(self, prompt: FewShotPrompt, table: Table, tokenizer: Tokenizer) -> Iterator[_Misfit]:
        """The rows that are too long with their examples."""
        asked = prompt.table(table)
        for row, written, whole in zip(table.rows, asked.rows, prompts(asked, tokenizer, self.data), strict=True):
            shown, shots, shorter = written.values.get(DEMONSTRATIONS, []), self.settings.shots, whole
            while shots >= 0 and not self._fits(shorter):
                shots -= 1
                fewer = shown[max(0, len(shown) - shots) :] if self.is_nearest else shown[: max(0, shots)]
                one = replace(asked, rows=[Row({**written.values, DEMONSTRATIONS: fewer}, row.place)])
                (shorter,) = prompts(one, tokenizer, self.data)
            if shots < self.settings.shots:
                yield _Misfit(row.place, whole.longest, shots)

    def workload(self, training: Examples, evaluation: Evaluation) -> PromptingWork:
        """What is read to choose a prompt and to evaluate by it.

        Args:
            training: examples of the training rows, which say how long a row is.
            evaluation: of the held-out rows.
        """
        sizes = [example.size for example in training.items]
        row = sum(sizes) / max(1, len(sizes))
        shown = self.settings.shots * row
        asked = len(evaluation.held_out) + len(evaluation.prompts)
        candidates = len(self.templates) if len(self.templates) > 1 else 0
        # a row with examples of its own has content-free prompts of its own, each read after the examples
        free = len(CONTENT_FREE) * row if self.calibrates else 0.0
        read = len(self.validation) * (row + (shown + free) * self.is_nearest)
        after = asked * (shown + free) if self.is_nearest else 2 * (shown + free)
        kept = self.train.rows if self.is_nearest else self.pool.rows[: self.settings.shots]
        size = sum(len(str(value)) for each in kept for value in each.values.values())
        note = ""
        if self.is_nearest:
            size += VECTOR_BYTES * len(kept)
            note = f"besides the vectors of {count_of(len(kept), 'text')} by {self.settings.encoder}"
        longest = round((self.settings.shots + 1) * max(sizes, default=0)) if self.is_nearest else max(sizes, default=0)
        return PromptingWork(round(candidates * (read + shown)), round(after), longest, size, note)

    def _fits(self, prompt: Prompt) -> bool:
        return prompt.longest + max(0, self.room - 1) <= self.context


class _Misfit(NamedTuple):
    """A row that is too long with its examples: its place, its tokens, and with how many it fits; -1: with none."""

    place: str
    tokens: int
    shots: int


def draw(pool: Table, shots: int) -> list[Row]:
    """The first rows of a table in random order; of labels in turn, so that each has as many as possible.

    Fewer shots are the beginning of more.
    """
    if not pool.labels:
        return pool.rows[:shots]
    by_label: dict[str, list[Row]] = {}
    for row in pool.rows:
        by_label.setdefault(row.values["label"], []).append(row)
    turns = [rows[turn] for turn in range(shots) for rows in by_label.values() if turn < len(rows)]
    return turns[:shots]


def _check_labels(table: Table, tokenizer: Tokenizer) -> None:
    """Refuse labels that no prompt can name.

    Raises:
        InputError: one is empty, two are the same tokens, or all are numbers.
    """
    place = f"{table.name}, column {table.columns.get('label', 'label')!r}"
    names: dict[str, Any] = {label: f"name of {label or 'the empty label'}" for label in table.labels}
    hint = f"name them: {option('label_names', names)}"
    by_ids: dict[tuple[int, ...], str] = {}
    for label in table.labels:
        ids = tuple(tokenizer.encode(f" {label}"))
        if not label.strip() or not ids:
            raise InputError("a label is empty, and a prompt cannot name it", place, hint)
        if other := by_ids.get(ids):
            raise InputError(f"labels {other!r} and {label!r} are the same tokens of this model", place, hint)
        by_ids[ids] = label
    if table.labels and all(label.strip().lstrip("+-").isdigit() for label in table.labels):
        fault = f"the labels are numbers ({list_names(table.labels)}), which say nothing to a model that is not trained"
        raise InputError(fault, place, hint)
