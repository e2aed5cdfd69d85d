"""Before a run: parameters, FLOPs, time, memory and disk to expect, each told by its parts.

From a config, settings and the lengths of the documents; opens no model and no data. Encoders, decoders and both;
all weights trained, of a model that is there or from nothing, or adapters beside them. Parameters and FLOPs are
arithmetic. Time is FLOPs over this machine's own measured rate times a share that training reaches, and what small
models spend beside arithmetic: calling operations, and moving weights through the optimizer. Memory is told by
footprint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.adapt.lora import LoRASettings, targeted
from lmworks.base import figures, machine
from lmworks.kernels.library import library as kernels
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.run import budget, footprint
from lmworks.run.footprint import Job, Rows
from lmworks.train.settings import STATE_BYTES, TrainSettings, sized

# Share of the measured matrix rate that a whole step reaches, with the native kernels and without: SmolLM2-135M by
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
        parameters: of the base model. trainable: of those, or of the adapters beside them.
        steps, tokens, loss_tokens: optimizer steps, and tokens that pass through in all of them.
        precision: of the products.
        flops: by part, and their total.
        rate: FLOP/s that training is expected to reach; None where this machine's rate is not known.
        seconds: "training", and "evaluation" and "total" where tokens to evaluate were given.
        memory, disk: bytes by part, and their total.
        note: what to know about the time.
        recompute, row_tokens: settings of training within its budget of memory.
        choice: why they are others than asked for; empty where they are not.
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

    def settle(self, train: TrainSettings) -> None:
        """Make the settings those that were planned: what a budget of memory changed."""
        train.recompute, train.row_tokens = self.recompute, self.row_tokens

    def event(self) -> dict[str, Any]:
        """What the journal keeps, so that the report card can set it beside what happened."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """What a person reads before the run."""
        share = figures.percent(self.trainable / (self.parameters or 1))
        if self.rate:
            at = f"at {figures.scaled(self.rate, 'FLOP/s', 3)} expected"
            time = figures.duration(self.seconds.get("total", self.seconds["training"]))
        else:
            time, at = "not known", "this machine's rate is not measured: lmworks doctor"
        return [
            f"parameters  {figures.count(self.parameters)}, trained {figures.count(self.trainable)} ({share})",
            f"work        {figures.count(self.steps)} steps, {figures.count(self.tokens)} tokens "
            f"({figures.count(self.loss_tokens)} with loss), {figures.scaled(self.flops['total'], 'FLOP', 3)}",
            f"time        {time} ({self.precision}, {at}{', ' + self.note if self.note else ''})",
            f"memory      {_parts(self.memory)}",
            *([f"            {self.choice}"] if self.choice else []),
            f"disk        {_parts(self.disk)}",
        ]


def _parts(sizes_: dict[str, int]) -> str:
    parts = sorted(((size, name) for name, size in sizes_.items() if name != "total" and size), reverse=True)
    said = ", ".join(f"{name} {figures.storage(size)}" for size, name in parts)
    return f"{figures.storage(sizes_['total'])} ({said})"


def make(
    config: ModelConfig,
    method: str,
    train: TrainSettings,
    lora: LoRASettings,
    lengths: Sequence[int],
    *,
    sources: Sequence[int] = (),
    loss_tokens: int | None = None,
    labels: Mapping[str, int] | None = None,
    evaluation_tokens: int = 0,
    rates: machine.Rates | None = None,
    library: int = footprint.LIBRARY_BYTES,
    free: int | None = None,
    opened: int = 0,
) -> Plan:
    """The plan of a run.

    Args:
        config: the model.
        method: "lora" trains adapters; "full" and "scratch" every weight.
        train: steps, batch, rows, precision ("auto": as this machine measured).
        lora: rank and targets, for method lora.
        lengths: tokens of each training document; those of the decoder, where there are two stacks.
        sources: tokens that the encoder of an encoder-decoder reads, for each document.
        loss_tokens: how many of ``lengths`` carry loss, so that logits are made there; None: all.
        labels: places that each classification head reads, by its name, where it has some.
        evaluation_tokens: tokens that pass through without training, sources too, all measurements together.
        rates: this machine's; None: asked of base/machine.
        library: bytes that the process holds beside the weights: interpreter, libraries, data.
        opened: bytes that it has held at most by now.
        free: bytes that it may hold in all; None: what this machine has now.

    Raises:
        InputError: it does not fit in the memory that there is, or that it was given.
    """
    train = sized(train, config)
    adapted = adapted_by(config, lora) if method == "lora" else None
    parameters = sizes.parameters(config)["total"]
    trainable = parameters if adapted is None else sizes.lora_parameters(adapted, lora.rank)
    precision = machine.choose_precision(train.precision, "cpu")[0]
    steps = train.steps or max(1, math.ceil(train.epochs * math.ceil(len(lengths) / train.batch_size)))
    passes = train.epochs
    if train.steps:  # a step that asks for more documents than there are sees them again
        passes = steps * max(train.batch_size / len(lengths), 1) / math.ceil(len(lengths) / train.batch_size)

    def job(settings: TrainSettings) -> Job:
        laid = Rows.of(lengths, sources, settings)
        return Job(config, settings, adapted, lora.rank, precision, laid, library, evaluation_tokens > 0, opened)

    chosen = budget.choose(job, train, machine.memory()[1] + machine.resident_memory() if free is None else free)
    train = train.model_copy(update={"recompute": chosen.recompute, "row_tokens": chosen.row_tokens})
    held = job(train)
    rows = held.rows
    head = sum(lengths) if loss_tokens is None else loss_tokens
    once = sizes.training_flops(
        config,
        sum(lengths),
        head,
        lengths,
        sources or None,
        labels=labels,
        adapted=adapted,
        rank=lora.rank,
        recompute=train.recompute,
    )
    work = once.times(passes, passes, passes, passes)
    rates = rates or machine.rates()
    rate = _rate(precision, rates)
    note = "" if rates.share >= machine.QUIET else "a rate measured while other programs ran: time may be much shorter"
    seconds: dict[str, float] = {}
    if rate:
        seconds = {"training": work.total / rate + steps * _beside(config, rows, trainable, rates)}
    if rate and evaluation_tokens:
        each = [round(sum(of) / len(lengths)) for of in (lengths, sources)]
        forward = sizes.forward_flops(config, each[0], round(head / len(lengths)), None, each[1:] if sources else None)
        seconds["evaluation"] = forward.total / rate * evaluation_tokens / max(1, sum(each))
        seconds["total"] = seconds["training"] + seconds["evaluation"]
    return Plan(
        parameters,
        trainable,
        steps,
        round((sum(lengths) + sum(sources)) * passes),
        round(head * passes),
        precision,
        {**vars(work), "total": work.total},
        rate,
        seconds,
        footprint.parts(held),
        _summed(_disk(config, train, adapted is None, parameters, trainable)),
        note,
        chosen.recompute,
        chosen.row_tokens,
        chosen.note,
    )


def adapted_by(config: ModelConfig, lora: LoRASettings) -> list[sizes.Linear]:
    """The matrices that LoRA settings put an adapter beside."""
    return [m for m in sizes.linears(config) if any(targeted(m.name, target) for target in lora.targets)]


def _beside(config: ModelConfig, rows: Rows, trainable: int, rates: machine.Rates) -> float:
    """Seconds of a step that no arithmetic takes: calls of operations, and the optimizer's way through the memory."""
    layers = config.num_hidden_layers + 2 * (config.num_decoder_layers or 0)
    through = OPTIMIZER_BYTES * trainable / (rates.memory * 1e9) if rates.memory else 0.0
    return STEP_SECONDS + rows.each * layers * LAYER_SECONDS + through


def _rate(precision: str, rates: machine.Rates) -> float | None:
    measured = float(getattr(rates, precision, 0) or 0)
    return measured * 1e9 * EFFICIENCY[precision][kernels() is None] or None


def _disk(config: ModelConfig, train: TrainSettings, whole: bool, parameters: int, trainable: int) -> dict[str, int]:
    """Bytes by part: checkpoints hold trained weights and what AdamW remembers; one more exists while it is written."""
    checkpoint = round((4 + STATE_BYTES[train.optimizer_state]) * trainable)
    return {
        "checkpoints": checkpoint * (train.keep_checkpoints + 2),  # the best one too
        "final": 4 * (parameters if whole else trainable) + TOKENIZER_BYTES * config.vocab_size,
    }


def _summed(parts: dict[str, int]) -> dict[str, int]:
    return {**parts, "total": sum(parts.values())}
