"""The stages of every run: evaluate, train, save, evaluate again, report.

The journal records each stage that is done, so a killed run resumes with the stage in which it was killed, and training
resumes from its newest checkpoint. Depends on no particular method or task.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from lmworks.base import machine, process_memory
from lmworks.base.energy import Energy, EnergyMeter
from lmworks.base.errors import InputError, check_type
from lmworks.base.figures import count_of
from lmworks.base.files import folder_size
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.base.processor import use_threads
from lmworks.base.settings import to_yaml
from lmworks.families.sentence_pooling import MODULES, write_pooling
from lmworks.kernels import matmul, product_rates
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.result_heads import write_heads
from lmworks.reports import card, page
from lmworks.reports.several_tasks import ALONE
from lmworks.run import checks, comparison_origin, mined_negatives, prompting
from lmworks.run.evaluation_stages import evaluate_after, evaluate_before, is_evaluated
from lmworks.run.mixture import MixtureTask
from lmworks.run.recipe import Recipe
from lmworks.run.result import Run, Say, silent
from lmworks.run.setup import Setup, set_up
from lmworks.run.source import recipe_of
from lmworks.run.task_data import GivenRows, files_of_given_rows, name_given_rows
from lmworks.text import python_rows
from lmworks.train import checkpoint
from lmworks.train.hooks import Hooks
from lmworks.train.loop import Outcome, train
from lmworks.train.monitor import evaluations_during

_ONE_RUN = threading.RLock()
"""Held by the run that is going on: threads, random numbers and providers of products are settings of the process."""


def run_recipe(recipe: Recipe, say: Say | None = None, rows: GivenRows | None = None) -> Run:
    """Start a new run.

    Args:
        recipe: its settings; not changed.
        say: called with each line of progress.
        rows: training data instead of the recipe's source, of several tasks by their names; saved in the run's folder.

    Raises:
        InputError: anything about model, data or settings that cannot be used.
    """
    with _ONE_RUN:
        return _run_new(recipe, say or silent, rows)


def _run_new(recipe: Recipe, say: Say, rows: GivenRows | None) -> Run:
    recipe = recipe.model_copy(deep=True)
    checks.check_threads(recipe.train.threads)
    use_threads(recipe.train.threads)
    title = re.sub(r"[^A-Za-z0-9.]+", "-", recipe.title).strip("-")
    recipe.out = recipe.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{title}"
    precision = recipe.train.precision
    folder = Path(recipe.out)
    checks.check_folder(folder)
    name_given_rows(recipe, rows, folder)
    setup = set_up(recipe, rows, measures=recipe.train.max_time is None)  # else the time is known, and not to be spent
    reason = setup.plan.precision_reason
    say(f"precision {reason}")
    for line in (*checks.slowdown_notes(recipe.train, precision), *setup.notes, *setup.plan.lines()):
        say(line)
    run = RunFolder.create(folder, to_yaml(recipe))
    setup.source.save_for_resuming(folder)
    if not recipe.tasks:
        _input_format(setup).save(folder)
    for file, given in files_of_given_rows(rows).items():
        python_rows.save(given, folder / file)
    if setup.mined_rows is not None:
        mined_negatives.write(setup.mined_rows, folder)
    run.write("start", **_start_event(setup, reason))
    run.write("data", **_data_event(setup))
    return _run_stages(run, setup, say)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Resume a run that was killed or stopped.

    On a CPU the losses that follow are those of a run that was never stopped, bit for bit.

    Raises:
        InputError: there is no run, or its data or settings have changed.
    """
    check_type(folder, (str, Path), "run", "give the folder of a run")
    with _ONE_RUN:
        return _resume(RunFolder(folder), say or silent)


def _resume(run: RunFolder, say: Say) -> Run:
    if finished := run.events("finish"):
        say(f"{run.path} has finished already; see lmworks report {run.path}")
        if not (run.path / page.HTML).is_file():  # killed between its end and the report
            page.write(run.path, card.build(run.path))
        return Run(run.path, str(finished[-1].get("stopped")))
    started = run.events("start")
    if not started:
        raise InputError("the run was killed before it began", str(run.path), "delete the folder and start it again")
    recipe = recipe_of(run)
    use_threads(started[0]["threads"])
    setup = set_up(recipe, is_resumed=True, measures=recipe.train.max_time is None)
    say(_resume_note(run, setup.plan.steps))
    if recipe.train.memory is not None:
        say(setup.plan.choice)
    run.write("resume", threads=started[0]["threads"], preparation=setup.preparation)
    return _run_stages(run, setup, say)


def _resume_note(run: RunFolder, planned: int) -> str:
    """A note: from which step the run is resumed, and which steps are repeated."""
    done = max((event["step"] for event in run.events("step")), default=0)
    saved = max((step for step in checkpoint.steps(run) if step <= done), default=0)
    place = f"after step {saved} of {planned}" if saved else "from its beginning"
    repeated = f"; steps up to {done} were not saved and are repeated" if done > saved else ""
    return f"resuming {run.path} {place}{repeated}"


