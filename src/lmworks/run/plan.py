"""The plan of a run: the parameters, FLOPs, time, memory and disk that it will need, each by its parts.

A plan is made from a config, settings and the lengths of the documents; it opens no model and no data. Parameters and
FLOPs are computed, and memory too (run/footprint). Time is measured on a model of the same kind with few layers
(run/timing). Precision, weight format and activation checkpointing are chosen so that the run fits in memory.
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
from lmworks.model.quant_types import QUANT_TYPES
from lmworks.model.sizes import Flops
from lmworks.model.training_cost import Workload
from lmworks.run import budget, footprint
from lmworks.run import timing as timings
from lmworks.run.base_weights import WeightFormat, quantized_weights
from lmworks.run.footprint import DataStatistics, ProcessMemory, TrainingSetup
from lmworks.run.largest_row import length_pairs, steps_of
from lmworks.run.timing import Timing
from lmworks.train.monitor import evaluations_during
from lmworks.train.settings import STATE_BYTES, TrainSettings, with_row_tokens

TOKENIZER_BYTES = 72  # bytes of tokenizer.json, merges included, for each entry of the vocabulary, as in SmolLM2's
EVALUATIONS = ("before", "during", "after")  # training


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        parameters: number of parameters of the base model.
        trainable: number of trained parameters, the model's own or added to it.
        steps: optimizer steps.
        tokens: tokens that pass through the network in all steps, those of sources included.
        loss_tokens: tokens with loss among them.
        precision: of the matrix products.
        precision_reason: why this one, as a sentence.
        flops: by part, and their total.
        rate: FLOP/s that training is expected to reach; None where this machine's rate is not known.
        seconds: "training"; of evaluation, "before", "during" and "after" training, and together "evaluation"; "total".
        memory, disk: bytes by part, and their total.
        note: how reliable the time is; empty where nothing disturbed its measurement.
        recompute, row_tokens, paged_optimizer: settings of training, as chosen to fit in memory.
        base_precision: how the model's own weights are stored, as in ``train.base_precision``.
        choice: what was changed to fit in memory, and why; empty where nothing was.
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
    paged_optimizer: bool = False

    def apply_to(self, train: TrainSettings) -> None:
        """Write the chosen precision, weight format, activation checkpointing and row size into the settings."""
        train.precision = self.precision  # type: ignore[assignment]
        train.base_precision = self.base_precision  # type: ignore[assignment]
        train.recompute, train.row_tokens = self.recompute, self.row_tokens
        train.paged_optimizer = self.paged_optimizer

    def without_evaluation_before(self) -> Plan:
        """The plan of a run that takes its evaluation before training from the cache."""
        before = self.seconds.get("before", 0.0)
        shorter = {name: self.seconds[name] - before for name in ("before", "evaluation", "total") if self.seconds}
        return replace(self, seconds=self.seconds | shorter)

    def within(self, most: float | None) -> Plan:
        """The plan of a run whose training stops after so many seconds; its steps and tokens are those that fit."""
        training = self.seconds.get("training", 0.0)
        if most is None or training <= most:
            return self
        share, saved = most / training, training - most
        work = {name: max(1, round(getattr(self, name) * share)) for name in ("steps", "tokens", "loss_tokens")}
        flops = {part: round(value * share) for part, value in self.flops.items()}
        seconds = {**self.seconds, "training": most, "total": self.seconds["total"] - saved}
        return replace(self, **work, flops=flops, seconds=seconds)

    def event(self) -> dict[str, Any]:
        """The plan as an event of the journal, which the report card compares with the run."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """The plan as it is printed before the run."""
        fraction = figures.percent(self.trainable / (self.parameters or 1))
        if self.rate:
            work = "training" if self.trainable else "choosing"
            time, rate = _time_by_part(self.seconds, work), f"at {figures.scaled(self.rate, 'FLOP/s', 3)} expected"
        else:
            time, rate = "not known", "this machine's rate is not measured: lmworks doctor"
        # a plan counts the tokens whose logits are computed: a head of its own has none
        loss = f" ({figures.count(self.loss_tokens)} with loss)" if self.loss_tokens else ""
        steps = f"{figures.count(self.steps)} steps" if self.trainable else "a prompt is chosen"
        return [
            f"parameters  {figures.count(self.parameters)}, trained {figures.count(self.trainable)} ({fraction})",
            f"work        {steps}, {figures.count(self.tokens)} tokens{loss}, "
            f"{figures.scaled(self.flops['total'], 'FLOP', 3)}",
            f"time        {time} ({self.precision}, {rate}{', ' + self.note if self.note else ''})",
            f"memory      {_parts(self.memory)}",
            *([f"            {self.choice}"] if self.choice else []),
            f"disk        {_parts(self.disk)}",
        ]


def _time_by_part(seconds: dict[str, float], work: str) -> str:
    """``9 min 00 s: training 8 min 20 s, evaluation before 20.0 s, during 5.0 s, after 15.0 s``."""
    evaluations = [f"{when} {figures.duration(seconds[when])}" for when in EVALUATIONS if seconds.get(when)]
    total = figures.duration(seconds.get("total", seconds["training"]))
    if not evaluations:
        return total
    return f"{total}: {work} {figures.duration(seconds['training'])}, evaluation {', '.join(evaluations)}"


def _parts(sizes_: dict[str, int]) -> str:
    parts = sorted(((size, name) for name, size in sizes_.items() if name != "total" and size), reverse=True)
    text = ", ".join(f"{name} {figures.byte_size(size)}" for size, name in parts)
    return f"{figures.byte_size(sizes_['total'])} ({text})"


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
    measures: bool = True,
) -> Plan:
    """The plan of a run.

    Args:
        config: the model.
        method: how it is trained, opened or from scratch.
        train: settings of training; with precision "auto", the faster one on this machine that fits in memory.
        documents: statistics of the documents that pass through the network.
        process: memory that this process uses already, and that it may use.
        rates: of this machine's matrix products, for the precision; None: those of the fastest provider
            (kernels/product_rates).
        timing: of the run on this machine; None: measured now, or read from the cache.
        weight_formats: formats of the model's own weights, the preferred one first, the smallest last.
        is_resumed: whether the run was begun before: its rows, precision and weights stay as they were chosen.
        measures: whether the run may be timed; else its time is that of its matrix products, a lower bound.

    Raises:
        InputError: the method does not fit the model, or the run does not fit in the machine's memory or in its budget.
    """
    if train.precision == "auto" and rates is None:
        rates = product_rates.fastest_rates()
    preferred, reason = machine.choose_precision(train.precision, "cpu", rates)
    trained, settings = method.trained_parameters(config), with_row_tokens(train, config, preferred)
    request = TrainingSetup.of(config, trained, settings, preferred, documents, process)
    fit = _fit_resumed(request, weight_formats[0]) if is_resumed else _fit(request, weight_formats)
    timing = timing or timings.read_or_measure(fit.setup, method, documents.answer_rows, measures)
    return _plan_of(fit, reason if fit.setup.precision == preferred else fit.note, timing)


def _plan_of(fit: budget.MemoryFit, precision_reason: str, timing: Timing | None) -> Plan:
    """The plan of a run whose settings are chosen."""
    setup, totals = fit.setup, RunTotals.of(fit.setup)
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
        note=_timing_note(timing),
        recompute=setup.train.recompute,
        row_tokens=setup.train.row_capacity,
        choice=fit.note,
        precision_reason=precision_reason,
        base_precision=setup.weights.precision,
        paged_optimizer=bool(setup.train.paged_optimizer),
    )


def _fit_resumed(request: TrainingSetup, weights: WeightFormat) -> budget.MemoryFit:
    return budget.fit_resumed(request.with_weights(weights), available_bytes(request.process))


def _fit(request: TrainingSetup, weight_formats: Sequence[WeightFormat]) -> budget.MemoryFit:
    """Settings with which a new run fits in memory: the first weight format with which no other setting has to change,
    else the last one; the requested precision, or with "auto" another one."""
    is_open = request.train.precision == "auto"
    others = [name for name in footprint.NUMBER_BYTES if is_open and name != request.precision]
    available = available_bytes(request.process)
    setups = [request.with_weights(weights) for weights in weight_formats]
    request = next((setup for setup in setups if budget.fits(setup, available)), setups[-1])
    fit = budget.choose([request, *(request.in_precision(name) for name in others)], available, _cheaper(request))
    if request.weights == weight_formats[0]:
        return fit
    size = figures.byte_size(request.weights.size or 0)
    note = f"frozen weights stay {request.weights.dtype_names}, {size}, to save memory"
    return budget.MemoryFit(fit.setup, f"{note}; {fit.note}" if fit.note else note)


def available_bytes(process: ProcessMemory) -> int:
    """Bytes that the process may use in total."""
    if process.available is not None:
        return process.available
    return process_memory.memory()[1] + process_memory.resident_memory()


def _cheaper(request: TrainingSetup) -> Iterator[tuple[str, TrainingSetup]]:
    """For a run that does not fit: if it trains all parameters, the default method; if it trains adapters, a quantized
    base; each with the option that selects it."""
    if request.trained.is_whole:
        method = methods.default("opened")
        trained = method().trained_parameters(request.config)
        setup = TrainingSetup.of(
            request.config, trained, request.train, request.precision, request.documents, request.process
        ).with_weights(request.weights)
        yield f"--method {method.name}, where a model is adapted", setup
    elif request.trained.added and not request.weights.block_format:
        option = f"--train.base_precision {QUANT_TYPES[0]}"
        yield option, request.with_weights(quantized_weights(request.config, QUANT_TYPES[0]))


@dataclass(frozen=True)
class RunTotals:
    """The amount of work of a run.

    Attributes:
        steps: optimizer steps.
        evaluations: evaluations of the held-out rows during training.
        tokens: tokens that pass through the network in all steps, those of sources included.
        loss_tokens: tokens with loss among them.
        flops: FLOPs of all steps.
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
        lengths, sources, loss_tokens = documents.lengths, documents.sources, documents.total_loss_tokens
        sampler = steps_of(len(lengths), train, documents.mixture)
        document_tokens = np.array([own + source for own, source in length_pairs(lengths, sources)])
        tokens = int(sampler.visits() @ document_tokens)  # the last steps may take only some of the documents
        epochs = tokens / max(1, document_tokens.sum())
        epoch = Workload(list(lengths), list(sources), loss_tokens, Counter(documents.labels))
        flops = epoch.flops(setup.config, setup.trained, train.recompute)
        evaluations = evaluations_during(train, len(sampler), sampler.steps_per_epoch)
        return cls(len(sampler), evaluations, tokens, round(loss_tokens * epochs), flops.times(epochs))


