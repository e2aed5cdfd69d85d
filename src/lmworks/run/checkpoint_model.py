"""Opens a model from any source, including an unfinished run, whose best or newest checkpoint is opened.

A checkpoint contains only the trained weights; the run's recipe names the base model and the method.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.language_model.opening import open_saved_model, unfinished_run

if TYPE_CHECKING:
    from lmworks.base.journal import RunFolder
    from lmworks.language_model.model import LanguageModel
    from lmworks.train.checkpoint import State


def load(source: str | Path, **options: Any) -> LanguageModel:
    """Open a model from any source; options are those of language_model/opening.open_saved_model.

    Raises:
        InputError: there is no such model, its files are damaged, or a run has no checkpoint yet.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(f"{source!r} names no model", "source", "give a folder, a file or a name as text")
    run = unfinished_run(source, **options)
    return open_saved_model(source, **options) if run is None else _of_checkpoint(run)


def _of_checkpoint(run: RunFolder) -> LanguageModel:
    from lmworks.language_model.input_format import InputFormat
    from lmworks.run.source import recipe_of, source_of
    from lmworks.text.rows import Table
    from lmworks.train import checkpoint

    notes: list[str] = []
    recipe = recipe_of(run)
    if recipe.tasks:
        hint = f"finish it first: lmworks resume {run.path}"
        raise InputError("of a run of several tasks that has not finished, no head can be opened", str(run.path), hint)
    step, state = _best(run, notes)
    source = source_of(recipe)
    model = source.open(recipe.task, Table(str(run.path), "text", []))
    source.convert_weights(recipe.train.base_precision)
    method = recipe.adaptation
    method.use_tokenizer(model.tokenizer)
    method.apply(model.network, recipe.train.seed)
    trained = {name: weight for name, weight in model.network.named_parameters() if weight.requires_grad}
    if missing := sorted(name for name in trained if f"parameter.{name}" not in state.tensors):
        hint = "restore the recipe.yaml that the run began with"
        raise InputError(f"the checkpoint of step {step} does not hold {missing[0]}", str(run.path), hint)
    if any(name.startswith("parameter.") and name.removeprefix("parameter.") not in trained for name in state.tensors):
        hint = f"finish it first: lmworks resume {run.path}"
        raise InputError("of a run that has not finished, the new head cannot be opened", str(run.path), hint)
    checkpoint.restore(state.tensors, trained)
    model.network.eval().requires_grad_(False)
    best = " (the best on held-out rows so far)" if step == state.values.get("best", {}).get("step") else ""
    notes.append(f"the run has not finished; this is step {step}{best}; to finish it: lmworks resume {run.path}")
    model.source, model.notes = str(run.path), [*model.notes, *notes]
    model.input_format = InputFormat.read(run.path)
    return model


def _best(run: RunFolder, notes: list[str]) -> tuple[int, State]:
    """Step and state of the best checkpoint, or of the newest if none was evaluated or the best was deleted."""
    from lmworks.train import checkpoint

    newest = checkpoint.newest(run, notes.append)
    if newest is None:
        hint = f"lmworks resume {run.path}"
        raise InputError("the run has not finished and has no checkpoint yet", str(run.path), hint)
    step = newest[1].values.get("best", {}).get("step")
    if step is None or step == newest[0] or step not in checkpoint.steps(run):
        return newest
    return step, checkpoint.read(run, step)
