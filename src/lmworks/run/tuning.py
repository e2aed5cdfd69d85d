"""Tune: ties a model, data and a method of adapting it to a run folder. The commands are thin over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.adapt import registry
from lmworks.base import machine
from lmworks.base.journal import RunFolder
from lmworks.data import objectives
from lmworks.data.prompts import accepted_rows
from lmworks.language_model.opening import load
from lmworks.model import sizes
from lmworks.run import recipe as recipes
from lmworks.run import stages
from lmworks.run.examination import Examination
from lmworks.run.footprint import Documents, ProcessMemory
from lmworks.run.plan import make as make_plan
from lmworks.run.recipe import Recipe
from lmworks.run.stages import Run, Say
from lmworks.text import corpus
from lmworks.text.rows import Table

__all__ = ["Prepared", "Run", "prepare", "resume", "run_recipe", "tune"]


def tune(
    model: str,
    data: str | dict[str, Any],
    *,
    method: str = "lora",
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Run:
    """Adapt a model to a data set, measuring it before and after.

    Args:
        model: any source of a model.
        data: a file, a named data set or ``hub:owner/name``; or a dict of data settings with it as ``source``.
        method: "lora" or "full".
        out: the run's folder; must be new. Default: runs/<time>-<model>-<method>.
        say: told each line of progress; default: silent but for the progress of training.
        **settings: further groups of the recipe: ``train={"epochs": 3}``, ``lora={...}``, ``evaluate={...}``.

    Raises:
        InputError: anything about model, data or settings that cannot be used.
    """
    values = {**settings, "model": model, "data": data, "method": method}
    if out is not None:
        values["out"] = str(out)
    return run_recipe(recipes.resolve(values, "tune"), say)


def run_recipe(recipe: Recipe, say: Say | None = None) -> Run:
    """Start a new run from a recipe."""
    return stages.begin(recipe, prepare, f"{Path(recipe.model).name}-{recipe.method}", say)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Go on with a run of tune that was killed or stopped, from where it was.

    On a CPU the losses that follow are those of a run that was never stopped, bit for bit.

    Raises:
        InputError: no run there, or its data or settings are no longer the same.
    """
    return stages.go_on(folder, _recipe_of, prepare, say)


def _recipe_of(run: RunFolder) -> Recipe:
    recipe = recipes.read(run.recipe)
    recipe.out = str(run.path)
    return recipe


@dataclass(kw_only=True)
class Prepared(stages.Work):
    """A model to be adapted.

    Attributes:
        told: the recipe.
        held_out_rows: the rows that held_out was made of, for questions.
    """

    told: Recipe
    held_out_rows: Table

    @property
    def recipe(self) -> Recipe:
        """All settings."""
        return self.told

    def opening(self) -> dict[str, Any]:
        """Model, data and method."""
        return {"model": self.told.model, "data": self.told.data.source, "method": self.told.method}

    def exam(self) -> Examination:
        """Held-out loss, the task's own metric, what was forgotten."""
        return Examination.of(self.model, self.held_out, self.held_out_rows, self.told)

    def unfreeze(self) -> None:
        """The adapter alone, or every weight."""
        registry.chosen_by(self.told).apply(self.model.network, self.told.train.seed)

    def keep(self, folder: Path) -> None:
        """Nothing: the recipe names all that is needed."""

    def save(self, folder: Path) -> None:
        """An adapter's folder for LoRA, a whole model's for full fine-tuning."""
        registry.chosen_by(self.told).save(self.model, folder, self.told.model)


def prepare(recipe: Recipe) -> Prepared:
    """Open model and data and check that they fit together; nothing is written.

    Raises:
        InputError: they do not.
    """
    before = machine.resident_memory()
    model = load(recipe.model)
    opened = machine.resident_memory()
    method = registry.chosen_by(recipe)
    method.trained(model.config)  # refuses what does not fit before data is read
    table = corpus.read(recipe.data.source, recipe.data)
    table = accepted_rows(table, model.tokenizer, recipe.data)
    train_rows, held_out_rows = corpus.split(table, recipe.data)
    context = model.config.max_position_embeddings
    examples = objectives.examples(train_rows, model.tokenizer, recipe.data, context)
    objectives.check(examples.report, recipe.data)
    held_out = objectives.examples(held_out_rows, model.tokenizer, recipe.data, context)
    plan = make_plan(
        model.config,
        method,
        recipe.train,
        Documents(
            [example.width for example in examples],
            loss_tokens=examples.report.loss_tokens,
            evaluation_tokens=2 * held_out.report.tokens,
        ),
        ProcessMemory(
            _beside(before, opened, machine.resident_memory(), 4 * sizes.parameters(model.config)["total"]),
            machine.peak_memory(),
        ),
    )
    plan.settle(recipe.train)
    notes = [*model.notes, *examples.report.notes, *stages.long_rows(examples, recipe.train)]
    return Prepared(
        settings=recipe.train,
        model=model,
        train=examples,
        held_out=held_out,
        plan=plan,
        notes=notes,
        told=recipe,
        held_out_rows=held_out_rows,
    )


def _beside(before: int, opened: int, now: int, weights: int) -> int:
    """Bytes that the process holds beside the weights: libraries, tokenizer, data. Weights of a mapped file are not in
    memory before they are used."""
    return before + max(0, opened - before - weights) + max(0, now - opened)
