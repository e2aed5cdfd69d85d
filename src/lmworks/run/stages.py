"""What every run goes through, whatever it trains: measured - trained - saved - measured again - told.

Each stage is told in the journal when it is done, so a killed run goes on at the stage it was in; within training,
from its newest checkpoint. Knows neither adapters nor objectives: what is special stands in the Work it is handed.
"""

from __future__ import annotations

import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import Settings, to_yaml
from lmworks.data.batch import Example, ExampleTransform
from lmworks.data.objectives import Examples
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.opening import load
from lmworks.model.transformer import Transformer
from lmworks.report import card, page
from lmworks.run.plan import Plan
from lmworks.train.hooks import Hooks
from lmworks.train.loop import Outcome, train
from lmworks.train.monitor import evaluation_interval
from lmworks.train.settings import TrainSettings

Say = Callable[[str], None]
Figures = dict[str, Any]


@dataclass
class Run:
    """What a run gives back.

    Attributes:
        folder: the run's folder.
        stopped: why training ended: "finished", "early" or "interrupted".
    """

    folder: Path
    stopped: str

    @cached_property
    def model(self) -> LanguageModel:
        """The trained model."""
        return load(self.folder)

    @property
    def card(self) -> dict[str, Any]:
        """The report card, as in report.json."""
        return card.build(self.folder)


class Exam(Protocol):
    """What a model is measured by, the same each time."""

    def measure(self) -> tuple[Figures, list[dict[str, str]]]:
        """All figures, and sample answers."""

    def held_out_figures(self, network: Transformer, step: int = 0) -> Figures:
        """What is measured on the way, among it ``loss``."""


@dataclass
class Work(ABC):
    """Model and data, ready to be trained; nothing is written yet.

    Attributes:
        settings: how it is trained.
        model: changed by training.
        train, held_out: examples.
        plan: what is to be expected.
        notes: what a person should know before it begins.
        draw: the random part of its objective, where it has one.
    """

    settings: TrainSettings
    model: LanguageModel
    train: Examples
    held_out: Examples
    plan: Plan
    notes: list[str] = field(default_factory=list)
    draw: ExampleTransform | None = None

    @property
    @abstractmethod
    def recipe(self) -> Settings:
        """All settings, resolved: what the run's folder keeps."""

    @abstractmethod
    def opening(self) -> dict[str, Any]:
        """What the journal's ``start`` says of model, data and method."""

    @abstractmethod
    def exam(self) -> Exam:
        """What it is measured by."""

    @abstractmethod
    def unfreeze(self) -> None:
        """Let what is to be trained require gradients."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the result."""

    @abstractmethod
    def keep(self, folder: Path) -> None:
        """Write into the run's new folder what a resumed run needs beside the recipe."""

    def sampler(self, exam: Any) -> Callable[[Transformer, int], list[dict[str, str]]] | None:
        """What shows on the way how the model changes; None: nothing does."""
        return None


R = TypeVar("R", bound=Settings)


def begin(recipe: R, prepare: Callable[[R], Work], name: str, say: Say | None) -> Run:
    """Start a new run.

    Args:
        recipe: its settings, with ``train`` and ``out``; not changed.
        prepare: opens model and data and checks that they fit; writes nothing.
        name: of the folder where ``out`` is not given.
        say: told each line of progress.
    """
    say = say or silent
    recipe = recipe.model_copy(deep=True)
    told: Any = recipe
    _refuse_threads(told.train.threads)
    machine.use_threads(told.train.threads)
    told.out = told.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}"
    asked = told.train.precision
    folder = Path(told.out)
    _refuse_existing(folder)
    work = prepare(recipe)
    why = work.plan.precision_reason
    say(f"precision {why}")
    for line in (*_slower(work.settings, asked), *work.notes, *work.plan.lines()):
        say(line)
    run = RunFolder.create(folder, to_yaml(work.recipe))
    work.keep(folder)
    run.write("start", **_start(work, why))
    run.write("data", **_data(work))
    return _go(run, work, say)


def go_on(folder: str | Path, read: Callable[[RunFolder], R], prepare: Callable[[R], Work], say: Say | None) -> Run:
    """Go on with a run that was killed or stopped, from where it was.

    Args:
        folder: the run's.
        read: its recipe.
        prepare: as for a new run; must give the same model and data.
        say: told each line of progress.

    Raises:
        InputError: no run there, or its data or settings are no longer the same.
    """
    say = say or silent
    run = RunFolder(folder)
    if finished := run.events("finish"):
        say(f"{run.path} has finished already; see lmworks report {run.path}")
        return Run(run.path, str(finished[-1].get("stopped")))
    started = run.events("start")
    if not started:
        raise InputError("the run was killed before it began", str(run.path), "delete the folder and start it again")
    recipe = read(run)
    told: Any = recipe
    told.train.memory = None  # what was chosen within it stands beside it, and stays
    machine.use_threads(started[0]["threads"])
    work = prepare(recipe)
    run.write("resume", threads=started[0]["threads"])
    return _go(run, work, say)


def long_rows(examples: Iterable[Example], settings: TrainSettings) -> list[str]:
    """A note on documents that are longer than a row; none where there are none.

    Args:
        examples: as they pass through the network.
        settings: of packing.
    """
    sizes = [example.size for example in examples if example.size > settings.room]
    if not sizes or not settings.packing:
        return []
    many = f"{len(sizes):,} documents are" if len(sizes) > 1 else "1 document is"
    return [
        f"{many} longer than a row of {settings.room} tokens (train.row_tokens): alone in a longer row, up to "
        f"{max(sizes):,} tokens, which asks for more memory"
    ]


