"""What is looked at while a network trains: evaluations, samples, boards. Knows no data and makes no step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.model.transformer import Transformer
from lmworks.train.progress import TrainingProgress
from lmworks.train.settings import MOST_EVALUATIONS, TrainSettings


@dataclass
class Hooks:
    """What the caller adds to the loop.

    Attributes:
        evaluate: (network in evaluation mode, step) -> figures of the held-out rows, among them ``loss``; those that
            are floats are shown.
        sampled: (network in evaluation mode, step) -> what it writes or fills in by now, each with ``prompt`` and
            ``answer``; asked after each evaluation (without one: as often), shown, and kept as an event ``samples``.
        stepped: told of every step's journal line.
        console: where progress is written; None: standard error.
        quiet: no progress lines.
        library: bytes that the process holds beside the model, where the caller knows them.
    """

    evaluate: Callable[[Transformer, int], dict[str, Any]] | None = None
    sampled: Callable[[Transformer, int], list[dict[str, str]]] | None = None
    stepped: Callable[[dict[str, Any]], None] | None = None
    console: Console | None = None
    quiet: bool = False
    library: int | None = None


class Watch:
    """Looks at a network every so many steps, and remembers when it was best.

    Args:
        network: looked at in evaluation mode, without gradients.
        hooks: what to ask.
        run: gets the events ``evaluation`` and ``samples``; what it has of a step already is not asked again.
        progress: is told.
        settings: how often.
        total: steps of the run. epoch: steps of one pass over the data.
        inside: the precision in which it is asked.

    Attributes:
        best: ``loss`` and ``step`` of the best evaluation; empty before the first.
        bad: evaluations since then.
    """

    def __init__(
        self,
        network: Transformer,
        hooks: Hooks,
        run: RunFolder,
        progress: TrainingProgress,
        settings: TrainSettings,
        total: int,
        epoch: int,
        inside: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.network, self.hooks, self.run, self.progress = network, hooks, run, progress
        self.total, self.inside = total, inside
        self.every = settings.evaluate_every or spacing(total, epoch)
        self.best: dict[str, float] = {}
        self.bad = 0
        self.evaluated = {e["step"]: e["held_out"] for e in run.events("evaluation") if e["when"] == "step"}
        self.shown = {e["step"] for e in run.events("samples") if e["when"] == "step"}
        self.board = _board(run) if settings.tensorboard else None

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation."""
        return int(self.best["step"]) if self.best else None

    def stepped(self, line: dict[str, Any]) -> None:
        """A step is done; this is its line of the journal."""
        if self.board is not None:
            for key in ("loss", "learning_rate", "gradient_norm"):
                self.board.add_scalar(f"train/{key}", line[key], line["step"])
        if self.hooks.stepped is not None:
            self.hooks.stepped(line)

    def look(self, step: int) -> bool:
        """Look if it is time to; whether this evaluation is the best so far."""
        if step % self.every and step != self.total:
            return False
        found = self._figures(step) if self.hooks.evaluate is not None else {}
        floats = {name: value for name, value in found.items() if isinstance(value, float)}
        said = [f"step {step}: held out: " + "  ".join(f"{name} {value:.4f}" for name, value in floats.items())]
        self.progress.tell([*(said if floats else []), *self._samples(step)], step)
        if self.board is not None:
            for name, value in floats.items():
                self.board.add_scalar(f"held_out/{name}", value, step)
        if not found:
            return False
        if not self.best or found["loss"] < self.best["loss"]:
            self.best, self.bad = {"loss": found["loss"], "step": step}, 0
            return True
        self.bad += 1
        return False

    def close(self) -> None:
        """Nothing more is to come."""
        if self.board is not None:
            self.board.close()

    def _figures(self, step: int) -> dict[str, Any]:
        """Of the held-out rows; where a killed session measured this step already, its figures."""
        if step not in self.evaluated:
            self.evaluated[step] = self._asked(self.hooks.evaluate, step)
            self.run.write("evaluation", when="step", step=step, held_out=self.evaluated[step])
        return dict(self.evaluated[step])

    def _samples(self, step: int) -> list[str]:
        """What the network writes by now, a line each."""
        if self.hooks.sampled is None or step in self.shown:
            return []
        items = self._asked(self.hooks.sampled, step)
        self.run.write("samples", when="step", step=step, items=items)
        return [f"    {item['prompt']} → {item['answer']}" for item in items]

    def _asked(self, hook: Any, step: int) -> Any:
        self.network.eval()
        with torch.no_grad(), self.inside():
            return hook(self.network, step)


def spacing(total: int, epoch: int) -> int:
    """Steps between evaluations where nobody says: an epoch, or as many whole ones as keep their number small."""
    return epoch * math.ceil(total / (MOST_EVALUATIONS * epoch))


def _board(run: RunFolder) -> Any:
    """A writer of TensorBoard events into the run's folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard is not installed", "train.tensorboard", "pip install 'lmworks[tensorboard]', or set it false"
        ) from None
    return SummaryWriter(str(run.path / "tensorboard"))
