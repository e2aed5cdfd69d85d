"""Before a run: parameters, FLOPs, time, memory and disk to expect, each by its parts.

From a config, settings and the lengths of the documents; opens no model and no data. Parameters and FLOPs are
arithmetic. Time is FLOPs over this machine's own measured rate times the part of it that training reaches, and what
small models spend beside arithmetic: calling operations, and moving weights through the optimizer. Memory is told by
footprint; precision and what is recomputed are chosen together, so that the run fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lmworks.adapt.method import Method
from lmworks.base import figures, machine
from lmworks.kernels.library import library as kernels
from lmworks.model import sizes, training_cost
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import Flops
from lmworks.run import budget, footprint
from lmworks.run.footprint import Documents, ProcessMemory, TrainingSetup
from lmworks.train.settings import STATE_BYTES, TrainSettings, sized

# Part of the measured matrix rate that a whole step reaches, with the native kernels and without: SmolLM2-135M by
# benchmarks/training.py; in bfloat16 a loop without kernels did 592 of the 4,000 tokens/s that its products allowed.
EFFICIENCY = {"float32": (0.8, 0.68), "bfloat16": (0.15, 0.15)}
# tokenizer.json with its merges, an entry of the vocabulary: 3.5 MB at SmolLM2's 49,152.
TOKENIZER_BYTES = 72
# Calling the operations of one layer for one row, forward and backward, whatever their size: measured with a layer so
# small that its arithmetic is nothing. And the same of a step: rows, embeddings, head, clipping, journal.
LAYER_SECONDS, STEP_SECONDS = 5e-4, 3e-3
# AdamW reads weight, gradient and two moments and writes three of them; the norm reads the gradient once more.
OPTIMIZER_BYTES = 32


@dataclass(frozen=True)
class Plan:
    """What to expect of a run.

    Attributes:
        parameters: of the base model. trainable: those that are trained, of the model or added to it.
        steps, tokens, loss_tokens: optimizer steps, and tokens that pass through in all of them.
        precision: of the products. precision_reason: why this one, as a sentence.
        flops: by part, and their total.
        rate: FLOP/s that training is expected to reach; None where this machine's rate is not known.
        seconds: "training", and "evaluation" and "total" where tokens to evaluate were given.
        memory, disk: bytes by part, and their total.
        note: what to know about the time.
        recompute, row_tokens: settings of training within its budget of memory.
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

    def settle(self, train: TrainSettings) -> None:
        """Make the settings those that were planned: what was left open, and what a budget of memory changed."""
        train.precision = self.precision  # type: ignore[assignment]
        train.recompute, train.row_tokens = self.recompute, self.row_tokens

    def event(self) -> dict[str, Any]:
        """What the journal keeps, so that the report card can set it beside what happened."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """What a person reads before the run."""
        fraction = figures.percent(self.trainable / (self.parameters or 1))
        if self.rate:
            at = f"at {figures.scaled(self.rate, 'FLOP/s', 3)} expected"
            time = figures.duration(self.seconds.get("total", self.seconds["training"]))
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


def _parts(sizes_: dict[str, int]) -> str:
    parts = sorted(((size, name) for name, size in sizes_.items() if name != "total" and size), reverse=True)
    listed = ", ".join(f"{name} {figures.storage(size)}" for size, name in parts)
    return f"{figures.storage(sizes_['total'])} ({listed})"


def make(
    config: ModelConfig,
    method: Method[Any],
    train: TrainSettings,
    documents: Documents,
    process: ProcessMemory,
    rates: machine.Rates | None = None,
) -> Plan:
    """The plan of a run.

    Args:
        config: the model.
        method: how it is trained, opened or from scratch.
        train: steps, batch, rows; precision ("auto": as this machine measured, and as memory allows).
        documents: what passes through the network.
        process: what this process holds already, and may hold.
        rates: this machine's; None: asked of base/machine.

    Raises:
        InputError: the method does not fit the model, or the run does not fit in the memory that there is, or that it
            was given.
    """
    fit, reason = _fit(config, method, sized(train, config), documents, process)
    setup = fit.setup
    work = Work.of(setup)
    speed = Speed.of(setup, rates or machine.rates())
    return Plan(
        parameters=setup.parameters,
        trainable=setup.trained.count,
        steps=work.steps,
        tokens=work.tokens,
        loss_tokens=work.loss_tokens,
        precision=setup.precision,
        flops={**vars(work.flops), "total": work.flops.total},
        rate=speed.rate,
        seconds=_seconds(setup, work, speed),
        memory=footprint.parts(setup),
        disk=_disk(setup),
        note=speed.note,
        recompute=setup.train.recompute,
        row_tokens=setup.train.room,
        choice=fit.note,
        precision_reason=reason,
    )


def _fit(
    config: ModelConfig, method: Method[Any], train: TrainSettings, documents: Documents, process: ProcessMemory
) -> tuple[budget.MemoryFit, str]:
    """Precision and what is recomputed, so that the run fits; and the reason for the precision."""
    preferred, reason = machine.choose_precision(train.precision, "cpu")
    others = [name for name in footprint.BYTES if name != preferred] if train.precision == "auto" else []
    asked = TrainingSetup.of(config, method.trained(config), train, preferred, documents, process)
    free = machine.memory()[1] + machine.resident_memory() if process.free is None else process.free
    fit = budget.choose([asked, *(asked.in_precision(name) for name in others)], free)
    return fit, reason if fit.setup.precision == preferred else fit.note


@dataclass(frozen=True)
class Work:
    """What is computed.

    Attributes:
        steps: of the optimizer.
        tokens: that pass through in all of them, sources too. loss_tokens: those with loss.
        flops: of all steps.
    """

    steps: int
    tokens: int
    loss_tokens: int
    flops: Flops

    @classmethod
    def of(cls, setup: TrainingSetup) -> Work:
        """Of a run."""
        documents, train = setup.documents, setup.train
        lengths, sources = documents.lengths, documents.sources
        loss_tokens = sum(lengths) if documents.loss_tokens is None else documents.loss_tokens
        steps, epochs = _steps_and_epochs(len(lengths), train)
        epoch = training_cost.training_flops(
            setup.config,
            setup.trained,
            sum(lengths),
            loss_tokens,
            lengths,
            sources or None,
            labels=documents.labels,
            recompute=train.recompute,
        )
        tokens = round((sum(lengths) + sum(sources)) * epochs)
        return cls(steps, tokens, round(loss_tokens * epochs), epoch.times(epochs))


def _steps_and_epochs(documents: int, train: TrainSettings) -> tuple[int, float]:
    """Optimizer steps, and how often each document passes through in them."""
    epoch = math.ceil(documents / train.batch_size)
    if not train.steps:
        return max(1, math.ceil(train.epochs * epoch)), train.epochs
    # a step that asks for more documents than there are sees them again
    return train.steps, train.steps * max(train.batch_size / documents, 1) / epoch


@dataclass(frozen=True)
class Speed:
    """How fast this machine is expected to train.

    Attributes:
        rate: FLOP/s that training reaches; None where this machine's rate is not known.
        step_seconds: of a step, that no arithmetic takes.
        note: what to know about the measurement.
    """

    rate: float | None
    step_seconds: float
    note: str

    @classmethod
    def of(cls, setup: TrainingSetup, rates: machine.Rates) -> Speed:
        """From the measured rates of matrix products and of reading memory."""
        measured = float(getattr(rates, setup.precision, 0) or 0)
        rate = measured * 1e9 * EFFICIENCY[setup.precision][kernels() is None] or None
        calls = LAYER_SECONDS * setup.row.rows_per_step * _called_layers(setup.config)
        optimizer = OPTIMIZER_BYTES * setup.trained.count / (rates.memory * 1e9) if rates.memory else 0.0
        quiet = rates.share >= machine.QUIET
        note = "" if quiet else "a rate measured while other programs ran: time may be much shorter"
        return cls(rate, STEP_SECONDS + calls + optimizer, note)


def _called_layers(config: ModelConfig) -> int:
    """Layers by the operations that they call; one with cross-attention calls twice as many."""
    return config.num_hidden_layers + 2 * (config.num_decoder_layers or 0)


def _seconds(setup: TrainingSetup, work: Work, speed: Speed) -> dict[str, float]:
    """Of training, and of evaluation and both where there is something to evaluate."""
    if not speed.rate:
        return {}
    training = work.flops.total / speed.rate + work.steps * speed.step_seconds
    if not setup.documents.evaluation_tokens:
        return {"training": training}
    evaluation = _evaluation_flops(setup) / speed.rate
    return {"training": training, "evaluation": evaluation, "total": training + evaluation}


def _evaluation_flops(setup: TrainingSetup) -> float:
    """Of documents as long as the training documents are on average, forward alone."""
    documents = setup.documents
    count = len(documents.lengths)
    tokens, source = (round(sum(lengths) / count) for lengths in (documents.lengths, documents.sources))
    head = sum(documents.lengths) if documents.loss_tokens is None else documents.loss_tokens
    sources = [source] if documents.sources else None
    document = sizes.forward_flops(setup.config, tokens, round(head / count), None, sources)
    return document.total * documents.evaluation_tokens / max(1, tokens + source)


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
