"""Several tasks in one run (a mixture: Raffel et al. 2020, section 3.5.2): heads on one backbone, trained together.

What the run trains on, and its evaluation, put together from those of its tasks; each task sees the model as a network
with its head alone (model/head_views) and knows of no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example
from lmworks.data.examples import Examples, Report
from lmworks.data.mixture import Mixture, MixtureSampler
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import HeadRequest
from lmworks.model.head_views import with_one_head
from lmworks.model.transformer import Transformer
from lmworks.run import contamination
from lmworks.run.defaults import note_few_held_out, settle_evaluation, settle_length
from lmworks.run.evaluation import Evaluation, Figures
from lmworks.run.new_head import give_heads
from lmworks.run.recipe import Recipe
from lmworks.run.source import Source
from lmworks.run.task_data import Content, TaskRows, data_note, limit_held_out, make_examples, read_rows
from lmworks.run.task_entries import TEMPERATURE
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Table
from lmworks.train.settings import TrainSettings


@dataclass
class Part:
    """One task of a run.

    Attributes:
        name: of the task and its head.
        recipe: of the task alone.
        config: of the class with its head alone.
        task: what is learned.
        train, held_out: its examples, as the task makes them.
        evaluation: of its held-out examples.
    """

    name: str
    recipe: Recipe
    config: ModelConfig
    task: Task
    train: Examples
    held_out: Examples
    evaluation: Evaluation

    def model_of(self, model: LanguageModel) -> LanguageModel:
        """A model with several heads, with this head alone."""
        return replace(model, network=self.view(model.network))

    def view(self, network: Transformer) -> Transformer:
        """A network with several heads, with this head alone."""
        return with_one_head(network, self.name, self.config)

    def alone(self, steps: int, folder: Path) -> Recipe:
        """The recipe of a run of this task alone: the same data, settings and evaluated rows.

        Args:
            steps: of its training.
            folder: of the run.
        """
        recipe = self.recipe.model_copy(deep=True)
        recipe.train.steps, recipe.train.patience, recipe.train.max_time = steps, None, None
        recipe.out = str(folder)
        return recipe

    def input_format(self) -> InputFormat:
        """The format of its inputs, saved with its result."""
        return self.task.input_format(self.recipe.data, self.train.choices)


def join_examples(by_task: Mapping[str, Examples]) -> Examples:
    """The examples of several tasks as one list, task after task, with labels under the tasks' names; and the sums of
    their reports.

    Args:
        by_task: the examples by the task's name; each has the labels of one head.
    """
    reports = [examples.report for examples in by_task.values()]
    report = Report("tasks", "")
    for name in ("rows", "examples", "tokens", "loss_tokens", "truncated", "dropped_tokens", "skipped", "too_long"):
        setattr(report, name, sum(getattr(own, name) for own in reports))
    report.longest = max(own.longest for own in reports)
    report.notes = [f"{name}: {note}" for name, own in by_task.items() for note in own.report.notes]
    return Examples([_labelled(example, name) for name, own in by_task.items() for example in own.items], report)


def _labelled(example: Example, name: str) -> Example:
    """An example with the labels of its one head under another name."""
    (labels,) = example.labels.values()
    return replace(example, labels={name: labels})


class MixtureTask(Task):
    """The tasks of a run as one: what the stages of a run ask of a task."""

    name = "several tasks"
    learns = "several tasks"
    architectures = ("encoder", "decoder", "encoder-decoder")
    needs_language_head = False
    kinds = ()
    default_for = ()
    figures = ()

    def __init__(self, parts: Sequence[Part], mixture: Mixture, model: LanguageModel) -> None:
        self.parts, self.mixture = list(parts), mixture
        super().__init__(TaskSettings(name=self.name), model.tokenizer, model.config)

    @property
    def losses(self) -> tuple[str, ...]:
        """The heads' losses."""
        return tuple(part.name for part in self.parts)

    def steps_by_task(self, steps: int) -> list[int]:
        """How many of the first ``steps`` steps were of each part."""
        return mixture_sampler(self.mixture, self.parts[0].recipe.train).steps_by_task(steps)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Rows belong to one of the parts, which makes examples of them."""
        raise TypeError("a row belongs to one of the tasks, which makes an example of it")

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Of each part, what a new head is compared with."""
        figures = {}
        for part in self.parts:
            if part.held_out.items:
                figures[part.name] = part.task.untrained_figures(part.train.items, part.held_out.items)
        return {"tasks": figures}


