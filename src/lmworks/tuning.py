"""Tune and resume: ties data, model, loop and measurement to a run folder. The commands are thin over it.

A run goes through stages, each told in the journal when it is done: before (measured) - trained - saved - after
(measured) - finished. A killed run goes on at the stage it was in; within training, from its newest checkpoint.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lmworks import recipe as recipes
from lmworks.adapt import attach
from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder
from lmworks.base.journal import RunFolder
from lmworks.base.settings import to_yaml
from lmworks.data import objectives
from lmworks.data.objectives import Examples
from lmworks.examination import Examination
from lmworks.language_model import LanguageModel
from lmworks.opening import load
from lmworks.plan import Plan
from lmworks.plan import make as make_plan
from lmworks.recipe import Recipe
from lmworks.report import card, page
from lmworks.text import corpus
from lmworks.text.rows import Table
from lmworks.train.loop import Hooks, Outcome, train

Say = Callable[[str], None]


@dataclass
class Run:
    """What tuning gives back.

    Attributes:
        folder: the run's folder.
        stopped: why training ended: "finished", "early" or "interrupted".
    """

    folder: Path
    stopped: str

    @cached_property
    def model(self) -> LanguageModel:
        """The tuned model."""
        return load(self.folder)

    @property
    def card(self) -> dict[str, Any]:
        """The report card, as in report.json."""
        return card.build(self.folder)


@dataclass
class Prepared:
    """Model and data, ready to be trained."""

    recipe: Recipe
    model: LanguageModel
    train: Examples
    held_out: Examples
    held_out_rows: Table
    plan: Plan
    notes: list[str] = field(default_factory=list)


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
    say = say or _silent
    machine.use_threads(recipe.train.threads)
    recipe = recipe.model_copy(deep=True)
    recipe.out = recipe.out or _folder_name(recipe)
    recipe.train.precision, why = machine.choose_precision(recipe.train.precision, "cpu")  # type: ignore[assignment]
    _refuse_existing(Path(recipe.out))
    prepared = prepare(recipe)
    say(f"precision {why}")
    for line in (*prepared.notes, *prepared.plan.lines()):
        say(line)
    run = RunFolder.create(recipe.out, to_yaml(recipe))
    run.write("start", **_opening(prepared, why))
    run.write("data", **_data_event(prepared))
    return _go(run, prepared, say)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Go on with a run that was killed or stopped, from where it was.

    On a CPU the losses that follow are those of a run that was never stopped, bit for bit.

    Raises:
        InputError: no run there, or its data or settings are no longer the same.
    """
    say = say or _silent
    run = RunFolder(folder)
    if _done(run, "finish"):
        say(f"{run.path} has finished already; see lmworks report {run.path}")
        return Run(run.path, str(run.events("finish")[-1].get("stopped")))
    recipe = recipes.read(run.recipe)
    recipe.out = str(run.path)
    started = run.events("start")
    if not started:
        raise InputError("the run was killed before it began", str(run.path), "delete the folder and start it again")
    machine.use_threads(started[0]["threads"])
    prepared = prepare(recipe)
    run.write("resume", threads=started[0]["threads"])
    return _go(run, prepared, say)


def prepare(recipe: Recipe) -> Prepared:
    """Open model and data and check that they fit together; nothing is written.

    Raises:
        InputError: they do not.
    """
    model = load(recipe.model)
    if recipe.method == "lora":
        attach.meant_by(model.network, recipe.lora)
    table = corpus.read(recipe.data.source, recipe.data)
    train_rows, held_out_rows = corpus.split(table, recipe.data)
    context = model.config.max_position_embeddings
    examples = objectives.examples(train_rows, model.tokenizer, recipe.data, context)
    objectives.check(examples.report, recipe.data)
    held_out = objectives.examples(held_out_rows, model.tokenizer, recipe.data, context)
    plan = make_plan(
        model.config,
        recipe.method,
        recipe.train,
        recipe.lora,
        [len(example) for example in examples],
        loss_tokens=examples.report.loss_tokens,
        evaluation_tokens=2 * held_out.report.tokens,
    )
    notes = [*model.notes, *examples.report.notes]
    return Prepared(recipe, model, examples, held_out, held_out_rows, plan, notes)