def _run_stages(run: RunFolder, setup: Setup, say: Say) -> Run:
    """Run all stages that are not done, with the evaluation providers that the run began with."""
    with matmul.providers(run.events("start")[0].get("evaluation_providers", {})):
        return _remaining_stages(run, setup, say)


def _remaining_stages(run: RunFolder, setup: Setup, say: Say) -> Run:
    started = time.monotonic()
    meter = EnergyMeter()
    meter.start()
    recipe = setup.recipe
    if not is_evaluated(run, "before"):
        evaluate_before(run, setup, say)
    process_memory.release_memory()
    setup.method.apply(setup.model.network, recipe.train.seed)
    outcome = _choose_prompt(run, setup, say) if setup.candidates else _train(run, setup, say)
    if outcome.reason == "interrupted":
        return Run(run.path, outcome.reason)
    setup.model.network.eval().requires_grad_(False)
    process_memory.release_memory()
    if run.final.exists():
        shutil.rmtree(run.final)  # written by a killed session, with the same weights
    if isinstance(setup.task, MixtureTask):
        _save_parts(setup, setup.task, run.final)
    else:
        _save(setup, run.final)
    if not is_evaluated(run, "after"):
        evaluate_after(run, setup, outcome.step, say)
    _save_choices(run, setup)
    if isinstance(setup.task, MixtureTask) and recipe.alone and not _train_alone(run, setup.task, outcome, say):
        return Run(run.path, "interrupted")
    run.write("finish", **_finish_event(run, outcome, meter.stop(), time.monotonic() - started))
    run.sync()
    page.write(run.path, card.build(run.path))
    return Run(run.path, outcome.reason)


def _train(run: RunFolder, setup: Setup, say: Say) -> Outcome:
    recipe = setup.recipe
    say(f"training: {recipe.method}, {setup.task.name}, into {run.path}")
    return train(
        setup.model.network,
        setup.train.items,
        recipe.train,
        run,
        _hooks(setup),
        transform=setup.task.sample if setup.task.is_random else None,
        mixture=setup.mixture,
        learning_rate_factors=setup.method.learning_rate_factors(setup.model.network),
    )


def _choose_prompt(run: RunFolder, setup: Setup, say: Say) -> Outcome:
    """In place of training, choose the prompt by which the model is asked from now on."""
    assert setup.candidates is not None
    say(f"nothing is trained: {setup.task.name}, into {run.path}")
    setup.model.few_shot, outcome = prompting.choose(setup.model, setup.task, setup.candidates, run, say)
    return outcome


def _train_alone(run: RunFolder, tasks: MixtureTask, outcome: Outcome, say: Say) -> bool:
    """Train each of several tasks alone, for as many steps as it had among the others, in folders of this run.

    Returns:
        Whether all have ended; False: one was interrupted.
    """
    for part, steps in zip(tasks.parts, tasks.steps_by_task(outcome.step), strict=True):
        recipe = part.alone(max(1, steps), run.path / ALONE / part.name)
        folder = Path(str(recipe.out))
        say(f"training alone: {part.name}, {count_of(max(1, steps), 'step')}, into {folder}")
        if (folder / JOURNAL).is_file() and RunFolder(folder).events("start"):
            ended = _resume(RunFolder(folder), silent)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # killed before it began
            ended = _run_new(recipe, silent, None)
        if ended.stopped == "interrupted":
            say(f"stopped; go on with: lmworks resume {run.path}")
            return False
    return True


def _hooks(setup: Setup) -> Hooks:
    """Hooks that evaluate during training and, if the model is new, generate samples."""
    evaluation = setup.evaluation
    return Hooks(
        evaluate=evaluation.held_out_figures if _evaluates_during_training(setup) else None,
        sample=(lambda network, step: evaluation.samples()) if setup.recipe.is_new else None,
        library_bytes=setup.plan.memory.get("library"),
    )


def _evaluates_during_training(setup: Setup) -> bool:
    """Whether the model is evaluated during training: not if the only evaluation would be the one after it."""
    settings, total = setup.recipe.train, setup.plan.steps
    evaluations = evaluations_during(settings, total, settings.steps_per_epoch(len(setup.train)))
    return bool(setup.held_out.items) and evaluations > 0


def _save(setup: Setup, folder: Path) -> None:
    """Save the result: what the method saves, or the whole model if it is new; with the input format."""
    model, pooling = setup.model, setup.model.pooling
    setup.task.finish(model)
    if setup.recipe.is_new:
        model.save(folder)
    else:
        setup.method.save(model, folder, str(setup.recipe.model))
    if model.few_shot is not None:
        model.few_shot.save(folder)
    if model.pooling not in (None, pooling) and not (folder / MODULES).exists():  # an adapter, whose base has another
        write_pooling(folder, model.pooling, model.config.hidden_size)
    _input_format(setup).save(folder)