def _seconds(setup: TrainingSetup, totals: RunTotals, timing: Timing) -> dict[str, float]:
    """Seconds of training and of evaluation according to a timing on this machine."""
    documents = setup.documents
    full = documents.evaluation_tokens * timing.evaluation + documents.answer_steps * timing.answer
    during = totals.evaluations * documents.held_out_tokens * timing.evaluation
    return _with_sums(totals.tokens / timing.step_tokens * timing.step, full, during)


def _with_sums(training: float, full: float, during: float) -> dict[str, float]:
    """Seconds by part and their sums; the full evaluation is run before training and after it."""
    evaluation = 2 * full + during
    by_evaluation = dict(zip(EVALUATIONS, (full, during, full), strict=True))
    return {"training": training, **by_evaluation, "evaluation": evaluation, "total": training + evaluation}


def _seconds_at_matmul_rate(setup: TrainingSetup, totals: RunTotals) -> dict[str, float]:
    """Seconds of a model that is too large to be timed: those of its matrix products alone, a lower bound; empty where
    the rate of products is not known."""
    rates = product_rates.fastest_rates()
    training_rate, evaluation_rate = (
        1e9 * float(getattr(rates, name, 0) or 0) for name in (setup.precision, "float32")
    )
    if not training_rate or not evaluation_rate:
        return {}
    token = _token_flops(setup) / evaluation_rate
    full, during = setup.documents.evaluation_tokens, totals.evaluations * setup.documents.held_out_tokens
    return _with_sums(totals.flops.total / training_rate, full * token, during * token)


