"""All tasks by name, and which of them suits rows and a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.base.errors import InputError
from lmworks.base.settings import nearest, spelled
from lmworks.model.config import ModelConfig
from lmworks.tasks.causal import Causal
from lmworks.tasks.chat import Chat
from lmworks.tasks.contrastive import Contrastive
from lmworks.tasks.denoising import Denoising
from lmworks.tasks.instructions import Instructions
from lmworks.tasks.labels import Labels
from lmworks.tasks.masked import Masked
from lmworks.tasks.seq2seq import SequenceToSequence
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.spans import Spans
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

AUTO = "auto"
TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Causal,
        Instructions,
        Chat,
        Labels,
        Masked,
        Spans,
        Denoising,
        SequenceToSequence,
        Contrastive,
    )
}

_COLUMNS = {
    "text": "texts (--data.columns '{text: COLUMN}')",
    "completion": "prompts and completions (--data.columns '{prompt: COLUMN, completion: COLUMN}')",
    "pairs": "sources and targets (--data.columns '{source: COLUMN, target: COLUMN}')",
    "labels": "texts and labels (--data.columns '{text: COLUMN, label: COLUMN}')",
    "chat": "conversations (messages)",
}


def task_class(name: str) -> type[Task]:
    """A task by its name, in which hyphens count as underscores.

    Raises:
        InputError: there is no such task; the nearest is named.
    """
    name = spelled(name, TASKS)
    if name not in TASKS:
        near = nearest(name, list(TASKS))
        hint = f"did you mean {near[0]}?" if near else f"{AUTO}, or one of: {', '.join(TASKS)}"
        raise InputError(f"there is no task {name!r}", "task.name", hint)
    return TASKS[name]


def check_settings(settings: TaskSettings) -> None:
    """Refuse a name that is no task's, and settings that the task does not use.

    Raises:
        InputError: the task does not use a setting; names it and the tasks that do.
    """
    if settings.name == AUTO:
        return
    task = task_class(settings.name)
    for name in settings.changed():
        if name not in task.uses:
            users = ", ".join(other.name for other in TASKS.values() if name in other.uses)
            hint = f"leave it out; it serves {users}"
            raise InputError(f"task {task.name} does not use it", f"task.{name}", hint)


def check_model(model: ModelConfig, settings: TaskSettings) -> None:
    """Refuse a model without a language head, unless the settings name a task that needs none.

    Raises:
        InputError: it is refused.
    """
    if not model.language_head and (settings.name == AUTO or task_class(settings.name).needs_language_head):
        fault = "this model only embeds: it has no language head, and the task would need one"
        hint = (
            "learn from pairs which texts belong together: --task contrastive; or take one that has a language head: "
            "a decoder such as smollm2-135m-instruct, which writes labels as text, too; a masked language model, an "
            "encoder-decoder"
        )
        raise InputError(fault, "model", hint)


def choose(
    settings: TaskSettings, kind: str, model: ModelConfig, tokenizer: Callable[[], Tokenizer | None], place: str
) -> type[Task]:
    """The task that the settings name, or that suits rows and model.

    Args:
        settings: with its name or ``auto``.
        kind: of the rows.
        model: its config.
        tokenizer: gives the model's tokenizer, where the choice depends on it; None: it is not trained yet.
        place: of the rows, for errors.

    Raises:
        InputError: no task trains such a model on such rows; says what would work.
    """
    check_model(model, settings)
    check_settings(settings)
    if settings.name != AUTO:
        task = task_class(settings.name)
        if task.architecture != model.architecture:
            fault = f"task {task.name} trains {_a(task.architecture)}; this model is {_a(model.architecture)}"
            raise InputError(fault, "task.name", _usable_tasks(kind, model.architecture))
        if kind not in task.kinds:
            fault = f"task {task.name} takes no rows of kind {kind}"
            raise InputError(fault, place, _usable_tasks(kind, model.architecture, task))
        return task
    of_model = [task for task in TASKS.values() if task.architecture == model.architecture]
    suited = [task for task in of_model if kind in task.default_for]
    if not suited:
        rows = "labels: it has no head for them" if kind == "labels" else f"rows of kind {kind}"
        raise InputError(
            f"{_a(model.architecture)} does not learn {rows}",
            place,
            _usable_tasks(kind, model.architecture),
        )
    task = suited[0]
    if len(suited) > 1 and (known := tokenizer()) is not None:
        task = next((task for task in suited if task.suits(known)), suited[-1])
    check_settings(settings.model_copy(update={"name": task.name}))
    return task


def _a(architecture: str) -> str:
    """An architecture with its article: a decoder, an encoder."""
    return f"{'an' if architecture.startswith('e') else 'a'} {architecture}"


def _usable_tasks(kind: str, architecture: str, task: type[Task] | None = None) -> str:
    """A hint: the tasks for these rows and this model, or if there are none, other rows and other models."""
    usable = [task.name for task in TASKS.values() if task.architecture == architecture and kind in task.kinds]
    if usable:
        return f"for this model and these rows: --task {' or '.join(usable)}"
    kinds = (
        task.kinds
        if task
        else [k for other in TASKS.values() if other.architecture == architecture for k in other.kinds]
    )
    rows = " or ".join(_COLUMNS[name] for name in dict.fromkeys(kinds))
    models = " or ".join(dict.fromkeys(_a(task.architecture) for task in TASKS.values() if kind in task.default_for))
    return f"give this model {rows}; or take {models} for these rows"
