"""Before a run: parameters, FLOPs, time, memory and disk to expect, each told by its parts.

From a config, settings and the lengths of the documents; opens no model and no data. Encoders, decoders and both;
all weights trained, of a model that is there or from nothing, or adapters beside them. Parameters and FLOPs are
arithmetic. Time is FLOPs over this machine's own measured rate times a share that training reaches, and what small
models spend beside arithmetic: calling operations, and moving weights through the optimizer. Memory is what must be
held at the worst moment, backward at the largest row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.adapt.settings import LoRASettings, targeted
from lmworks.base import figures, machine
from lmworks.kernels.library import library
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.model.kept import kept_bytes
from lmworks.train.settings import TrainSettings

# Share of the measured matrix rate that a whole step reaches: a flat packed loop on SmolLM2-135M did 357 of the 690
# tokens/s that arithmetic allows in float32, and 592 of 4,000 in bfloat16, where element-wise passes are the cost.
EFFICIENCY = {"float32": 0.52, "bfloat16": 0.15}
# tokenizer.json with its merges, an entry of the vocabulary: 3.5 MB at SmolLM2's 49,152.
TOKENIZER_BYTES = 72
# Interpreter, torch, tokenizers and Arrow resident before a model is opened.
LIBRARY_BYTES = 400_000_000
# Calling the operations of one layer for one row, forward and backward, whatever their size: measured with a layer so
# small that its arithmetic is nothing. And the same of a step: rows, embeddings, head, clipping, journal.
LAYER_SECONDS, STEP_SECONDS = 5e-4, 3e-3
# AdamW reads weight, gradient and two moments and writes three of them; the norm reads the gradient once more.
OPTIMIZER_BYTES = 32
# Logits exist for so many places at a time, or for so many numbers where the vocabulary is small (train/losses): in
# float32 they, their softmax, their gradient.
HEAD_PLACES, HEAD_NUMBERS = 256, 1 << 20
_BYTES = {"float32": 4, "bfloat16": 2}


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
    pairs: int = 0,
    evaluation_tokens: int = 0,
    rates: machine.Rates | None = None,
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
        pairs: documents that are pairs of sentences to be judged.
        evaluation_tokens: tokens that pass through without training, sources too, all measurements together.
        rates: this machine's; None: asked of base/machine.
    """
    adapted = adapted_by(config, lora) if method == "lora" else None
    parameters = sizes.parameters(config)["total"]
    trainable = parameters if adapted is None else sizes.lora_parameters(adapted, lora.rank)
    precision = machine.choose_precision(train.precision, "cpu")[0]
    steps = train.steps or max(1, math.ceil(train.epochs * math.ceil(len(lengths) / train.batch_size)))
    passes = train.epochs
    if train.steps:  # a step that asks for more documents than there are sees them again
        passes = steps * max(train.batch_size / len(lengths), 1) / math.ceil(len(lengths) / train.batch_size)
    rows = _Rows.of(lengths, sources, train)
    head = sum(lengths) if loss_tokens is None else loss_tokens
    once = sizes.training_flops(
        config,
        sum(lengths),
        head,
        lengths,
        sources or None,
        pairs=pairs,
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
        _summed(_memory(config, train, lora, adapted, parameters, trainable, precision, rows)),
        _summed(_disk(config, train, adapted is None, parameters, trainable)),
        note,
    )


def adapted_by(config: ModelConfig, lora: LoRASettings) -> list[sizes.Linear]:
    """The matrices that LoRA settings put an adapter beside."""
    return [m for m in sizes.linears(config) if any(targeted(m.name, target) for target in lora.targets)]


@dataclass(frozen=True)
class _Rows:
    """The rows that pass through a network.

    Attributes:
        lengths, sources: tokens of the documents of the largest row, and of their sources where they have any.
        each: rows of a step.
    """

    lengths: list[int]
    sources: list[int]
    each: int

    @classmethod
    def of(cls, lengths: Sequence[int], sources: Sequence[int], train: TrainSettings) -> _Rows:
        """The rows of documents laid as the settings say."""
        whole = [own + read for own, read in zip(lengths, sources or [0] * len(lengths), strict=True)]
        chosen = largest_row(whole, train)
        own, read = ([of[index] for index in chosen] for of in (lengths, sources or [0] * len(lengths)))
        if not train.packing:  # all as long as the longest
            own, read = [max(own)] * len(own), [max(read)] * len(read)
        step = sum(whole) / len(whole) * (train.batch_size if train.steps else min(train.batch_size, len(whole)))
        return cls(own, read if sources else [], math.ceil(step / train.row_tokens) if train.packing else 1)


