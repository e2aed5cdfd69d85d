"""A task's rows and examples: its data set read, its task chosen, both sides made into examples. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.examples import Examples, Report, check_report, count
from lmworks.data.mixture import Mixture
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.run.evaluation import Evaluation, spread
from lmworks.run.prompt_candidates import PromptCandidates
from lmworks.run.recipe import Recipe
from lmworks.run.source import Source
from lmworks.tasks import registry
from lmworks.tasks.task import Task
from lmworks.text import corpus, python_rows
from lmworks.text.rows import Table

GivenRows = list[dict[str, Any]] | dict[str, list[dict[str, Any]]]
"""Rows given in Python; of several tasks by their names."""


@dataclass
class Content:
    """What a run trains on and is evaluated by, before its plan is made.

    Attributes:
        model: with the heads that its task needs.
        task: what it learns.
        train, held_out: examples.
        evaluation: of the model before and after training.
        has_new_head: whether the model was given a head that knows nothing yet.
        is_divided_inside: whether the held-out rows are the ends of the rows to train on.
        notes: for the user.
        mixture: the tasks that the examples are of; None: they are of one.
        mined_rows: rows to train on with mined negatives; None: nothing is mined.
        candidates: the prompts of a run that trains nothing.
    """

    model: LanguageModel
    task: Task
    train: Examples
    held_out: Examples
    evaluation: Evaluation
    has_new_head: bool
    is_divided_inside: bool
    notes: list[str]
    mixture: Mixture | None = None
    mined_rows: Table | None = None
    candidates: PromptCandidates | None = None


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task.

    Attributes:
        task_class: what is learned from them.
        table: all rows that can be used.
        train, held_out: both sides.
    """

    task_class: type[Task]
    table: Table
    train: Table
    held_out: Table

    @property
    def is_divided_inside(self) -> bool:
        """Whether the held-out rows are the ends of the rows to train on."""
        return len(self.held_out) > 0 and corpus.is_divided_inside(self.table)


def files_of_given_rows(rows: GivenRows | None) -> dict[str, list[dict[str, Any]]]:
    """Rows given in Python by the files in the run's folder that keep them."""
    if isinstance(rows, dict):
        return {f"{name}-{python_rows.FILE}": given for name, given in rows.items()}
    return {} if rows is None else {python_rows.FILE: rows}


def name_given_rows(recipe: Recipe, rows: GivenRows | None, folder: Path) -> None:
    """Name these files in a recipe as its sources."""
    if isinstance(rows, dict):
        for entry in recipe.tasks:
            if entry.name in rows:
                entry.data.source = str(folder / f"{entry.name}-{python_rows.FILE}")
        recipe.data.source = ", ".join(entry.data.source for entry in recipe.tasks)
    elif rows is not None:
        recipe.data.source = str(folder / python_rows.FILE)


def read_rows(recipe: Recipe, source: Source, rows: list[dict[str, Any]] | None, with_head: bool = False) -> TaskRows:
    """Read and divide a recipe's rows, and choose its task.

    Args:
        recipe: the task's name is written into it.
        source: of the model.
        rows: given in Python instead of the recipe's source.
        with_head: where the recipe names no task, choose one that trains a head, if there is one for these rows.

    Raises:
        InputError: they cannot be read, or no task suits them and the model.
    """
    table = corpus.read(recipe.data.source if rows is None else rows, recipe.data)
    if with_head and recipe.task.name == registry.AUTO:
        recipe.task.name = registry.head_task(table.kind) or registry.AUTO
    if not recipe.adaptation.trains:
        recipe.task.name = registry.prompted_task(recipe.task.name, table.kind, table.name)
    task_class = registry.choose(recipe.task, table.kind, source.config, source.existing_tokenizer, table.name)
    recipe.task.name = task_class.name
    if recipe.data.on_bad_row == "skip" and (tokenizer := source.existing_tokenizer()) is not None:
        table = task_class.usable_rows(table, tokenizer, recipe.data)
    return TaskRows(task_class, table, *corpus.split(table, recipe.data))


def make_examples(task: Task, rows: TaskRows, recipe: Recipe) -> tuple[Examples, Examples]:
    """The examples to train on, and those that are held out.

    Raises:
        InputError: rows cannot be learned, or the text is too short for a new model.
    """
    context = recipe.adaptation.max_text_tokens(task.model)
    examples = task.examples(rows.train, recipe.data, context)
    check_report(examples.report, recipe.data)
    if recipe.is_new:
        _refuse_short(examples, task.model, rows.table)
    if not len(rows.held_out):
        return examples, Examples([], Report(rows.held_out.kind, ""))
    return examples, task.examples(rows.held_out, recipe.data, context)


def data_note(examples: Examples, held_out: Examples, is_inside: bool) -> str:
    """The numbers of rows, examples and tokens, to train on and held out.

    Args:
        examples, held_out: both sides.
        is_inside: whether the held-out rows are the ends of the rows to train on.
    """
    content, rest = (
        f"{count_of(len(part), 'example')} of {count_of(part.report.tokens, 'token')}" for part in (examples, held_out)
    )
    if is_inside:
        texts, each = count_of(examples.report.rows, "text"), "it" if examples.report.rows == 1 else "each"
        return f"{texts}: {content} to train on; the end of {each}, {rest}, held out"
    note = f"{count_of(examples.report.rows, 'row')} to train on in {content}"
    return f"{note}; {count_of(held_out.report.rows, 'row')} held out in {rest}" if len(held_out) else note


def limit_held_out(held_out: Examples, most: int | None) -> None:
    """Keep only ``most`` held-out examples, at equal intervals."""
    if most is not None and len(held_out) > most:
        held_out.items = spread(held_out.items, most)
        count(held_out.items, held_out.report)


def _refuse_short(examples: Examples, config: ModelConfig, table: Table) -> None:
    """Raise if the training text is shorter than one context: later positions would get no training."""
    context, tokens = config.max_position_embeddings, examples.report.tokens
    if table.kind == "text" and tokens < context:
        raise InputError(
            f"the training text is {tokens} tokens, shorter than one context of {context}",
            table.name,
            f"give more text, or shorten the context: --model.max_position_embeddings {max(2, tokens // 2)}",
        )
