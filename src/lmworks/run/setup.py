"""A recipe -> model, examples, task, method and plan, checked for compatibility; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmworks.adapt.method import Method
from lmworks.base import figures, preparation, process_memory
from lmworks.base.errors import InputError
from lmworks.data.batch import Example, count_labels
from lmworks.data.examples import Examples, Report
from lmworks.data.mixture import Mixture
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.run import contamination, mined_negatives, prompting_plan
from lmworks.run.defaults import note_few_held_out, settle_evaluation, settle_length
from lmworks.run.evaluation import Evaluation, sample_once
from lmworks.run.evaluation_cache import CachedEvaluation
from lmworks.run.footprint import DataStatistics, ProcessMemory
from lmworks.run.mixture import mixture_content
from lmworks.run.new_head import give_head
from lmworks.run.plan import Plan
from lmworks.run.plan import make as make_plan
from lmworks.run.prompt_candidates import PromptCandidates
from lmworks.run.recipe import Recipe
from lmworks.run.source import Source, source_of
from lmworks.run.task_data import Content, GivenRows, TaskRows, data_note, limit_held_out, make_examples, read_rows
from lmworks.tasks.task import Task
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
        mixture: the tasks that the examples are of; None: they are of one.
        mined_rows: rows to train on with mined negatives; None: nothing is mined.
        candidates: the prompts of a run that trains nothing, which chooses one.
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
    mixture: Mixture | None = None
    mined_rows: Table | None = None
    candidates: PromptCandidates | None = None


def set_up(recipe: Recipe, rows: GivenRows | None = None, is_resumed: bool = False, measures: bool = True) -> Setup:
    """Open data and model, and check that they fit the task and the method: as far as possible before weights are
    opened.

    Args:
        recipe: resolved; the task's name and the settings that a memory budget determines are written into it.
        rows: training data instead of the recipe's source; of several tasks by their names.
        is_resumed: a resumed run: nothing that changes its losses is chosen again.
        measures: whether the run may be timed for its plan.

    Raises:
        InputError: they do not fit, or there is too little memory.
    """
    prepared_before = preparation.seconds()
    source, method = source_of(recipe), recipe.adaptation
    if recipe.tasks:
        content = mixture_content(recipe, source, rows if isinstance(rows, dict) else {})
    else:
        content = _content(recipe, source, rows if isinstance(rows, list) else None, is_resumed)
    method.use_tokenizer(content.model.tokenizer)
    model, task, examples, evaluation = content.model, content.task, content.train, content.evaluation
    sampled = sample_once(task, examples.items)
    documents = replace(_statistics(sampled, examples.report, evaluation), mixture=content.mixture)
    if content.candidates is not None:
        plan = _prompting_plan(source, content, recipe.train, documents, measures)
    else:
        plan = _plan(source, method, model.config, recipe.train, documents, is_resumed, measures)
        plan.apply_to(recipe.train)
    source.convert_weights(plan.base_precision)
    notes = [*source.notes, *content.notes, *method.notes(model.config), *examples.report.notes, *evaluation.notes]
    notes += note_long_rows(sampled, recipe.train) if method.trains else []
    providers = {} if is_resumed else evaluation_providers(model.network)
    cached = None if is_resumed or content.has_new_head else _cached_evaluation(recipe, evaluation, providers)
    if content.has_new_head or (cached is not None and cached.results is not None):
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
        content.held_out,
        evaluation,
        plan,
        providers,
        cached,
        content.has_new_head,
        content.is_divided_inside,
    )
    return Setup(*parts, prepared, notes, content.mixture, content.mined_rows, content.candidates)


def _content(recipe: Recipe, source: Source, given: list[dict[str, Any]] | None, is_resumed: bool) -> Content:
    """What a run of one task trains on; arguments as of :func:`set_up`."""
    if not recipe.adaptation.trains:
        recipe.adaptation.trained_parameters(source.config)  # raises if the model cannot be asked at all
    rows = read_rows(recipe, source, given)
    request = rows.task_class.head_request(rows.table)
    if not recipe.is_new and request is None:
        recipe.adaptation.trained_parameters(source.config)  # raises if the method does not fit the model
    contamination_notes = [] if is_resumed else contamination.check(rows.train, rows.held_out, recipe.data)
    model = source.open(recipe.task, rows.train)
    has_new_head = request is not None and give_head(model, request, recipe.train.seed)
    if request is not None:
        recipe.adaptation.trained_parameters(model.config)  # whether it fits may depend on the head
    if recipe.train.learning_rate is None and recipe.adaptation.trains:
        recipe.train.learning_rate = recipe.adaptation.default_learning_rate(recipe.is_new, has_new_head)
    task = rows.task_class(recipe.task, model.tokenizer, model.config, source.decoder_start)
    if recipe.task.mined_negatives:
        rows = replace(rows, train=_with_mined_negatives(model, rows, recipe, is_resumed))
    examples, held_out = make_examples(task, rows, recipe)
    is_inside = rows.is_divided_inside
    settled = recipe  # without training the settings stay as they are, but as much is evaluated as of a trained run
    if not recipe.adaptation.trains:
        settled = recipe.model_copy(update={"train": recipe.train.model_copy()})
    length_notes = settle_length(settled, examples, len(held_out))
    notes = [data_note(examples, held_out, is_inside), *(length_notes if recipe.adaptation.trains else [])]
    notes += contamination_notes
    notes += settle_evaluation(settled, examples, held_out, task.needs_language_head)
    notes += note_few_held_out(recipe, held_out, rows.table, is_inside)
    limit_held_out(held_out, recipe.evaluate.measured)
    if task.whole_steps:  # the plan's rows are those of training
        _refuse_lone_pairs(recipe.train.batch_size, examples.items)
        recipe.train.row_tokens = recipe.train.batch_size * max(example.size for example in examples.items)
    context = recipe.adaptation.max_text_tokens(task.model)
    evaluation = Evaluation.of(model, task, held_out, rows.held_out, recipe.data, recipe.evaluate, context)
    content = Content(model, task, examples, held_out, evaluation, has_new_head, is_inside, notes)
    if recipe.task.mined_negatives:
        content.mined_rows = rows.train
    if not recipe.adaptation.trains:
        content.candidates = PromptCandidates.of(recipe, rows.train, rows.held_out, model.tokenizer, context)
        content.candidates.check_fit(model.tokenizer, evaluation.places)
    return content


def _refuse_lone_pairs(batch_size: int, items: Sequence[Example]) -> None:
    """Refuse steps in which a pair has no other text beside it: their loss is 0, whatever the model is.

    Raises:
        InputError: no step has one.
    """
    if min(batch_size, len(items)) > 1 or any(len(example.lengths) > 2 for example in items):
        return
    if len(items) == 1:
        raise InputError("one pair has no other text to be told from", items[0].place, "add rows, or negatives")
    fault = "steps of one pair have no other text to tell it from, so that their loss is 0"
    raise InputError(fault, "train.batch_size", "--train.batch_size 8; or give the rows a column negative")


def _with_mined_negatives(model: LanguageModel, rows: TaskRows, recipe: Recipe, is_resumed: bool) -> Table:
    """The rows to train on with hard negatives: mined, or of a resumed run those that its folder keeps."""
    if is_resumed:
        return mined_negatives.read(rows.train, Path(str(recipe.out)))
    return mined_negatives.mine(model, rows.train, rows.table, recipe.task, recipe.data)


def _plan(
    source: Source,
    method: Method[Any],
    config: ModelConfig,
    train: TrainSettings,
    documents: DataStatistics,
    is_resumed: bool,
    measures: bool,
) -> Plan:
    """The plan of the run, made when data and model are in memory."""
    memory = ProcessMemory(source.library_bytes(), process_memory.peak_memory())
    formats = source.weight_formats()
    choices = {"weight_formats": formats, "is_resumed": is_resumed, "measures": measures}
    plan = make_plan(config, method, train, documents, memory, **choices)  # type: ignore[arg-type]
    return plan.within(train.max_time)


def _prompting_plan(
    source: Source, content: Content, train: TrainSettings, documents: DataStatistics, measures: bool
) -> Plan:
    """The plan of a run that trains nothing."""
    assert content.candidates is not None
    memory = ProcessMemory(source.library_bytes(), process_memory.peak_memory())
    work = content.candidates.workload(content.train, content.evaluation)
    return prompting_plan.make(content.model.config, train, documents, memory, work, source.weight_formats(), measures)


def _cached_evaluation(recipe: Recipe, evaluation: Evaluation, providers: dict[str, str]) -> CachedEvaluation | None:
    """The cache's entry of the evaluation before training; None where it is not worth caching or must not be used."""
    if not recipe.evaluate.reuse or recipe.is_new or is_small(evaluation.model.config):
        return None
    return CachedEvaluation.of(evaluation, providers)


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