def _save_parts(setup: Setup, task: MixtureTask, folder: Path) -> None:
    """Save a folder for each head, as a run of its task alone saves it."""
    for part in task.parts:
        model = part.model_of(setup.model)
        part.task.finish(model)
        setup.method.save(model, folder / part.name, str(setup.recipe.model))
        part.input_format().save(folder / part.name)
    write_heads(folder, [part.name for part in task.parts])


def _save_choices(run: RunFolder, setup: Setup) -> None:
    """Save what the evaluation after training chose with the input format of the result."""
    evaluations = [event for event in run.events("evaluation") if event.get("when") == "after"]
    if isinstance(setup.task, MixtureTask):
        for part in setup.task.parts:
            if chosen := part.task.chosen_format((evaluations[-1].get("tasks") or {}).get(part.name) or {}):
                part.input_format().model_copy(update=chosen).save(run.final / part.name)
        return
    if chosen := setup.task.chosen_format(evaluations[-1]):
        _input_format(setup).model_copy(update=chosen).save(run.final)


def _input_format(setup: Setup) -> InputFormat:
    """The input format of this run, saved with its result and, for an unfinished run, in its folder."""
    recipe, opened = setup.recipe, setup.model.input_format
    slides = setup.task.slides and (recipe.is_new or (opened is not None and opened.slide))
    return setup.task.input_format(recipe.data, setup.train.choices).model_copy(update={"slide": slides})


def _start_event(setup: Setup, precision_reason: str) -> dict[str, Any]:
    recipe = setup.recipe
    return {
        "model": recipe.name if recipe.is_new else recipe.model,
        "new": recipe.is_new,
        "data": recipe.data.source,
        "working_directory": str(Path.cwd()),
        "method": recipe.method,
        **_tasks_entries(recipe),
        **comparison_origin.start_entries(recipe.comparison),
        **setup.source.start_entries(),
        "machine": machine.describe(),
        "precision": setup.plan.precision,
        "precision_reason": precision_reason,
        "evaluation_providers": setup.evaluation_providers,
        "threads": use_threads(recipe.train.threads),
        "parameters": {"total": setup.plan.parameters, "trainable": setup.plan.trainable},
        "plan": setup.plan.event(),
        "preparation": setup.preparation,
        "notes": [*setup.model.notes, *setup.method.notes(setup.model.config)],
    }


def _tasks_entries(recipe: Recipe) -> dict[str, Any]:
    """The task of a run, or its tasks."""
    if not recipe.tasks:
        return {"task": recipe.task.model_dump()}
    learns = ", ".join(f"{entry.name} ({entry.task.name})" for entry in recipe.tasks)
    return {
        "task": {"name": MixtureTask.name, "learns": learns},
        "tasks": [entry.model_dump() for entry in recipe.tasks],
    }


def _data_event(setup: Setup) -> dict[str, Any]:
    report = setup.train.report
    return {
        "rows": report.rows,
        "examples": report.examples,
        "tokens": report.tokens,
        "loss_tokens": report.loss_tokens,
        "truncated": report.truncated,
        "dropped_tokens": report.dropped_tokens,
        "skipped": report.skipped,
        "held_out": setup.held_out.report.rows,
        "divided_inside": setup.is_divided_inside,
        "held_out_examples": setup.held_out.report.examples,
        "held_out_truncated": setup.held_out.report.truncated,
        "notes": [*report.notes, *setup.evaluation.notes],
    }


def _finish_event(run: RunFolder, outcome: Outcome, energy: Energy, seconds: float) -> dict[str, Any]:
    session = outcome.session
    reached = session["flops"] / session["seconds"] if session["seconds"] else None
    peak = process_memory.peak_memory()  # before rates are measured again
    limit = _flops_limit(outcome.precision[0], reached or 0.0)
    return {
        "seconds": seconds,
        "training_seconds": session["seconds"],
        "peak_memory": peak,
        "peak_parts": session["peak_parts"] | ({"stage": "evaluation after"} if peak > session["peak_memory"] else {}),
        "flops": session["flops"],
        "energy": {"joules": energy.joules, "how": energy.how, "assumption": energy.assumption},
        "artefact": {"path": str(run.final), "bytes": folder_size(run.final)},
        "limit": limit,
        "share_of_limit": reached / limit if reached is not None and limit else None,
        "precision": outcome.precision[0],
        "stopped": outcome.reason,
        "best_step": outcome.best_step,
    }


def _flops_limit(precision: str, reached: float) -> float:
    """FLOP/s of this machine's matrix products.

    If training reached more than the limit, other programs must have disturbed the limit's measurement, which is
    repeated.
    """
    limit = product_rates.limit(precision)
    if 0 < limit < reached:
        limit = max(limit, product_rates.limit(precision, refresh=True))
    return limit
