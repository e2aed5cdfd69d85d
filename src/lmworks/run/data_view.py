"""A data set as a model sees it: its rows as examples, and what becomes of each row. Opens no weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import NEXT_SENTENCE
from lmworks.data.examples import Examples, check_report, rows_with_specials
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.model.head_requests import SEQUENCE, TOKENS
from lmworks.run.source import config_of, tokenizer_of
from lmworks.tasks import registry
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer

PLACE = re.compile(r"(.*?(?::|row )\d+): (.*)", re.DOTALL)
"""A row's place before what is wrong with it."""


class Problem(NamedTuple):
    """What a person should look at in a row.

    Attributes:
        place: of the row; empty where it is not known.
        text: what is the matter.
        example: index of the row's first example; None: it has none.
    """

    place: str
    text: str
    example: int | None


@dataclass(frozen=True)
class DataView:
    """The examples of a data set, for a task and a tokenizer.

    Attributes:
        table: the rows that can be used, those to be held out among them.
        task: what is learned from them.
        examples: all of them.
        data_settings, task_settings: as they were asked for.
        config: of the model itself, which may have no head for the task.
    """

    table: Table
    task: Task
    examples: Examples
    data_settings: DataSettings
    task_settings: TaskSettings
    config: ModelConfig

    @property
    def reason(self) -> str:
        """Why it is this task."""
        is_named = self.task_settings.name != registry.AUTO
        return "as --task says" if is_named else f"which a model like this learns from rows of kind {self.table.kind}"

    @property
    def refusal(self) -> InputError | None:
        """Why this model could not be trained on these rows; None: it could."""
        tokenizer, table = self.task.tokenizer, self.table
        try:
            task = registry.choose(self.task_settings, table.kind, self.config, lambda: tokenizer, table.name)
            task(self.task_settings, tokenizer, _with_head(self.config, task, table))
            check_report(self.examples.report, self.data_settings)
        except InputError as error:
            return error
        return None

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Names of the outputs of each head that has some."""
        return {head.name: tuple(head.labels) for head in self.task.model.heads if head.labels}

    def problems(self) -> Iterator[Problem]:
        """Rows that could not be read, rows that are left out or cut, and rows that write out special tokens."""
        report, first = self.examples.report, dict[str, int]()
        for index, example in enumerate(self.examples):
            first.setdefault(example.place, index)
        yield from (_skipped(text) for text in self.table.skipped)
        causes = {"too long (data.on_long)": report.too_long, "no token to learn": report.no_trainable}
        left_out = f"left out: {' or '.join(cause for cause, count in causes.items() if count)}"
        if any(causes.values()):
            yield from (Problem(row.place, left_out, None) for row in self.table.rows if row.place not in first)
        for index, example in enumerate(self.examples):
            if example.dropped:
                yield Problem(example.place, f"cut: {count_of(example.dropped, 'token')} left away", index)
        if report.end_without_loss:
            place, many = report.first_end_without_loss, count_of(report.end_without_loss, "row")
            yield Problem(place, f"the end of the turn carries no loss ({many} in all)", first.get(place))
        for row in rows_with_specials(self.table.rows, self.task.tokenizer):
            yield Problem(row.place, "writes out a special token, which is read as such", first.get(row.place))


def view_data(
    model: str | Path, base: str | Path | None, data: Any, settings: DataSettings, task_settings: TaskSettings
) -> DataView:
    """Read a data set and make its examples, as a run does.

    Args:
        model: any source of a model, of which config and tokenizer are read.
        base: of an adapter, where its base lies now.
        data: a file, a folder, a named data set or ``hub:owner/name``.
        settings: how it is read and written.
        task_settings: a task's name, which need not be one of this model, or ``auto``; and its settings.

    Raises:
        InputError: there is no such model, the rows cannot be read, or the task takes no such rows.
    """
    table = corpus.read(data, settings)
    tokenizer, config = tokenizer_of(model, base), config_of(model, base)
    task = _task(task_settings, table, tokenizer, config)
    table = task.usable_rows(table, tokenizer, settings)
    examples = task.examples(table, settings, config.max_position_embeddings)
    return DataView(table, task, examples, settings, task_settings, config)


def _skipped(reason: str) -> Problem:
    """A row that could not be read, by the table's reason: ``faq.jsonl:2: ...`` or ``a.parquet: row 2: ...``."""
    match = PLACE.match(reason)
    return Problem(match[1], match[2], None) if match else Problem("", reason, None)


def _task(settings: TaskSettings, table: Table, tokenizer: Tokenizer, config: ModelConfig) -> Task:
    """The task by its name, for a model that it would fit; without a name the one that suits rows and model."""
    if settings.name == registry.AUTO:
        speaking = config.model_copy(update={"language_head": True})
        task = registry.choose(settings, table.kind, speaking, lambda: tokenizer, table.name)
        return task(settings, tokenizer, _with_head(speaking, task, table))
    registry.check_settings(settings)
    task = registry.task_class(settings.name)
    follows = HeadConfig(name=NEXT_SENTENCE, kind="pooled", size=2)
    parts = {"language_head": True, "heads": (follows,), "type_vocab_size": max(config.type_vocab_size, 2)}
    fitting = config.model_copy(
        update={
            "architecture": config.architecture if config.architecture in task.architectures else task.architectures[0],
            **parts,
        }
    )
    registry.choose(settings, table.kind, fitting, lambda: tokenizer, table.name)
    return task(settings, tokenizer, _with_head(fitting, task, table))


def _with_head(config: ModelConfig, task: type[Task], table: Table) -> ModelConfig:
    """The config with the head that the task asks for, at the token that models of its architecture read; of an
    encoder-decoder, tokens are classified by its encoder alone."""
    request = task.head_request(table)
    if request is None or request.is_met_by(config.head(request.name)):
        return config
    place = "tokens" if request.name != SEQUENCE else "first" if config.architecture == "encoder" else "last"
    head = HeadConfig(kind=place, **request._asdict())
    alone = {"architecture": "encoder"} if request.name == TOKENS and config.architecture == "encoder-decoder" else {}
    return config.model_copy(update={"heads": (head,), **alone})