class MixtureEvaluation(Evaluation):
    """The evaluations of all parts of a MixtureTask, each with its own view of the model."""

    def run(self) -> tuple[Figures, list[dict[str, Any]]]:
        """See :meth:`Evaluation.run`; the figures of each part stand under ``tasks``."""
        by_task: dict[str, Figures] = {}
        listed: list[dict[str, Any]] = []
        for part in self.parts:
            part.evaluation.model.network = part.view(self.model.network)
            by_task[part.name], samples = part.evaluation.run()
            listed += [{**sample, "task": part.name} for sample in samples]
        held_out = {name: figures["held_out"] for name, figures in by_task.items() if "held_out" in figures}
        together = {"held_out": self._together(held_out)} if held_out else {}
        return {**together, "tasks": by_task}, listed

    def held_out_figures(self, network: Transformer, step: int = 0) -> Figures:
        """The loss of an average step: of each part its loss times its weight and its share of the steps; and the loss
        of each part."""
        training = network.training
        evaluated = [part for part in self.parts if part.evaluation.held_out]
        figures = {part.name: part.evaluation.held_out_figures(part.view(network)) for part in evaluated}
        network.train(training)
        return self._together(figures)

    @property
    def parts(self) -> Sequence[Part]:
        """The tasks."""
        assert isinstance(self.task, MixtureTask)
        return self.task.parts

    def _together(self, by_task: dict[str, Figures]) -> Figures:
        assert isinstance(self.task, MixtureTask)
        mixture, train = self.task.mixture, self.parts[0].recipe.train
        weights, shares = mixture.loss_weights, mixture.shares(train.batch_size)
        total = sum(weights[name] * shares[name] * figures["loss"] for name, figures in by_task.items())
        losses = {f"{name}_loss": figures["loss"] for name, figures in by_task.items()}
        return {"rows": sum(figures["rows"] for figures in by_task.values()), "loss": total, **losses}


def mixture_content(recipe: Recipe, source: Source, rows: Mapping[str, list[dict[str, Any]]]) -> Content:
    """What a run of several tasks trains on.

    Args:
        recipe: with ``tasks``; their names, and the length of training, are written into it.
        source: of the model.
        rows: by task, those given in Python instead of its source.

    Raises:
        InputError: rows, model and tasks do not fit together.
    """
    recipes = {entry.name: recipe.of_task(entry) for entry in recipe.tasks}
    task_rows = {name: read_rows(own, source, rows.get(name), with_head=True) for name, own in recipes.items()}
    requests = {name: _request(name, of_task) for name, of_task in task_rows.items()}
    model = source.open(recipe.task, next(iter(task_rows.values())).train)
    configs, has_new_head = give_heads(model, requests, recipe.train.seed)
    recipe.adaptation.trained_parameters(model.config)  # raises if the method does not fit the model with these heads
    if recipe.train.learning_rate is None:
        recipe.train.learning_rate = recipe.adaptation.default_learning_rate(False, has_new_head)
    tasks = {
        name: task_rows[name].task_class(own.task, model.tokenizer, configs[name], source.decoder_start)
        for name, own in recipes.items()
    }
    examples = {name: make_examples(tasks[name], task_rows[name], own) for name, own in recipes.items()}
    notes = [
        f"{name} ({tasks[name].name}): {data_note(*pair, task_rows[name].is_divided_inside)}"
        for name, pair in examples.items()
    ]
    for name, of_task in task_rows.items():
        found = contamination.check(of_task.train, of_task.held_out, recipes[name].data)
        notes += [f"{name}: {note}" for note in found]
    train, held_out = (join_examples({name: pair[side] for name, pair in examples.items()}) for side in (0, 1))
    notes += settle_length(recipe, train, len(held_out)) + settle_evaluation(recipe, train, held_out, False)
    parts = []
    for name, own in recipes.items():
        own.evaluate = _share_of_evaluation(recipe.evaluate, len(examples[name][1]), len(held_out))
        part, part_notes = _part(name, own, model, configs[name], tasks[name], task_rows[name], examples[name])
        parts.append(part)
        notes += [f"{name}: {note}" for note in part_notes]
    mixture = Mixture(
        tuple(part.name for part in parts),
        tuple(len(part.train) for part in parts),
        tuple(entry.weight for entry in recipe.tasks),
        _temperature(recipe),
    )
    notes.append(_steps_note(mixture, recipe))
    evaluated = join_examples({part.name: part.held_out for part in parts})
    task = MixtureTask(parts, mixture, model)
    evaluation = MixtureEvaluation(
        model, task, evaluated.items, [], [], "", recipe.evaluate, recipe.adaptation.max_text_tokens(model.config)
    )
    return Content(model, task, train, evaluated, evaluation, has_new_head, False, notes, mixture)


