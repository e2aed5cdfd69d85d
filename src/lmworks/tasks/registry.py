"""All tasks by name, and which of them suits rows and a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from lmworks.base.errors import InputError
from lmworks.base.settings import nearest, spelled
from lmworks.model.config import ModelConfig
from lmworks.tasks.causal import Causal
from lmworks.tasks.chat import Chat
from lmworks.tasks.classify import Classify
from lmworks.tasks.contrastive import Contrastive
from lmworks.tasks.denoising import Denoising
from lmworks.tasks.extract import Extract
from lmworks.tasks.instructions import Instructions
from lmworks.tasks.labels import Labels
from lmworks.tasks.masked import Masked
from lmworks.tasks.regress import Regress
from lmworks.tasks.seq2seq import SequenceToSequence
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.spans import Spans
from lmworks.tasks.tag import Tag
from lmworks.tasks.task import Task
from lmworks.tasks.with_head import HeadTask
from lmworks.text.tokenizer import Tokenizer

AUTO = "auto"
TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Causal,
        Instructions,
        Chat,
        Tag,
        Extract,
        Labels,  # before Classify, of which a model with a chat template does not need the head
        Classify,
        Regress,
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
    "pair_labels": "two texts and a label (--data.columns '{text: COLUMN, text_pair: COLUMN, label: COLUMN}')",
    "multi_labels": "texts and lists of labels (--data.columns '{text: COLUMN, labels: COLUMN}')",
    "values": "texts and values (--data.columns '{text: COLUMN, value: COLUMN}')",
    "pair_values": "two texts and a value (--data.columns '{text: COLUMN, text_pair: COLUMN, value: COLUMN}')",
    "labels": "texts and labels (--data.columns '{text: COLUMN, label: COLUMN}')",
    "chat": "conversations (messages)",
    "tags": "words with tags (CoNLL, or --data.columns '{tokens: COLUMN, tags: COLUMN}')",
    "questions": "questions, contexts and answers (--data.kind questions)",
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


def head_task(kind: str) -> str | None:
    """The task that trains a head on rows of a kind; None where there is none."""
    suited = (task for task in TASKS.values() if issubclass(task, HeadTask) and kind in task.default_for)
    return next((task.name for task in suited), None)


def prompted_task(name: str, kind: str, place: str) -> str:
    """The task of rows that a model is asked about without training.

    Args:
        name: of the task that the person named, or AUTO.
        kind: of the rows.
        place: of the rows, for errors.

    Raises:
        InputError: these rows ask nothing, or the task does not.
    """
    prompted = [task for task in TASKS.values() if issubclass(task, Instructions)]
    suited = next((task.name for task in prompted if kind in task.default_for), None)
    if suited is None:
        kinds = " or ".join(_COLUMNS[kind] for task in prompted for kind in task.default_for)
        raise InputError(f"a model is not asked about rows of kind {kind}", place, f"give {kinds}")
    if name not in (AUTO, suited):
        fault = f"task {name} is learned, and method prompting trains nothing"
        raise InputError(fault, "task.name", f"--task {suited}, or leave it out")
    return suited


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


def _check_head(task: type[Task], model: ModelConfig) -> None:
    """Refuse a task that trains the language head of a model that has none.

    Raises:
        InputError: it does.
    """
    if task.needs_language_head and not model.language_head:
        heads = " and ".join(head.name.replace("_", " ") for head in model.heads)
        has = f"it has a head for {heads}" if heads else "it only embeds"
        fault = f"task {task.name} trains a language head, and this model has none: {has}"
        hint = (
            "give it rows with labels (--data.columns '{text: COLUMN, label: COLUMN}'), or take a model with a "
            "language head: a decoder such as smollm2-135m-instruct, a masked language model, an encoder-decoder"
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
    check_settings(settings)
    if settings.name != AUTO:
        task = task_class(settings.name)
        if model.architecture not in task.architectures:
            trained = " or ".join(map(_a, task.architectures))
            fault = f"task {task.name} trains {trained}; this model is {_a(model.architecture)}"
            raise InputError(fault, "task.name", _usable_tasks(kind, model.architecture))
        if kind not in task.kinds:
            fault = f"task {task.name} takes no rows of kind {kind}"
            raise InputError(fault, place, _usable_tasks(kind, model.architecture, task))
        _check_head(task, model)
        return task
    of_model = [task for task in TASKS.values() if model.architecture in task.architectures]
    suited = [task for task in of_model if kind in task.default_for]
    if not suited:
        fault = f"{_a(model.architecture)} does not learn rows of kind {kind}"
        raise InputError(fault, place, _usable_tasks(kind, model.architecture))
    task = suited[0]
    if len(suited) > 1 and (known := tokenizer()) is not None:
        task = next((task for task in suited if task.suits(known)), suited[-1])
    check_settings(settings.model_copy(update={"name": task.name}))
    _check_head(task, model)
    return task


def _a(architecture: str) -> str:
    """An architecture with its article: a decoder, an encoder."""
    return f"{'an' if architecture.startswith('e') else 'a'} {architecture}"


def _usable_tasks(kind: str, architecture: str, task: type[Task] | None = None) -> str:
    """A hint: the tasks for these rows and this model, or if there are none, other rows and other models."""
    usable = [task.name for task in TASKS.values() if architecture in task.architectures and kind in task.kinds]
    if usable:
        return f"for this model and these rows: --task {' or '.join(usable)}"
    kinds = (
        task.kinds
        if task
        else [k for other in TASKS.values() if architecture in other.architectures for k in other.kinds]
    )
    rows = " or ".join(_COLUMNS[name] for name in dict.fromkeys(kinds))
    models = " or ".join(
        dict.fromkeys(_a(name) for task in TASKS.values() if kind in task.default_for for name in task.architectures)
    )
    return f"give this model {rows}; or take {models} for these rows"
