"""A recipe -> model, examples, task, method and plan, checked for compatibility; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lmworks.adapt.method import Method
from lmworks.base import figures, preparation, process_memory
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example, count_labels
from lmworks.data.examples import Examples, Report, check_report, count
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.run.defaults import note_few_held_out, settle_evaluation, settle_length
from lmworks.run.evaluation import Evaluation, sample_once, spread
from lmworks.run.evaluation_cache import CachedEvaluation
from lmworks.run.footprint import DataStatistics, ProcessMemory
from lmworks.run.new_head import give_head
from lmworks.run.plan import Plan
from lmworks.run.plan import make as make_plan
from lmworks.run.recipe import Recipe
from lmworks.run.source import Source, source_of
from lmworks.tasks import registry
from lmworks.tasks.task import Task
from lmworks.text import corpus
from lmworks.text.rows import Table
from lmworks.train.arithmetic import evaluation_providers, is_small
from lmworks.train.settings import TrainSettings


@dataclass
class Setup:
    """Everything that a run needs.

    Attributes:
        recipe: with the task's name filled in.
        source: of the model.
        model: changed by training.
        method: how the model is trained.
        task: what it learns.
        train, held_out: examples.
        evaluation: of the model before and after training.
        plan: expected time, memory and disk.
        has_new_head: whether the model was given a head that knows nothing yet.
        evaluation_providers: matmul provider by shape in evaluation (kernels/matmul), of a new run.
        cached_evaluation: the cache's entry of the evaluation before training; None: it is not cached.
        is_divided_inside: whether the held-out rows are the ends of the rows to train on.
        preparation: seconds of fetching and measuring, by name, which a later run finds in the cache.
        notes: for the user, before the run starts.
    """

    recipe: Recipe
    source: Source
    model: LanguageModel
    method: Method[Any]
    task: Task
    train: Examples
    held_out: Examples
    evaluation: Evaluation
    plan: Plan
    evaluation_providers: dict[str, str]
    cached_evaluation: CachedEvaluation | None
    has_new_head: bool
    is_divided_inside: bool = False
    preparation: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def set_up(recipe: Recipe, rows: list[dict[str, Any]] | None = None, is_resumed: bool = False) -> Setup:
    """Open data and model, and check that they fit the task and the method: as far as possible before weights are
    opened.

    Args:
        recipe: resolved; the task's name and the settings that a memory budget determines are written into it.
        rows: training data instead of the recipe's source.
        is_resumed: a resumed run: nothing that changes its losses is chosen again.

    Raises:
        InputError: they do not fit, or there is too little memory.
    """
    prepared_before = preparation.seconds()
    source, method = source_of(recipe), recipe.adaptation
    table = corpus.read(recipe.data.source if rows is None else rows, recipe.data)
    task_class = registry.choose(recipe.task, table.kind, source.config, source.existing_tokenizer, table.name)
    recipe.task.name = task_class.name
    if not recipe.is_new:
        method.trained_parameters(source.config)  # raises if the method does not fit the model
    if recipe.data.on_bad_row == "skip" and (tokenizer := source.existing_tokenizer()) is not None:
        table = task_class.usable_rows(table, tokenizer, recipe.data)
    train_rows, held_out_rows = corpus.split(table, recipe.data)
    model = source.open(recipe.task, train_rows)
    request = task_class.head_request(table)
    has_new_head = request is not None and give_head(model, request, recipe.train.seed)
    if recipe.train.learning_rate is None:
        recipe.train.learning_rate = method.default_learning_rate(recipe.is_new, has_new_head)
    task = task_class(recipe.task, model.tokenizer, model.config, source.decoder_start)
    examples = _training_examples(task, train_rows, table, recipe)
    held_out = _held_out_examples(task, held_out_rows, recipe)
    is_inside = len(held_out_rows) > 0 and len(train_rows) == len(table)
    notes = [_data_note(examples, held_out, is_inside), *settle_length(recipe, examples, len(held_out))]
    notes += settle_evaluation(recipe, examples, held_out)
    notes += note_few_held_out(recipe, held_out, table, is_inside)
    _limit_held_out(held_out, recipe.evaluate.measured)
    if task.whole_steps:  # the plan's rows are those of training
        recipe.train.row_tokens = recipe.train.batch_size * max(example.size for example in examples.items)
    evaluation = Evaluation.of(model, task, held_out, held_out_rows, recipe.data, recipe.evaluate)
    sampled = sample_once(task, examples.items)
    documents = _statistics(sampled, examples.report, evaluation)
    plan = _plan(source, method, model.config, recipe.train, documents, is_resumed)
    plan.apply_to(recipe.train)
    source.convert_weights(plan.base_precision)
    notes = [*source.notes, *notes, *examples.report.notes, *evaluation.notes, *note_long_rows(sampled, recipe.train)]
    providers = {} if is_resumed else evaluation_providers(model.network)
    cached = None if is_resumed or has_new_head else _cached_evaluation(recipe, evaluation, providers)
    if has_new_head or (cached is not None and cached.results is not None):
        plan = plan.without_evaluation_before()
    prepared = preparation.seconds_since(prepared_before)
    notes += [f"{work} took {figures.duration(seconds)}; the result is kept" for work, seconds in prepared.items()]
    parts = (
        recipe,
        source,
        model,
        method,
        task,
        examples,
        held_out,
        evaluation,
        plan,
        providers,
        cached,
        has_new_head,
        is_inside,
    )
    return Setup(*parts, prepared, notes)


def _training_examples(task: Task, rows: Table, table: Table, recipe: Recipe) -> Examples:
    """The examples to train on.

    Args:
        task: makes them.
        rows: to train on.
        table: all rows, for errors.
        recipe: settings of the data.

    Raises:
        InputError: rows cannot be learned, or the text is too short for a new model.
    """
    examples = task.examples(rows, recipe.data, task.model.max_position_embeddings)
    check_report(examples.report, recipe.data)
    if recipe.is_new:
        _refuse_short(examples, task.model, table)
    return examples


def _held_out_examples(task: Task, rows: Table, recipe: Recipe) -> Examples:
    if not len(rows):
        return Examples([], Report(rows.kind, ""))
    return task.examples(rows, recipe.data, task.model.max_position_embeddings)


def _plan(
    source: Source,
    method: Method[Any],
    config: ModelConfig,
    train: TrainSettings,
    documents: DataStatistics,
    is_resumed: bool,
) -> Plan:
    """The plan of the run, made when data and model are in memory."""
    memory = ProcessMemory(source.library_bytes(), process_memory.peak_memory())
    formats = source.weight_formats()
    plan = make_plan(config, method, train, documents, memory, weight_formats=formats, is_resumed=is_resumed)
    return plan.within(train.max_time)


def _cached_evaluation(recipe: Recipe, evaluation: Evaluation, providers: dict[str, str]) -> CachedEvaluation | None:
    """The cache's entry of the evaluation before training; None where it is not worth caching or must not be used."""
    if not recipe.evaluate.reuse or recipe.is_new or is_small(evaluation.model.config):
        return None
    return CachedEvaluation.of(evaluation, providers)