def _part(
    name: str,
    recipe: Recipe,
    model: LanguageModel,
    config: ModelConfig,
    task: Task,
    rows: TaskRows,
    examples: tuple[Examples, Examples],
) -> tuple[Part, list[str]]:
    """A task with its evaluation, and notes on that; the held-out examples are limited to those that are evaluated.

    Args:
        name: of the task and its head.
        recipe: of the task alone.
        model: with all heads.
        config: of the class with this head alone.
        task: what is learned.
        rows: its rows.
        examples: those to train on, and the held-out ones.
    """
    train, held_out = examples
    notes = note_few_held_out(recipe, held_out, rows.table, rows.is_divided_inside)
    limit_held_out(held_out, recipe.evaluate.measured)
    view = replace(model, network=with_one_head(model.network, name, config))
    context = recipe.adaptation.max_text_tokens(task.model)
    evaluation = Evaluation.of(view, task, held_out, rows.held_out, recipe.data, recipe.evaluate, context)
    return Part(name, recipe, config, task, train, held_out, evaluation), [*notes, *evaluation.notes]


def _request(name: str, rows: TaskRows) -> HeadRequest:
    """The head of a task.

    Raises:
        InputError: it trains the language head.
    """
    request = rows.task_class.head_request(rows.table)
    if request is None:
        fault = f"task {rows.task_class.name} trains no head of its own"
        hint = "several tasks in one run are classify, regress, tag and extract; train the others in a run of their own"
        raise InputError(fault, f"tasks: {name}", hint)
    return request


def _temperature(recipe: Recipe) -> float:
    named = {"proportional": 1.0, "equal": math.inf}
    return named.get(recipe.sampling, recipe.temperature or TEMPERATURE)


def _share_of_evaluation(settings: EvaluateSettings, own: int, every: int) -> EvaluateSettings:
    """The settings of a part's evaluation, whose share of the measured rows is that of its held-out rows."""
    if settings.measured is None:
        return settings
    return settings.model_copy(update={"measured": max(1, round(settings.measured * own / max(1, every)))})


def _steps_note(mixture: Mixture, recipe: Recipe) -> str:
    """How the steps are divided."""
    train = recipe.train
    sampler = mixture_sampler(mixture, train)
    by_task = zip(mixture.names, sampler.steps_by_task(len(sampler)), mixture.sizes, strict=True)
    listed = [
        f"{name} {count_of(steps, 'step')} ({figures.number(steps / train.steps_per_epoch(size))} passes over its rows)"
        for name, steps, size in by_task
    ]
    then = "; then each is trained alone for as many steps, which takes about as long again" if recipe.alone else ""
    return f"{recipe.sampling} sampling: {', '.join(listed)}{then}"


def mixture_sampler(mixture: Mixture, train: TrainSettings) -> MixtureSampler:
    """The steps of a run of several tasks."""
    return MixtureSampler(mixture, train.batch_size, train.seed, train.epochs, train.steps)
