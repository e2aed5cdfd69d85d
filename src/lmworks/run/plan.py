"""Before a run: parameters, FLOPs, time, memory and disk to expect, each by its parts.

From a config, settings and the lengths of the documents; opens no model and no data. Parameters and FLOPs are
arithmetic. Time is measured on a model of the same kind with few layers (run/timing). Memory is computed by footprint;
precision and what is recomputed are chosen together, so that the run fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmworks.adapt import registry as methods
from lmworks.adapt.method import Method
from lmworks.base import figures, machine, process_memory
from lmworks.base.probes import Rates
from lmworks.kernels import product_rates
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import Flops
from lmworks.model.training_cost import Workload
from lmworks.run import budget, footprint
from lmworks.run import timing as timings
from lmworks.run.footprint import DataStatistics, ProcessMemory, TrainingSetup, WeightFormat
from lmworks.run.largest_row import steps_of
from lmworks.run.timing import Timing
from lmworks.train.monitor import evaluations_during
from lmworks.train.settings import STATE_BYTES, TrainSettings, sized

TOKENIZER_BYTES = 72  # of tokenizer.json with its merges per entry of the vocabulary, as in SmolLM2's
EVALUATIONS = ("before", "during", "after")  # training


@dataclass(frozen=True)
class Plan:
    """What to expect of a run.

    Attributes:
        parameters: of the base model. trainable: those that are trained, of the model or added to it.
        steps, tokens, loss_tokens: optimizer steps, and tokens that pass through in all of them.
        precision: of the products. precision_reason: why this one, as a sentence.
        flops: by part, and their total.
        rate: FLOP/s that training is expected to reach; None where this machine's rate is not known.
        seconds: "training"; of evaluation, "before", "during" and "after" training, and together "evaluation"; "total".
        memory, disk: bytes by part, and their total.
        note: what to know about the time.
        recompute, row_tokens: settings of training within its budget of memory.
        base_precision: how the model's own weights are held.
        choice: what was changed to fit into memory, and why; empty where nothing was.
    """

    parameters: int
    trainable: int
    steps: int
    tokens: int
    loss_tokens: int
    precision: str
    flops: dict[str, int]
    rate: float | None
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    note: str = ""
    recompute: int = 0
    row_tokens: int = 0
    choice: str = ""
    precision_reason: str = ""
    base_precision: str = "float32"

    def apply_to(self, train: TrainSettings) -> None:
        """Make the settings those that were planned: what was left open, and what a budget of memory changed."""
        train.precision = self.precision  # type: ignore[assignment]
        train.base_precision = self.base_precision  # type: ignore[assignment]
        train.recompute, train.row_tokens = self.recompute, self.row_tokens

    def without_evaluation_before(self) -> Plan:
        """The same for a run whose evaluation before training is known."""
        before = self.seconds.get("before", 0.0)
        less = {name: self.seconds[name] - before for name in ("before", "evaluation", "total") if self.seconds}
        return replace(self, seconds=self.seconds | less)

    def event(self) -> dict[str, Any]:
        """The plan as an event of the journal, which the report card compares with the run."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """What a person reads before the run."""
        fraction = figures.percent(self.trainable / (self.parameters or 1))
        if self.rate:
            at = f"at {figures.scaled(self.rate, 'FLOP/s', 3)} expected"
            time = _time_by_part(self.seconds)
        else:
            time, at = "not known", "this machine's rate is not measured: lmworks doctor"
        return [
            f"parameters  {figures.count(self.parameters)}, trained {figures.count(self.trainable)} ({fraction})",
            f"work        {figures.count(self.steps)} steps, {figures.count(self.tokens)} tokens "
            f"({figures.count(self.loss_tokens)} with loss), {figures.scaled(self.flops['total'], 'FLOP', 3)}",
            f"time        {time} ({self.precision}, {at}{', ' + self.note if self.note else ''})",
            f"memory      {_parts(self.memory)}",
            *([f"            {self.choice}"] if self.choice else []),
            f"disk        {_parts(self.disk)}",
        ]


def _time_by_part(seconds: dict[str, float]) -> str:
    """``9 min 00 s: training 8 min 20 s, evaluation before 20.0 s, during 5.0 s, after 15.0 s``."""
    evaluations = [f"{when} {figures.duration(seconds[when])}" for when in EVALUATIONS if seconds.get(when)]
    total = figures.duration(seconds.get("total", seconds["training"]))
    if not evaluations:
        return total
    return f"{total}: training {figures.duration(seconds['training'])}, evaluation {', '.join(evaluations)}"


def _parts(sizes_: dict[str, int]) -> str:
    parts = sorted(((size, name) for name, size in sizes_.items() if name != "total" and size), reverse=True)
    text = ", ".join(f"{name} {figures.storage(size)}" for size, name in parts)
    return f"{figures.storage(sizes_['total'])} ({text})"


def make(
    config: ModelConfig,
    method: Method[Any],
    train: TrainSettings,
    documents: DataStatistics,
    process: ProcessMemory,
    rates: Rates | None = None,
    timing: Timing | None = None,
    weight_formats: Sequence[WeightFormat] = (WeightFormat(),),
    is_resumed: bool = False,
) -> Plan:
    """The plan of a run.

    Args:
        config: the model.
        method: how it is trained, opened or from scratch.
        train: steps, batch, rows; precision ("auto": as this machine measured, and as memory allows).
        documents: what passes through the network.
        process: what this process holds already, and may hold.
        rates: of this machine's products, for the precision; None: by the fastest provider (kernels/product_rates).
        timing: of such a model on this machine; None: measured now, or read from the cache.
        weight_formats: ways to hold the model's own weights, the preferred one first, the smallest last.
        is_resumed: a run that was begun before: its rows, precision and weights stay as they were chosen.

    Raises:
        InputError: the method does not fit the model, or the run does not fit in the memory that there is, or that it
            was given.
    """
    if train.precision == "auto" and rates is None:
        rates = product_rates.fastest_rates()
    preferred, reason = machine.choose_precision(train.precision, "cpu", rates)
    trained = method.trained_parameters(config)
    request = TrainingSetup.of(config, trained, sized(train, config, preferred), preferred, documents, process)
    fit = _fit_resumed(request, weight_formats[0]) if is_resumed else _fit(request, weight_formats)
    setup, totals = fit.setup, RunTotals.of(fit.setup)
    timing = timing or timings.read_or_measure(setup, method, documents.answer_rows)
    seconds = _seconds(setup, totals, timing) if timing else _seconds_at_matmul_rate(setup, totals)
    return Plan(
        parameters=setup.parameters,
        trainable=setup.trained.count,
        steps=totals.steps,
        tokens=totals.tokens,
        loss_tokens=totals.loss_tokens,
        precision=setup.precision,
        flops={**vars(totals.flops), "total": totals.flops.total},
        rate=totals.flops.total / seconds["training"] if seconds else None,
        seconds=seconds,
        memory=footprint.parts(setup),
        disk=_disk(setup),
        note=_note(timing),
        recompute=setup.train.recompute,
        row_tokens=setup.train.room,
        choice=fit.note,
        precision_reason=reason if setup.precision == preferred else fit.note,
        base_precision=setup.weights.precision,
    )


def _fit_resumed(request: TrainingSetup, weights: WeightFormat) -> budget.MemoryFit:
    return budget.fit_resumed(request.with_weights(weights), _available_bytes(request.process))


def _fit(request: TrainingSetup, weight_formats: Sequence[WeightFormat]) -> budget.MemoryFit:
    """Within memory: with the first weight format with which nothing has to be made smaller, else with the last; in the
    precision asked for, or in another one where it was left open."""
    is_open = request.train.precision == "auto"
    others = [name for name in footprint.NUMBER_BYTES if is_open and name != request.precision]
    available = _available_bytes(request.process)
    setups = [request.with_weights(weights) for weights in weight_formats]
    request = next((setup for setup in setups if budget.fits(setup, available)), setups[-1])
    fit = budget.choose([request, *(request.in_precision(name) for name in others)], available, _cheaper(request))
    if request.weights == weight_formats[0]:
        return fit
    size = figures.storage(request.weights.size or 0)
    note = f"frozen weights stay {request.weights.dtype_names}, {size}, to save memory"
    return budget.MemoryFit(fit.setup, f"{note}; {fit.note}" if fit.note else note)


def _available_bytes(process: ProcessMemory) -> int:
    """Bytes that the process may hold in all."""
    return (
        process_memory.memory()[1] + process_memory.resident_memory()
        if process.available is None
        else process.available
    )


def _cheaper(request: TrainingSetup) -> Iterator[tuple[str, TrainingSetup]]:
    """What to suggest in place of a run that trains all and does not fit."""
    if request.trained.is_whole:
        method = methods.default("opened")
        trained = method().trained_parameters(request.config)
        setup = TrainingSetup.of(
            request.config, trained, request.train, request.precision, request.documents, request.process
        ).with_weights(request.weights)
        yield f"--method {method.name}, where a model is adapted", setup


@dataclass(frozen=True)
class RunTotals:
    """What a run computes.

    Attributes:
        steps: of the optimizer. evaluations: of the held-out rows during training.
        tokens: that pass through in all of them, sources too. loss_tokens: those with loss.
        flops: of all steps.
    """

    steps: int
    evaluations: int
    tokens: int
    loss_tokens: int
    flops: Flops

    @classmethod
    def of(cls, setup: TrainingSetup) -> RunTotals:
        """The totals of a run."""
        documents, train = setup.documents, setup.train
        lengths, sources = documents.lengths, documents.sources
        loss_tokens = sum(lengths) if documents.loss_tokens is None else documents.loss_tokens
        sampler = steps_of(len(lengths), train)
        document_tokens = np.array(lengths) + np.array(sources or [0] * len(lengths))
        tokens = int(sampler.visits() @ document_tokens)  # of the very documents that these steps take
        epochs = tokens / max(1, document_tokens.sum())
        epoch = Workload(list(lengths), list(sources), loss_tokens, Counter(documents.labels))
        flops = epoch.flops(setup.config, setup.trained, train.recompute)
        evaluations = evaluations_during(train, len(sampler), sampler.steps_per_epoch)
        return cls(len(sampler), evaluations, tokens, round(loss_tokens * epochs), flops.times(epochs))


def _seconds(setup: TrainingSetup, totals: RunTotals, timing: Timing) -> dict[str, float]:
    """Seconds of training and of evaluation, as this machine was timed."""
    documents = setup.documents
    full = documents.evaluation_tokens * timing.evaluation + documents.answer_steps * timing.answer
    during = totals.evaluations * documents.held_out_tokens * timing.evaluation
    return _with_sums(totals.tokens / timing.step_tokens * timing.step, full, during)


def _with_sums(training: float, full: float, during: float) -> dict[str, float]:
    """Seconds by part; the full evaluation is made before training and after it."""
    evaluation = 2 * full + during
    by_time = dict(zip(EVALUATIONS, (full, during, full), strict=True))
    return {"training": training, **by_time, "evaluation": evaluation, "total": training + evaluation}


def _seconds_at_matmul_rate(setup: TrainingSetup, totals: RunTotals) -> dict[str, float]:
    """The same for a model too large to be timed: at least the time of its matrix products; empty where their rate is
    not known."""
    rates = product_rates.fastest_rates()
    training_rate, evaluation_rate = (
        1e9 * float(getattr(rates, name, 0) or 0) for name in (setup.precision, "float32")
    )
    if not training_rate or not evaluation_rate:
        return {}
    token = _token_flops(setup) / evaluation_rate
    full, during = setup.documents.evaluation_tokens, totals.evaluations * setup.documents.held_out_tokens
    return _with_sums(totals.flops.total / training_rate, full * token, during * token)


def _note(timing: Timing | None) -> str:
    if timing is None:
        return "at least: the time of its matrix products alone"
    return (
        ""
        if timing.is_undisturbed
        else "measured while other programs ran: unreliable, the run may take much less or more"
    )


def _token_flops(setup: TrainingSetup) -> float:
    """FLOPs of the forward pass per token, of a document as long as the training documents are on average."""
    documents = setup.documents
    count = len(documents.lengths)
    tokens, source = (round(sum(lengths) / count) for lengths in (documents.lengths, documents.sources))
    head = sum(documents.lengths) if documents.loss_tokens is None else documents.loss_tokens
    sources = [source] if documents.sources else None
    document = sizes.forward_flops(setup.config, tokens, round(head / count), None, sources)
    return document.total / max(1, tokens + source)


def _disk(setup: TrainingSetup) -> dict[str, int]:
    """Bytes by part: checkpoints hold trained weights and what AdamW remembers; one more exists while it is written."""
    trained, train = setup.trained, setup.train
    checkpoint = round((4 + STATE_BYTES[train.optimizer_state]) * trained.count)
    saved = trained.count_added or setup.parameters  # an adapter, or a whole model
    by_part = {
        "checkpoints": checkpoint * (train.keep_checkpoints + 2),  # the best one too
        "final": 4 * saved + TOKENIZER_BYTES * setup.config.vocab_size,
    }
    return {**by_part, "total": sum(by_part.values())}
