"""Evaluations, samples and TensorBoard during training, and which step was best. It neither reads data nor trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.model.transformer import Transformer
from lmworks.train.hooks import Hooks
from lmworks.train.progress import TrainingProgress
from lmworks.train.settings import MOST_EVALUATIONS, TrainSettings

Result = TypeVar("Result")


class Monitor:
    """Evaluates a network at regular steps, and records which evaluation was best.

    Args:
        network: evaluated in evaluation mode, without gradients.
        hooks: ``evaluate`` and ``sample`` are called.
        run: the events ``evaluation`` and ``samples`` are written to it; steps that have their event are not repeated.
        progress: shows the figures.
        settings: the interval of evaluations.
        total_steps: of the run.
        epoch_steps: of one pass over the data.
        autocast: opens the autocast context of an evaluation.
        precision: its name; evaluations before and after training are in float32.

    Attributes:
        best: ``loss`` and ``step`` of the best evaluation; empty before the first.
        evaluations_since_best: how many evaluations came after it.
    """

    def __init__(
        self,
        network: Transformer,
        hooks: Hooks,
        run: RunFolder,
        progress: TrainingProgress,
        settings: TrainSettings,
        total_steps: int,
        epoch_steps: int,
        autocast: Callable[[], AbstractContextManager[object]],
        precision: str = "float32",
    ) -> None:
        self.network, self.hooks, self.run, self.progress = network, hooks, run, progress
        self.total_steps, self.autocast, self.patience = total_steps, autocast, settings.patience
        self.interval = settings.evaluate_every or evaluation_interval(total_steps, epoch_steps)
        self.in_precision = "" if precision == "float32" else f" in {precision}"
        self.best: dict[str, float] = {}
        self.evaluations_since_best = 0
        self.evaluated = {e["step"]: e["held_out"] for e in run.events("evaluation") if e["when"] == "step"}
        self.sampled = {e["step"] for e in run.events("samples") if e["when"] == "step"}
        self.board = _tensorboard(run) if settings.tensorboard else None

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation."""
        return int(self.best["step"]) if self.best else None

    @property
    def stops_early(self) -> bool:
        """Whether the last ``patience`` evaluations were no better than the best."""
        return self.patience is not None and self.evaluations_since_best >= self.patience

    def log_step(self, line: dict[str, Any]) -> None:
        """Pass a step's journal line on to TensorBoard."""
        if self.board is not None:
            for key in ("loss", "learning_rate", "gradient_norm"):
                self.board.add_scalar(f"train/{key}", line[key], line["step"])

    def is_due(self, step: int) -> bool:
        """Whether this step is evaluated: after every ``interval`` steps, and the last one."""
        return step % self.interval == 0 or step == self.total_steps

    def evaluate(self, step: int) -> bool:
        """Evaluate and sample; returns whether this evaluation is the best so far."""
        figures = self._evaluate(step) if self.hooks.evaluate is not None else {}
        is_best = bool(figures) and self._record(figures["loss"], step)
        self._show(figures, self._sample(step), step)
        return is_best

    def close(self) -> None:
        """Close the writer of TensorBoard events."""
        if self.board is not None:
            self.board.close()

    def _evaluate(self, step: int) -> dict[str, Any]:
        """Figures of the held-out rows; from the journal if an earlier session evaluated this step."""
        assert self.hooks.evaluate is not None
        if step not in self.evaluated:
            self.evaluated[step] = self._call(self.hooks.evaluate, step)
            self.run.write("evaluation", when="step", step=step, held_out=self.evaluated[step])
        return dict(self.evaluated[step])

    def _sample(self, step: int) -> list[str]:
        """Texts that the network generates, one line each."""
        is_last = step == self.total_steps or self.stops_early
        if self.hooks.sample is None or step in self.sampled or is_last:
            return []  # after the last step the run generates them in any case, in float32
        items = self._call(self.hooks.sample, step)
        self.run.write("samples", when="step", step=step, items=items)
        return [f"    {item['prompt']} → {item['answer']}" for item in items]

    def _record(self, loss: float, step: int) -> bool:
        """Record an evaluation's loss; returns whether it is the best so far."""
        if not self.best or loss < self.best["loss"]:
            self.best, self.evaluations_since_best = {"loss": loss, "step": step}, 0
            return True
        self.evaluations_since_best += 1
        return False

    def _show(self, figures: dict[str, Any], samples: list[str], step: int) -> None:
        """Figures and samples as lines, and the figures to TensorBoard."""
        floats = {name: value for name, value in figures.items() if isinstance(value, float)}
        line = f"step {step}: held out{self.in_precision}: " + "  ".join(
            f"{name} {value:.4f}" for name, value in floats.items()
        )
        self.progress.show_evaluation([*([line] if floats else []), *samples], step)
        if self.board is not None:
            for name, value in floats.items():
                self.board.add_scalar(f"held_out/{name}", value, step)

    def _call(self, hook: Callable[[Transformer, int], Result], step: int) -> Result:
        self.network.eval()
        with torch.no_grad(), self.autocast():
            return hook(self.network, step)


def evaluation_interval(total_steps: int, epoch_steps: int) -> int:
    """Default steps between evaluations: one epoch, or several where a run has more than :data:`MOST_EVALUATIONS`."""
    return epoch_steps * math.ceil(total_steps / (MOST_EVALUATIONS * epoch_steps))


def evaluations_during(settings: TrainSettings, total_steps: int, epoch_steps: int) -> int:
    """Number of evaluations during training; 0 where the only one would be at the end."""
    interval = settings.evaluate_every or evaluation_interval(total_steps, epoch_steps)
    if interval >= total_steps and settings.patience is None:
        return 0
    return math.ceil(total_steps / interval)


def _tensorboard(run: RunFolder) -> Any:
    """A writer of TensorBoard events into the run's folder."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard is not installed", "train.tensorboard", "pip install 'lmworks[tensorboard]', or set it false"
        ) from None
    return SummaryWriter(str(run.path / "tensorboard"))