def _refuse_threads(threads: int | None) -> None:
    """More threads than the processor runs at once wait for each other at every product: steps take many times longer.

    A run that goes on where there are fewer cores than it began with is not asked: its sums depend on the number.
    """
    one = machine.processor()
    most = max(one.cores, one.logical)
    if threads is not None and threads > most:
        raise InputError(
            f"{threads} threads are more than this machine runs at once ({most}): they would wait for each other",
            "train.threads",
            f"{one.cores}, one a core, is what comes without it",
        )


def _slower(settings: TrainSettings, asked: str) -> list[str]:
    """What was asked for and makes training slower on this machine: it is done, and said."""
    found, cores = [], machine.processor().cores
    if settings.threads is not None and settings.threads > cores:
        found.append(
            f"{settings.threads} threads share {cores} cores: matrix products are seldom faster than with one a core, "
            "which is what comes without train.threads"
        )
    rates = machine.rates()
    if asked == "bfloat16" and rates.bfloat16 < rates.float32:
        found.append(
            f"bfloat16 is slower than float32 on this processor: {rates.bfloat16:,.4g} beside {rates.float32:,.4g} "
            "GFLOP/s in matrix products, as measured; train.precision auto chooses the faster"
        )
    return found


def silent(line: str) -> None:
    """The default listener."""


def _go(run: RunFolder, work: Work, say: Say) -> Run:
    """All stages that are not done yet."""
    started = time.monotonic()
    meter = machine.EnergyMeter()
    meter.start()
    exam = work.exam()
    if not _evaluated(run, "before"):
        say("measuring before training")
        _measure(run, exam, "before", 0)
    machine.release_memory()
    work.unfreeze()
    say(f"training: {work.opening()['method']}, into {run.path}")
    hooks = Hooks(evaluate=exam.held_out_figures if _chooses(work) else None, sample=work.sampler(exam))
    hooks.library = work.plan.memory.get("library")
    outcome = train(work.model.network, work.train.items, work.settings, run, hooks, draw=work.draw)
    if outcome.reason == "interrupted":
        return Run(run.path, outcome.reason)
    work.model.network.eval().requires_grad_(False)
    machine.release_memory()
    if run.final.exists():
        shutil.rmtree(run.final)  # a killed session's; atomic, so it is whole, but this one's weights are the same
    work.save(run.final)
    if not _evaluated(run, "after"):
        say("measuring after training")
        _measure(run, exam, "after", outcome.step)
    run.write("finish", **_closing(run, outcome, meter.stop(), time.monotonic() - started))
    run.sync()
    page.write(run.path, card.build(run.path))
    return Run(run.path, outcome.reason)


def _chooses(work: Work) -> bool:
    """Whether training is evaluated on its way: not where the only evaluation would be the one after it."""
    settings, total = work.settings, work.plan.steps
    every = settings.evaluate_every or evaluation_interval(total, -(-len(work.train) // settings.batch_size))
    return bool(work.held_out.items) and (every < total or settings.patience is not None)


def _measure(run: RunFolder, exam: Exam, when: str, step: int) -> None:
    figures, samples = exam.measure()
    run.write("samples", when=when, step=step, items=samples)
    run.write("evaluation", when=when, step=step, **figures)


def _start(work: Work, why: str) -> dict[str, Any]:
    return {
        **work.opening(),
        "machine": machine.describe(),
        "precision": work.settings.precision,
        "precision_reason": why,
        "threads": machine.use_threads(work.settings.threads),
        "parameters": {"total": work.plan.parameters, "trainable": work.plan.trainable},
        "plan": work.plan.event(),
        "notes": work.model.notes,
    }


def _data(work: Work) -> dict[str, Any]:
    report = work.train.report
    return {
        "rows": report.rows,
        "examples": report.examples,
        "tokens": report.tokens,
        "loss_tokens": report.loss_tokens,
        "truncated": report.truncated,
        "dropped_tokens": report.dropped_tokens,
        "skipped": report.skipped,
        "held_out": work.held_out.report.rows,
        "notes": report.notes,
    }


def _closing(run: RunFolder, outcome: Outcome, energy: machine.Energy, seconds: float) -> dict[str, Any]:
    session = outcome.session
    size = sum(file.stat().st_size for file in run.final.rglob("*") if file.is_file())
    reached = session["flops"] / session["seconds"] if session["seconds"] else None
    peak = machine.peak_memory()  # before anything is measured anew
    limit = _limit(outcome.precision[0], reached or 0.0)
    return {
        "seconds": seconds,
        "training_seconds": session["seconds"],
        "peak_memory": peak,
        "peak_parts": session["peak_parts"] | ({"stage": "measuring after"} if peak > session["peak_memory"] else {}),
        "flops": session["flops"],
        "energy": {"joules": energy.joules, "how": energy.how, "assumption": energy.assumption},
        "artefact": {"path": str(run.final), "bytes": size},
        "limit": limit,
        "share_of_limit": reached / limit if reached is not None and limit else None,
        "precision": outcome.precision[0],
        "stopped": outcome.reason,
        "best_step": outcome.best_step,
    }


def _limit(precision: str, reached: float) -> float:
    """FLOP/s of this machine's matrix products; measured anew where training was faster than what was measured.

    Nothing is faster than its limit: other programs ran while that was measured.
    """
    limit = float(getattr(machine.rates(), precision)) * 1e9
    if 0 < limit < reached:
        limit = max(limit, float(getattr(machine.rates(refresh=True), precision)) * 1e9)
    return limit


def _evaluated(run: RunFolder, when: str) -> bool:
    return any(event.get("when") == when for event in run.events("evaluation"))


def _refuse_existing(folder: Path) -> None:
    """Say it before the model is opened, not after."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "is there already and not empty", str(folder), f"choose another --out, or lmworks resume {folder}"
        )
