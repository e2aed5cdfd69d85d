"""The training loop: examples -> optimizer steps -> a trained network, a journal and checkpoints.

Knows no data files, no evaluation and no method: it trains every parameter that requires a gradient on the examples
that it gets, and calls hooks. Everything it needs to continue after a kill is in the run's checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch

from lmworks.base import process_memory, processor
from lmworks.base.energy import EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.files import is_full
from lmworks.base.journal import RunFolder
from lmworks.data.batch import LANGUAGE, Example, ExampleTransform
from lmworks.data.mixture import Mixture, sampler_of
from lmworks.kernels import matmul, native_module, product_rates
from lmworks.model.stored_layers import stored_layers
from lmworks.model.training_cost import Workload
from lmworks.model.transformer import Transformer
from lmworks.train import arithmetic, checkpoint, identity, optimizers, rate_finder
from lmworks.train.arithmetic import Arithmetic
from lmworks.train.checkpoint import State
from lmworks.train.hooks import Hooks
from lmworks.train.monitor import Monitor
from lmworks.train.peak_memory import PeakMemory
from lmworks.train.progress import Sums, TrainingProgress
from lmworks.train.settings import TrainSettings, with_row_tokens
from lmworks.train.step import StepResult, accumulate_gradients, autocast, cast_frozen_weights, sample, step_flops
from lmworks.train.stopping import defer_signals
from lmworks.train.time_limit import StepTiming, TimeLimit

# Minimum time between checkpoints: seconds, and a multiple of the time that the last checkpoint took to write.
CHECKPOINT_SECONDS, SAVING_RATIO = 30.0, 20.0


@dataclass
class Outcome:
    """How training ended.

    Attributes:
        reason: "finished", "early" (no better evaluation for ``patience`` times), "time" (``max_time`` was over before
            the planned steps) or "interrupted" (by a signal).
        step: the last step.
        best_step: of the best evaluation; the network holds its weights at the end of a run.
        precision: of the matrix products, and the reason for it.
        session: seconds, tokens, FLOPs, peak memory and energy of this session alone.
    """

    reason: str
    step: int
    best_step: int | None
    precision: tuple[str, str]
    session: dict[str, Any] = field(default_factory=dict)


def train(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    run: RunFolder,
    hooks: Hooks | None = None,
    device: str | torch.device = "cpu",
    transform: ExampleTransform | None = None,
    mixture: Mixture | None = None,
    learning_rate_factors: Mapping[str, float] = optimizers.NO_FACTORS,
) -> Outcome:
    """Train whatever requires a gradient; resume from the run's newest checkpoint where there is one.

    Args:
        network: on ``device``; changed in place.
        examples: tokenized documents; with ``transform``, their fixed part.
        settings: of the training.
        run: the run's folder; a journal line per step and checkpoints are written to it.
        hooks: evaluation and the like.
        device: where to train.
        transform: the random part of a task, such as which tokens are masked: (example, generator) -> example. Each
            step samples again, with a generator seeded by (seed, step, index).
        mixture: the tasks that the examples are of; None: they are of one.
        learning_rate_factors: of parameters, by name; 1 where nothing is said.

    Returns:
        How training ended. With an evaluation hook, the network has the weights of the best evaluation.

    Raises:
        InputError: nothing to train, a loss that is not a number, a full disk, a checkpoint of other data or settings.
    """
    _check_trainable(network, examples)
    if settings.keeps_memory:
        process_memory.keep_memory()
    device = torch.device(device)
    run_arithmetic = arithmetic.of_run(network, run, settings, device)
    settings = with_row_tokens(settings, network.config, run_arithmetic.precision)
    was_training = network.training
    network.recompute_lowest(settings.recompute)
    try:
        with (
            cast_frozen_weights(network, run_arithmetic.precision) as original_bytes,
            matmul.providers(run_arithmetic.providers),
            defer_signals() as stop_requested,
            torch.random.fork_rng(devices=[]),
        ):
            parts = (network, examples, settings, run, hooks or Hooks(), device, transform, mixture)
            training = _Training(*parts, learning_rate_factors, run_arithmetic, original_bytes)
            return training.run_session(stop_requested)
    finally:
        process_memory.stop_keeping_memory()
        network.train(was_training)
        network.recompute_lowest(0)


def _check_trainable(network: Transformer, examples: Sequence[Example]) -> None:
    if not examples:
        raise InputError("there are no examples to train on", hint="give more rows, or hold fewer out")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError("nothing in this network requires a gradient", hint="attach an adapter, or unfreeze it")


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
        transform: ExampleTransform | None,
        mixture: Mixture | None,
        learning_rate_factors: Mapping[str, float],
        run_arithmetic: Arithmetic,
        original_bytes: int,
    ) -> None:
        self.network, self.examples, self.settings, self.run = network, examples, settings, run
        self.hooks, self.device, self.transform, self.arithmetic = hooks, device, transform, run_arithmetic
        length = settings.epochs, settings.steps
        self.sampler = sampler_of(len(examples), settings.batch_size, settings.seed, *length, mixture)
        self.loss_weights = mixture.loss_weights if mixture is not None else None
        self.named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.optimizer = optimizers.make(network, settings, learning_rate_factors, run.path)
        self.time_limit = TimeLimit(settings.max_time)
        timing = StepTiming(network, examples, settings, transform, self.optimizer, run_arithmetic.precision, device)
        self.total_steps = self.time_limit.fitting_steps(run, timing, len(self.sampler))
        self.sampler.steps = self.total_steps
        self.peak_learning_rate = optimizers.peak_learning_rate(network, settings)
        self.identity = identity.of(examples, settings, transform, mixture)
        self.step, self.reason = 0, ""
        self.loss: float | None = None
        self.diverged = False
        self.saved_at, self.saving_seconds = time.monotonic(), 0.0
        self.session: dict[str, Any] = {"seconds": 0.0, "tokens": 0, "targets": 0.0, "flops": 0.0}
        self.memory = PeakMemory(network, original_bytes, hooks.library_bytes)
        self.workload = Workload()  # documents whose FLOPs have not been counted yet
        limit = None if hooks.quiet else self._limit()
        self.progress = TrainingProgress(self.total_steps, limit, hooks.console, hooks.quiet)
        context = partial(autocast, self.arithmetic.precision, device)
        lengths = (self.total_steps, self.sampler.steps_per_epoch)
        self.monitor = Monitor(
            network, hooks, run, self.progress, settings, *lengths, context, self.arithmetic.precision
        )

    def run_session(self, stop_requested: Callable[[], bool]) -> Outcome:
        """All remaining steps."""
        self._resume()
        if self.settings.find_learning_rate:
            self.peak_learning_rate = self._find_learning_rate()
        self.run.write("session", **self._session_entries())
        meter = EnergyMeter(device=self.device)
        meter.start()
        first = self.step
        try:
            with self.progress:
                self._steps(stop_requested)
        except Exception as fault:
            self.reason = "failed"
            if is_full(fault) and not isinstance(fault, InputError):
                raise InputError("no room on the disk", str(self.run.path), checkpoint.DISK_HINT) from fault
            raise
        finally:
            energy = meter.stop()
            self._sums()
            self.session |= {"first": first, "last": self.step, "energy_joules": energy.joules}
            self.session |= {"energy_how": energy.how, **self.memory.parts(self.network, self.optimizer.held_bytes)}
            if self.reason not in ("failed", ""):
                self.run.write("session_end", reason=self.reason, **self.session)
            self.monitor.close()
        if self.reason == "interrupted":
            self.progress.say(f"stopped after step {self.step}; go on with: lmworks resume {self.run.path}")
        else:
            self._restore_best()
        return Outcome(
            self.reason,
            self.step,
            self.monitor.best_step,
            (self.arithmetic.precision, self.arithmetic.reason),
            self.session,
        )

    def _steps(self, stop_requested: Callable[[], bool]) -> None:
        if self.reason == "interrupted":
            self.reason = ""  # of an earlier session
        for indices in self.sampler:
            if self.reason:
                return
            self._step(indices)
            self.memory.end_stage("training")
            if is_over := self.time_limit.is_over:
                self.monitor.total_steps = self.step  # evaluated as a last step is
            better = self.monitor.is_due(self.step) and self.monitor.evaluate(self.step)
            self.memory.end_stage("evaluation during training")
            if self.monitor.stops_early:
                self.reason = "early"
            elif self.step >= self.total_steps:
                self.reason = "finished"
            elif is_over:
                self.reason = "time"
                self.progress.say(f"stopped after {self.step:,} of {self.total_steps:,} planned steps (train.max_time)")
            elif stop_requested():
                self.reason = "interrupted"
            if self.reason or better or self._checkpoint_is_due():
                self._save()
                self.memory.end_stage("saving")
        self.reason = self.reason or "finished"

    def _step(self, indices: Sequence[int]) -> None:
        started, step = time.perf_counter(), self.step + 1
        if not self.network.training:
            self.network.train()
        documents = sample(self.examples, indices, self.transform, self.settings.seed, step)
        result = accumulate_gradients(
            self.network, documents, self.settings, step, self.arithmetic.precision, self.device, self.loss_weights
        )
        norm = optimizers.gradient_norm(self.named.values())
        self._check(step, result.loss, norm)
        if norm or result.has_targets:
            learning_rate = optimizers.learning_rate(step, self.total_steps, self.peak_learning_rate, self.settings)
            self.optimizer.advance(learning_rate, norm, self.settings.max_grad_norm)
        else:
            learning_rate = 0.0
        self.step, self.loss = step, result.loss
        self._report_step(result, norm, learning_rate, time.perf_counter() - started)

    def _report_step(self, result: StepResult, norm: float, learning_rate: float, seconds: float) -> None:
        """Journal, display, TensorBoard."""
        line: dict[str, Any] = {
            "step": self.step,
            "loss": result.loss,
            "learning_rate": learning_rate,
            "gradient_norm": norm,
            "tokens": result.tokens,
            "targets": result.targets,
            "seconds": seconds,
        }
        line |= {f"{name}_loss": mean for name, mean in result.terms.items() if name != LANGUAGE}
        if self.run.write("step", **line)["event"] == "divergence" and not self.diverged:
            self.diverged = True
            self.progress.say(f"step {self.step} differs from the same step before the interruption: see the journal")
        for key, value in (("seconds", seconds), ("tokens", result.tokens), ("targets", result.targets)):
            self.session[key] += value
        self.workload.add(result.workload)
        self.progress.update(self.step, result.loss, self._sums)
        self.monitor.log_step(line)

    def _sums(self) -> Sums:
        """Totals of this session's steps. FLOPs are counted here, for all steps since the last call."""
        workload, self.workload = self.workload, Workload()
        if workload.lengths:
            self.session["flops"] += step_flops(self.network, workload, self.settings.recompute)
        return Sums(self.session["seconds"], self.session["tokens"], self.session["flops"])

    def _check(self, step: int, loss: float, norm: float) -> None:
        """Raise before an update with a loss or gradient that is not finite."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        quantity = "loss" if not math.isfinite(loss) else "gradient"
        self.run.write("failure", step=step, quantity=quantity, value=str(loss if quantity == "loss" else norm))
        saved = checkpoint.steps(self.run)
        last = f"the last checkpoint is of step {saved[-1]}" if saved else "no checkpoint was written before it"
        raise InputError(
            f"the {quantity} of step {step} is not a finite number; training stopped before its update, and {last}",
            str(self.run.path),
            "lower train.learning_rate, lengthen train.warmup, or set train.precision float32; look at the step's rows",
        )

    def _checkpoint_is_due(self) -> bool:
        if self.settings.checkpoint_every is not None:
            return self.step % self.settings.checkpoint_every == 0
        elapsed = time.monotonic() - self.saved_at
        return elapsed >= max(CHECKPOINT_SECONDS, SAVING_RATIO * self.saving_seconds)

    def _save(self) -> None:
        started = time.monotonic()
        values = {
            "identity": self.identity,
            "sampler": self.sampler.state(),
            "loss": self.loss,
            "best": self.monitor.best,
            "evaluations_since_best": self.monitor.evaluations_since_best,
            "reason": self.reason,
            "elapsed": self.time_limit.elapsed,
        }
        tensors = checkpoint.capture(self.named, self.optimizer.state)
        checkpoint.save(self.run, self.step, State(tensors, values, self.optimizer.release))
        checkpoint.prune(self.run, self.settings.keep_checkpoints, self.monitor.best_step)
        self.saved_at = time.monotonic()
        self.saving_seconds = self.saved_at - started
        self.run.write("checkpoint", step=self.step, seconds=self.saving_seconds)

    def _resume(self) -> None:
        newest = checkpoint.newest(self.run, self.progress.say)
        if newest is None:
            return
        step, state = newest
        for name, value in self.identity.items():
            if state.values["identity"].get(name) != value:
                raise self._identity_error(name)
        checkpoint.restore(state.tensors, self.named, self.optimizer.restore)
        self.sampler.restore(state.values["sampler"])
        self.step, self.loss, self.reason = step, state.values["loss"], state.values["reason"]
        self.time_limit.earlier = state.values.get("elapsed", 0.0)
        self.monitor.best = state.values["best"]
        self.monitor.evaluations_since_best = state.values["evaluations_since_best"]
        if self.reason != "finished":
            self.progress.say(f"resuming from the checkpoint of step {step}")
            before = self.run.events("session")[-1]
            for name, now in (("kernels", native_module.describe()), ("machine", processor.identity())):
                if before.get(name) not in (None, now):
                    text = f"other {name} than before ({now}; before: {before[name]}): the last digits may differ"
                    self.progress.say(text)

    def _identity_error(self, name: str) -> InputError:
        """The error for a run whose first session had another value of something that its losses depend on."""
        source = str(next(iter(self.run.events("start")), {}).get("data", "the data"))
        fault = f"the run was started with other {name}{f' ({source})' if name == 'data' else ''}"
        original = f"{source} as it was" if name == "data" else f"{self.run.recipe.name} as the run began with it"
        hint = f"restore {original} and take the same version of lmworks, or start a new run"
        return InputError(f"{fault}, so it cannot be resumed with these", str(self.run.path), hint)

    def _find_learning_rate(self) -> float:
        """The peak learning rate by a range test; a resumed run reads it from its journal."""
        earlier = self.run.events("rate_finder")
        if earlier:
            return float(earlier[0]["learning_rate"])
        self.progress.say(f"range test of the learning rate: {rate_finder.STEPS} steps that are undone afterwards")
        curve = rate_finder.range_test(
            self.network,
            self.examples,
            self.settings,
            self.transform,
            self.optimizer,
            self.arithmetic.precision,
            self.device,
            self.total_steps,
            self.loss_weights,
        )
        self.run.write("rate_finder", learning_rate=curve.best, rates=curve.rates, losses=curve.losses)
        self.progress.say(f"learning rate {curve.best:.2g}, where the loss fell fastest")
        return curve.best

    def _restore_best(self) -> None:
        best = self.monitor.best_step
        if best is not None and best != self.step:
            checkpoint.restore(checkpoint.read(self.run, best).tensors, self.named)
            self.progress.say(f"the weights are those of step {best}, the best on held-out rows")

    def _session_entries(self) -> dict[str, Any]:
        stored = sum(prod(layer.storage.shape) for _, layer in stored_layers(self.network))
        parameters = stored + sum(parameter.numel() for parameter in self.network.parameters())
        return {
            "from_step": self.step,
            "steps": self.total_steps,
            "examples": len(self.examples),
            "trainable": sum(parameter.numel() for parameter in self.named.values()),
            "parameters": parameters,
            "learning_rate": self.peak_learning_rate,
            "learning_rates": optimizers.peak_rates(self.optimizer, self.peak_learning_rate),
            "precision": self.arithmetic.precision,
            "precision_reason": self.arithmetic.reason,
            "threads": torch.get_num_threads(),
            "kernels": native_module.describe(),
            "machine": processor.identity(),
            "providers": self.arithmetic.providers,
        }

    def _limit(self) -> float | None:
        """Measured limit of this machine in FLOP/s, in the run's precision."""
        if self.device.type != "cpu":
            return None
        return product_rates.limit(self.arithmetic.precision) or None