def largest_row(lengths: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in the largest row that may pass through at once: as many as a step has, within
    row_tokens; the longest of all alone where it is longer.

    Args:
        lengths: of each document, with its source where it has one.
        train: how rows are laid.
    """
    again = -(-train.batch_size // len(lengths)) if train.steps else 1
    everyone = [index for index in range(len(lengths)) for _ in range(again)]
    longest = sorted(everyone, key=lambda index: -lengths[index])[: train.batch_size]
    if not train.packing:
        return longest
    row, room = [longest[0]], train.row_tokens - lengths[longest[0]]
    for index in longest[1:]:
        if lengths[index] <= room:
            row.append(index)
            room -= lengths[index]
    return row


def _beside(config: ModelConfig, rows: _Rows, trainable: int, rates: machine.Rates) -> float:
    """Seconds of a step that no arithmetic takes: calls of operations, and the optimizer's way through the memory."""
    layers = config.num_hidden_layers + 2 * (config.num_decoder_layers or 0)
    through = OPTIMIZER_BYTES * trainable / (rates.memory * 1e9) if rates.memory else 0.0
    return STEP_SECONDS + rows.each * layers * LAYER_SECONDS + through


def _rate(precision: str, rates: machine.Rates) -> float | None:
    measured = float(getattr(rates, precision, 0) or 0)
    return measured * 1e9 * EFFICIENCY[precision] or None


def _memory(
    config: ModelConfig,
    train: TrainSettings,
    lora: LoRASettings,
    adapted: list[sizes.Linear] | None,
    parameters: int,
    trainable: int,
    precision: str,
    rows: _Rows,
) -> dict[str, int]:
    """Bytes by part at the worst moment: backward at the largest row."""
    each = _BYTES[precision]
    frozen = 0 if adapted is None else parameters
    head = 3 * max(HEAD_PLACES * config.vocab_size, HEAD_NUMBERS) * 4
    if adapted is None:  # the head's gradient is summed up in float32 beside the embedding's
        head += config.vocab_size * config.word_size * 4
    return {
        "library": LIBRARY_BYTES,
        # frozen weights are held once more in half width; trained ones stay float32
        "weights": 4 * (parameters + (trainable if adapted is not None else 0)) + (2 * frozen if each == 2 else 0),
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,  # AdamW: two moments in float32
        "rate finder": 4 * trainable if train.find_learning_rate else 0,  # the weights as they were
        "activations": _activations(config, train, lora, adapted, precision, rows),
        "head": head,
    }


def _activations(
    config: ModelConfig,
    train: TrainSettings,
    lora: LoRASettings,
    adapted: list[sizes.Linear] | None,
    precision: str,
    rows: _Rows,
) -> int:
    """Bytes that autograd keeps of the largest row, and those that pass through one block on the way back."""
    each, native = _BYTES[precision], precision == "float32" and library() is not None
    kept = kept_bytes(config, rows.lengths, rows.sources, adapted, lora.rank, each, native)
    if not native:
        kept += _dropped(config, rows, each)
    if train.recompute:  # every block's input, and one block at a time
        stacks = sizes.stacks(config)
        layers = sum(stack.layers for stack in stacks)
        tokens = {"own": sum(rows.lengths), "memory": sum(rows.sources)}
        inputs = sum(stack.layers * tokens[stack.reads] for stack in stacks) * config.hidden_size * each
        kept = inputs + kept // layers
    # Gradients that run through one block while its activations are still held, and the last norm with its input.
    passing = (4 * config.intermediate_size + 7 * config.hidden_size) * each
    return kept + max(sum(rows.lengths), sum(rows.sources)) * passing


def _dropped(config: ModelConfig, rows: _Rows, each: int) -> int:
    """Bytes that dropout keeps where no kernel makes it anew: its factors; where it falls on attention, the scores are
    written out: they, their softmax, the factors, and what is left of the weights."""
    kept = 0
    for stack in sizes.stacks(config):
        own = rows.lengths if stack.reads == "own" else rows.sources
        parts = 2 + stack.cross
        wide = parts * config.hidden_size * bool(config.hidden_dropout)
        wide += config.intermediate_size * bool(config.mlp_dropout)
        seen = sum(length**2 for length in own)
        if stack.cross:
            seen += sum(length * source for length, source in zip(own, rows.sources, strict=True))
        scores = 4 * config.num_attention_heads * seen * bool(config.attention_dropout)
        kept += stack.layers * (sum(own) * wide + scores) * each
    return kept


def _disk(config: ModelConfig, train: TrainSettings, whole: bool, parameters: int, trainable: int) -> dict[str, int]:
    """Bytes by part: checkpoints hold trained weights and AdamW's two moments; one more exists while it is written."""
    checkpoint = 12 * trainable
    return {
        "checkpoints": checkpoint * (train.keep_checkpoints + 2),  # the best one too
        "final": 4 * (parameters if whole else trainable) + TOKENIZER_BYTES * config.vocab_size,
    }


def _summed(parts: dict[str, int]) -> dict[str, int]:
    return {**parts, "total": sum(parts.values())}