def _timing_note(timing: Timing | None) -> str:
    if timing is None:
        return "at least: the time of its matrix products alone"
    if not timing.is_undisturbed:
        return "measured while other programs ran: unreliable, the run may take much less or more"
    return ""


def _token_flops(setup: TrainingSetup) -> float:
    """FLOPs of the forward pass per token, of a document as long as the training documents are on average."""
    documents = setup.documents
    count = len(documents.lengths)
    tokens, source = (round(sum(lengths) / count) for lengths in (documents.lengths, documents.sources))
    loss_tokens = round(documents.total_loss_tokens / count)
    sources = [source] if documents.sources else None
    document = sizes.forward_flops(setup.config, tokens, loss_tokens, None, sources)
    return document.total / max(1, tokens + source)


def _disk(setup: TrainingSetup) -> dict[str, int]:
    """Bytes by part: checkpoints contain trained weights and AdamW's moments; one more exists while it is written."""
    trained, train = setup.trained, setup.train
    checkpoint = round((4 + STATE_BYTES[train.optimizer_state]) * trained.count)
    saved = trained.count_added or setup.parameters  # an adapter, or a whole model
    results = len(documents.mixture.names) if (documents := setup.documents).mixture else 1  # one with each head
    by_part = {
        "checkpoints": checkpoint * (train.keep_checkpoints + 2),  # the best one too
        "optimizer": setup.state_bytes if train.paged_optimizer else 0,
        "final": results * (4 * saved + TOKENIZER_BYTES * setup.config.vocab_size),
    }
    return {**by_part, "total": sum(by_part.values())}
