"""The loop: examples -> steps -> a network that has learned, a journal and checkpoints.

Knows no file of data, no evaluation and no adapter: it trains what requires a gradient, on the examples it is handed,
and calls the hooks it is given. Whatever it needs to go on after a kill stands in the run's checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.batch import LANGUAGE, Example, ExampleTransform
from lmworks.data.stream import Stream
from lmworks.kernels import library
from lmworks.model.transformer import Transformer
from lmworks.train import checkpoint, identity, optimizers, rate_finder
from lmworks.train.checkpoint import State
from lmworks.train.peaks import Peaks
from lmworks.train.progress import Sums, TrainingProgress
from lmworks.train.settings import TrainSettings, sized
from lmworks.train.step import (
    StepResult,
    Workload,
    accumulate_gradients,
    frozen_in,
    products_in,
    sample,
    training_flops,
)
from lmworks.train.stopping import asked_to_stop
from lmworks.train.watching import Hooks, Watch

__all__ = ["Hooks", "Outcome", "TrainSettings", "train"]

# Between checkpoints by time: at least this long, and so long that saving takes one part in SAVING_SHARE of it.
CHECKPOINT_SECONDS, SAVING_SHARE = 30.0, 20.0


@dataclass
class Outcome:
    """How training ended.

    Attributes:
        reason: "finished", "early" (no better evaluation for ``patience`` times) or "interrupted" (by a signal).
        step: the last step made; steps: those planned.
        loss: of the last step, None where none was made.
        best_step, best_loss: of the best evaluation; the network holds these weights at the end of a run.
        precision: of the products, and why.
        session: seconds, tokens, FLOPs, peak memory and energy of this session alone.
    """

    reason: str
    step: int
    steps: int
    loss: float | None
    best_step: int | None
    best_loss: float | None
    precision: tuple[str, str]
    session: dict[str, Any] = field(default_factory=dict)


def train(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    run: RunFolder,
    hooks: Hooks | None = None,
    device: str | torch.device = "cpu",
    draw: ExampleTransform | None = None,
) -> Outcome:
    """Train whatever requires a gradient; go on from the run's newest checkpoint where there is one.

    Args:
        network: on ``device``; changed in place.
        examples: documents as tokens; with ``draw`` the fixed part of them.
        settings: all of them.
        run: the run's folder; gets a journal line a step, and checkpoints.
        hooks: evaluation and the like.
        device: where to train.
        draw: a task's random part, such as which words are hidden: (example, random numbers) -> example. Each
            step draws anew, from random numbers that follow from (seed, step, index) alone.

    Returns:
        How it ended. With an evaluation hook, the network then holds the weights of the best evaluation.

    Raises:
        InputError: nothing to train, a loss that is not a number, a full disk, a checkpoint of other data or settings.
    """
    if not examples:
        raise InputError("there are no examples to train on", hint="give more rows, or hold fewer out")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("nothing in this network requires a gradient", hint="attach an adapter, or unfreeze it")
    machine.keep_memory()
    settings = sized(settings, network.config)
    device = torch.device(device)
    precision = _as_it_began(run, settings, device)
    was_training = network.training
    network.recompute_lowest(settings.recompute)
    try:
        with frozen_in(network, precision[0]), asked_to_stop() as asked, torch.random.fork_rng(devices=[]):
            return _Training(network, examples, settings, run, hooks or Hooks(), device, draw, precision).go(asked)
    finally:
        network.train(was_training)
        network.recompute_lowest(0)


class _Training:
    """One session of one run."""

    def __init__(
        self,
        network: Transformer,
        examples: Sequence[Example],
        settings: TrainSettings,
        run: RunFolder,
        hooks: Hooks,
        device: torch.device,
        draw: ExampleTransform | None,
        precision: tuple[str, str],
    ) -> None:
        self.network, self.examples, self.settings, self.run = network, examples, settings, run
        self.hooks, self.device, self.draw, self.precision = hooks, device, draw, precision
        epochs = settings.epochs if settings.steps is None else None
        self.stream = Stream(len(examples), settings.batch_size, settings.seed, epochs, settings.steps)
        self.total = len(self.stream)
        self.named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.optimizer = optimizers.make(network, settings)
        self.peak_rate = optimizers.peak_rate(network, settings)
        self.identity = identity.of(examples, settings, draw)
        self.step, self.loss, self.reason = 0, None, ""
        self.diverged = False
        self.saved_at, self.saving_took = time.monotonic(), 0.0
        self.session: dict[str, Any] = {"seconds": 0.0, "tokens": 0, "targets": 0.0, "flops": 0.0}
        self.peaks = Peaks(hooks.library, network)
        self.workload = Workload()  # whose FLOPs are not counted yet
        limit = None if hooks.quiet else self._limit()
        self.progress = TrainingProgress(self.total, limit, hooks.console, hooks.quiet)
        inside = partial(products_in, precision[0], device)
        epoch = self.stream.steps_per_epoch
        self.watch = Watch(network, hooks, run, self.progress, settings, self.total, epoch, inside)

    step: int
    loss: float | None

    def go(self, asked: Callable[[], bool]) -> Outcome:
        """All steps that are left."""
        self._resume()
        if self.settings.find_learning_rate:
            self.peak_rate = self._found_rate()
        self.run.write("session", **self._opening())
        meter = machine.EnergyMeter()
        meter.start()
        first = self.step
        try:
            with self.progress:
                self._steps(asked)
        except Exception as fault:
            self.reason = "failed"
            if checkpoint.disk_is_full(fault) and not isinstance(fault, InputError):
                raise InputError("no room on the disk", str(self.run.path), checkpoint.ROOM_MEND) from fault
            raise
        finally:
            energy = meter.stop()
            self._sums()
            self.session |= {"first": first, "last": self.step, **self.peaks.told(self.network, self.optimizer)}
            self.session |= {"energy_joules": energy.joules, "energy_how": energy.how}
            if self.reason not in ("failed", ""):
                self.run.write("session_end", reason=self.reason, **self.session)
            self.watch.close()
        if self.reason == "interrupted":
            self.progress.say(f"stopped after step {self.step}; go on with: lmworks resume {self.run.path}")
        else:
            self._take_best()
        return Outcome(
            self.reason,
            self.step,
            self.total,
            self.loss,
            self.watch.best_step,
            self.watch.best.get("loss"),
            self.precision,
            self.session,
        )

    def _steps(self, asked: Callable[[], bool]) -> None:
        if self.reason == "interrupted":
            self.reason = ""  # of an earlier session
        for chosen in self.stream:
            if self.reason:
                return
            self._one(chosen)
            self.peaks.passed("training")
            better = self.watch.look(self.step)
            self.peaks.passed("measuring on the way")
            if self.settings.patience is not None and self.watch.bad >= self.settings.patience:
                self.reason = "early"
            elif self.step >= self.total:
                self.reason = "finished"
            elif asked():
                self.reason = "interrupted"
            if self.reason or better or self._checkpoint_is_due():
                self._save()
                self.peaks.passed("saving")
        self.reason = self.reason or "finished"

    def _one(self, chosen: Sequence[int]) -> None:
        started, step = time.perf_counter(), self.step + 1
        if not self.network.training:
            self.network.train()
        documents = sample(self.examples, chosen, self.draw, self.settings.seed, step)
        result = accumulate_gradients(self.network, documents, self.settings, step, self.precision[0], self.device)
        norm = optimizers.gradient_norm(self.named.values())
        self._check(step, result.loss, norm)
        if norm or result.has_targets:
            rate = optimizers.rate(step, self.total, self.peak_rate, self.settings)
            self.optimizer.advance(rate, norm, self.settings.clip)
        else:
            rate = 0.0
        self.step, self.loss = step, result.loss
        self._report_step(result, norm, rate, time.perf_counter() - started)

    def _report_step(self, result: StepResult, norm: float, rate: float, seconds: float) -> None:
        """Journal, display and boards."""
        line: dict[str, Any] = {
            "step": self.step,
            "loss": result.loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens": result.tokens,
            "targets": result.targets,
            "seconds": seconds,
        }
        line |= {f"{name}_loss": mean for name, mean in result.terms.items() if name != LANGUAGE}
        if self.run.write("step", **line)["event"] == "divergence" and not self.diverged:
            self.diverged = True
            self.progress.say(f"step {self.step} came out otherwise than before the interruption: see the journal")
        for key, value in (("seconds", seconds), ("tokens", result.tokens), ("targets", result.targets)):
            self.session[key] += value
        self.workload.add(result.workload)
        self.progress.update(self.step, result.loss, self._sums)
        self.watch.stepped(line)

    def _sums(self) -> Sums:
        """What all steps of this session took; counts the FLOPs of those since the last time."""
        workload, self.workload = self.workload, Workload()
        if workload.lengths:
            self.session["flops"] += training_flops(self.network, workload, self.settings.recompute)
        return Sums(self.session["seconds"], self.session["tokens"], self.session["flops"])

    def _check(self, step: int, loss: float, norm: float) -> None:
        """Refuse to take a step that would make the weights worthless."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        self.run.write("failure", step=step, what=what, value=str(loss if what == "loss" else norm))
        kept = checkpoint.steps(self.run)
        good = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was written before it"
        raise InputError(
            f"the {what} of step {step} is not a number; training stopped before its update, and {good}",
            str(self.run.path),
            "lower train.learning_rate, lengthen train.warmup, or set train.precision float32; look at the step's rows",
        )

    def _checkpoint_is_due(self) -> bool:
        if self.settings.checkpoint_every is not None:
            return self.step % self.settings.checkpoint_every == 0
        gone = time.monotonic() - self.saved_at
        return gone >= max(CHECKPOINT_SECONDS, SAVING_SHARE * self.saving_took)

    def _save(self) -> None:
        started = time.monotonic()
        values = {
            "identity": self.identity,
            "stream": self.stream.state(),
            "loss": self.loss,
            "best": self.watch.best,
            "bad": self.watch.bad,
            "reason": self.reason,
        }
        checkpoint.save(self.run, self.step, State(checkpoint.capture(self.named, self.optimizer), values))
        checkpoint.prune(self.run, self.settings.keep_checkpoints, self.watch.best_step)
        self.saved_at = time.monotonic()
        self.saving_took = self.saved_at - started
        self.run.write("checkpoint", step=self.step, seconds=self.saving_took)

    def _resume(self) -> None:
        found = checkpoint.newest(self.run, self.progress.say)
        if found is None:
            return
        step, state = found
        for what, value in self.identity.items():
            if state.values["identity"].get(what) != value:
                raise InputError(
                    f"the run was started with other {what}, so it cannot go on as if it had never stopped",
                    str(self.run.path),
                    f"restore the {what}, or start a new run",
                )
        checkpoint.put_back(state.tensors, self.named, self.optimizer)
        self.stream.restore(state.values["stream"])
        self.step, self.loss, self.reason = step, state.values["loss"], state.values["reason"]
        self.watch.best, self.watch.bad = state.values["best"], state.values["bad"]
        if self.reason != "finished":
            self.progress.say(f"going on from the checkpoint of step {step}")
            before, now = self.run.events("session")[-1].get("kernels"), library.describe()
            if before not in (None, now):
                said = f"other kernels than before ({now}; before: {before}): losses may differ in their last digits"
                self.progress.say(said)

    def _found_rate(self) -> float:
        """The peak rate by a range test; a run that goes on has it in its journal."""
        told = self.run.events("rate_finder")
        if told:
            return float(told[0]["learning_rate"])
        self.progress.say(f"looking for a learning rate: {rate_finder.STEPS} steps whose changes are taken back")
        where = (self.precision[0], self.device, self.total)
        found = rate_finder.find(self.network, self.examples, self.settings, self.draw, self.optimizer, *where)
        self.run.write("rate_finder", learning_rate=found.rate, rates=found.rates, losses=found.losses)
        self.progress.say(f"learning rate {found.rate:.2g}, where the loss fell fastest")
        return found.rate

    def _take_best(self) -> None:
        best = self.watch.best_step
        if best is not None and best != self.step:
            checkpoint.put_back(checkpoint.read(self.run, best).tensors, self.named)
            self.progress.say(f"the weights are those of step {best}, the best on held-out rows")

    def _opening(self) -> dict[str, Any]:
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "from_step": self.step,
            "steps": self.total,
            "examples": len(self.examples),
            "trainable": sum(parameter.numel() for parameter in self.named.values()),
            "parameters": parameters,
            "learning_rate": self.peak_rate,
            "precision": self.precision[0],
            "precision_reason": self.precision[1],
            "threads": torch.get_num_threads(),
            "kernels": library.describe(),
        }

    def _limit(self) -> float | None:
        """FLOP/s that this machine was measured to reach in the precision used."""
        if self.device.type != "cpu":
            return None
        return float(getattr(machine.rates(), self.precision[0])) * 1e9 or None


def _as_it_began(run: RunFolder, settings: TrainSettings, device: torch.device) -> tuple[str, str]:
    """Set the threads and choose the precision; what is left open stays what the run's first session chose.

    Sums depend on both, and a measurement may come out otherwise another time.
    """
    before = next(iter(run.events("session")), None)
    if before is None:
        machine.use_threads(settings.threads)
        return machine.choose_precision(settings.precision, device.type)
    machine.use_threads(settings.threads or before["threads"])
    return str(before["precision"]), str(before["precision_reason"])