def _data_note(examples: Examples, held_out: Examples, is_inside: bool) -> str:
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


def _limit_held_out(held_out: Examples, most: int | None) -> None:
    """Keep only ``most`` held-out examples, at equal intervals."""
    if most is not None and len(held_out) > most:
        held_out.items = spread(held_out.items, most)
        count(held_out.items, held_out.report)


def _statistics(examples: list[Example], report: Report, evaluation: Evaluation) -> DataStatistics:
    """Statistics of the examples, and of the evaluations, for the plan."""
    sources = [len(example.source) for example in examples if example.source is not None]
    answers, labels = evaluation.answer_workload(), count_labels(examples)
    return DataStatistics(
        [example.width for example in examples],
        sources=sources,
        loss_tokens=report.loss_tokens if evaluation.task.needs_language_head else 0,  # whose logits are computed
        labels=labels,
        evaluation_tokens=evaluation.tokens() + answers.prompt_tokens,
        held_out_tokens=sum(example.size for example in evaluation.held_out),
        answer_rows=answers.rows,
        answer_steps=answers.steps,
        answer_cache_bytes=answers.cache_bytes,
    )


def note_long_rows(examples: Iterable[Example], settings: TrainSettings) -> list[str]:
    """A note if documents are longer than a row.

    Args:
        examples: with their random part sampled.
        settings: of packing.
    """
    sizes = [example.size for example in examples if example.size > settings.row_capacity]
    if not sizes or not settings.packing:
        return []
    many = f"{len(sizes):,} documents are" if len(sizes) > 1 else "1 document is"
    return [
        f"{many} longer than a row of {settings.row_capacity} tokens (train.row_tokens): alone in a longer row, up to "
        f"{max(sizes):,} tokens, which asks for more memory"
    ]


def _refuse_short(examples: Examples, config: ModelConfig, table: Table) -> None:
    """Raise if the training text is shorter than one context: later positions would get no training."""
    context, tokens = config.max_position_embeddings, examples.report.tokens
    if table.kind == "text" and tokens < context:
        raise InputError(
            f"the training text is {tokens} tokens, shorter than one context of {context}",
            table.name,
            f"give more text, or shorten the context: --model.max_position_embeddings {max(2, tokens // 2)}",
        )