def _go(run: RunFolder, prepared: Prepared, say: Say) -> Run:
    """All stages that are not done yet."""
    started = time.monotonic()
    meter = machine.EnergyMeter()
    meter.start()
    recipe, model = prepared.recipe, prepared.model
    exam = Examination.of(model, prepared.held_out, prepared.held_out_rows, recipe)
    if not _evaluated(run, "before"):
        say("measuring before training")
        _measure(run, exam, "before", 0)
    network = model.network
    if recipe.method == "lora":
        attach.attach(network, recipe.lora, recipe.train.seed)
    else:
        network.requires_grad_(True)
    say(f"training: {recipe.method}, into {run.path}")
    hooks = Hooks(evaluate=exam.held_out_figures if _chooses(prepared) else None)
    outcome = train(network, prepared.train.items, recipe.train, run, hooks)
    if outcome.reason == "interrupted":
        return Run(run.path, outcome.reason)
    network.eval().requires_grad_(False)
    _save(run, model, recipe)
    if not _evaluated(run, "after"):
        say("measuring after training")
        _measure(run, exam, "after", outcome.step)
    run.write("finish", **_closing(run, outcome, meter.stop(), time.monotonic() - started))
    run.sync()
    page.write(run.path, card.build(run.path))
    return Run(run.path, outcome.reason)


def _chooses(prepared: Prepared) -> bool:
    """Whether training is evaluated on its way: not where the only evaluation would be the one after it."""
    settings, rows = prepared.recipe.train, len(prepared.train)
    every = settings.evaluate_every or -(-rows // settings.batch_size)
    return bool(prepared.held_out.items) and (every < prepared.plan.steps or settings.patience is not None)


def _measure(run: RunFolder, exam: Examination, when: str, step: int) -> None:
    figures, samples = exam.measure()
    run.write("samples", when=when, items=samples)
    run.write("evaluation", when=when, step=step, **figures)


def _save(run: RunFolder, model: LanguageModel, recipe: Recipe) -> None:
    """The result: an adapter's folder for LoRA, a whole model's for full fine-tuning."""
    if run.final.exists():
        shutil.rmtree(run.final)  # a killed session's; atomic, so it is whole, but this one's weights are the same
    if recipe.method == "full":
        model.save(run.final)
        return
    with atomic_folder(run.final) as folder:
        base = str(Path(recipe.model).resolve()) if Path(recipe.model).exists() else recipe.model
        attach.save_adapter(model.network, folder, model.family, base)
        model.tokenizer.save(folder)


def _opening(prepared: Prepared, why: str) -> dict[str, Any]:
    recipe, plan = prepared.recipe, prepared.plan
    return {
        "model": recipe.model,
        "data": recipe.data.source,
        "method": recipe.method,
        "machine": machine.describe(),
        "precision": recipe.train.precision,
        "precision_reason": why,
        "threads": machine.use_threads(recipe.train.threads),
        "parameters": {"total": plan.parameters, "trainable": plan.trainable},
        "plan": plan.event(),
        "notes": prepared.model.notes,
    }


def _data_event(prepared: Prepared) -> dict[str, Any]:
    report = prepared.train.report
    return {
        "rows": report.rows,
        "examples": report.examples,
        "tokens": report.tokens,
        "loss_tokens": report.loss_tokens,
        "truncated": report.truncated,
        "dropped_tokens": report.dropped_tokens,
        "skipped": report.skipped,
        "held_out": prepared.held_out.report.rows,
        "notes": report.notes,
    }


def _closing(run: RunFolder, outcome: Outcome, energy: machine.Energy, seconds: float) -> dict[str, Any]:
    session = outcome.session
    size = sum(file.stat().st_size for file in run.final.rglob("*") if file.is_file())
    limit = getattr(machine.rates(), outcome.precision[0]) * 1e9
    share = session["flops"] / session["seconds"] / limit if session["seconds"] and limit else None
    return {
        "seconds": seconds,
        "training_seconds": session["seconds"],
        "peak_memory": machine.peak_memory(),
        "flops": session["flops"],
        "energy": {"joules": energy.joules, "how": energy.how, "assumption": energy.assumption},
        "artefact": {"path": str(run.final), "bytes": size},
        "share_of_limit": share,
        "precision": outcome.precision[0],
        "stopped": outcome.reason,
        "best_step": outcome.best_step,
    }


def _done(run: RunFolder, event: str) -> bool:
    return bool(run.events(event))


def _evaluated(run: RunFolder, when: str) -> bool:
    return any(event.get("when") == when for event in run.events("evaluation"))


def _folder_name(recipe: Recipe) -> str:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(recipe.model).name).strip("-")
    return f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{name}-{recipe.method}"


def _refuse_existing(folder: Path) -> None:
    """Say it before the model is opened, not after."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "is there already and not empty", str(folder), f"choose another --out, or lmworks resume {folder}"
        )


def _silent(line: str) -> None:
    """The default listener."""
