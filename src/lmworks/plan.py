"""Before a run: parameters, FLOPs, time, memory and disk to expect, each told by its parts.

From a config, settings and the lengths of the documents; opens no model and no data. Parameters and FLOPs are
arithmetic. Time is FLOPs over this machine's own measured rate times a share that training reaches. Memory is what
must be held at the worst moment, backward at the largest row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.adapt.settings import LoRASettings, targeted
from lmworks.base import figures, machine
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.train.settings import TrainSettings

# Share of the measured matrix rate that a whole step reaches: a flat packed loop on SmolLM2-135M did 357 of the 690
# tokens/s that arithmetic allows in float32, and 592 of 4,000 in bfloat16, where element-wise passes are the cost.
EFFICIENCY = {"float32": 0.52, "bfloat16": 0.15}
# tokenizer.json with its merges, an entry of the vocabulary: 3.5 MB at SmolLM2's 49,152.
TOKENIZER_BYTES = 72
# Interpreter, torch, tokenizers and Arrow resident before a model is opened.
LIBRARY_BYTES = 400_000_000
HEAD_PLACES = 256  # places whose logits exist at a time, in float32: themselves, their softmax, their gradient
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
    evaluation_tokens: int = 0,
    rates: machine.Rates | None = None,
) -> Plan:
    """The plan of a run.

    Args:
        config: the model.
        method: "lora" or "full".
        train: steps, batch, rows, precision ("auto": as this machine measured).
        lora: rank and targets, for method lora.
        lengths: tokens of each training document; those of the decoder, where there are two stacks.
        sources: tokens that the encoder of an encoder-decoder reads, for each document.
        loss_tokens: how many of them carry loss; None: all.
        evaluation_tokens: tokens that pass through without training, all measurements together.
        rates: this machine's; None: asked of base/machine.
    """
    adapted = adapted_by(config, lora) if method == "lora" else None
    parameters = sizes.parameters(config)["total"]
    trainable = parameters if adapted is None else sizes.lora_parameters(adapted, lora.rank)
    precision = machine.choose_precision(train.precision, "cpu")[0]
    steps = train.steps or max(1, math.ceil(train.epochs * math.ceil(len(lengths) / train.batch_size)))
    passes = steps * train.batch_size / len(lengths) if train.steps else train.epochs
    own, read = sum(lengths), sum(sources)
    whole = [length + source for length, source in zip(lengths, sources or [0] * len(lengths), strict=True)]
    total = own + read
    head = total if loss_tokens is None else loss_tokens
    once = sizes.training_flops(
        config,
        own,
        head,
        lengths,
        sources or None,
        adapted=adapted,
        rank=lora.rank,
        recompute=train.recompute,
    )
    work = once.times(passes, passes, passes, passes)
    rates = rates or machine.rates()
    rate = _rate(precision, rates)
    note = "" if rates.share >= machine.QUIET else "a rate measured while other programs ran: time may be much shorter"
    seconds = {"training": work.total / rate} if rate else {}
    if rate and evaluation_tokens:
        mean, mean_read = max(1, own // len(lengths)), read // len(lengths)
        forward = sizes.forward_flops(config, mean, memory_lengths=[mean_read] if sources else None).total
        forward = forward * evaluation_tokens / (mean + mean_read)
        seconds["evaluation"] = forward / rate
        seconds["total"] = seconds["training"] + seconds["evaluation"]
    return Plan(
        parameters,
        trainable,
        steps,
        round(total * passes),
        round(head * passes),
        precision,
        {**vars(work), "total": work.total},
        rate,
        seconds,
        _summed(
            _memory(
                config, train, lora, adapted, parameters, trainable, precision, largest_row(whole, train), read / total
            )
        ),
        _summed(_disk(config, train, adapted is None, parameters, trainable)),
        note,
    )


def adapted_by(config: ModelConfig, lora: LoRASettings) -> list[sizes.Linear]:
    """The matrices that LoRA settings put an adapter beside."""
    return [m for m in sizes.linears(config) if any(targeted(m.name, target) for target in lora.targets)]


def largest_row(lengths: Sequence[int], train: TrainSettings) -> int:
    """Tokens of the largest row that may pass through at once: as many as a step has, within row_tokens."""
    longest = sorted(lengths)[-train.batch_size :]
    if not train.packing:
        return longest[-1] * len(longest)
    return max(longest[-1], min(sum(longest), train.row_tokens))


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
    row: int,
    read: float,
) -> dict[str, int]:
    """Bytes by part at the worst moment: backward at the largest row, of which an encoder may read a share."""
    each = _BYTES[precision]
    frozen = 0 if adapted is None else parameters
    block = sizes.activation_bytes(config, adapted, lora.rank, each)
    kept = config.num_hidden_layers * block
    if config.architecture == "encoder-decoder":
        layers, wide = config.num_decoder_layers or 0, config.num_attention_heads * config.head_size
        crossing = (1 - read) * (2 * config.hidden_size + 3 * wide) + read * 2 * wide
        kept = round(read * kept + layers * ((1 - read) * block + crossing * each))
    if train.recompute:  # every block's input, and one block at a time
        layers = config.num_hidden_layers + (config.num_decoder_layers or 0)
        kept = layers * config.hidden_size * each + block
    # Gradients that run through one block while its activations are still held, and the last norm with its input.
    passing = (4 * config.intermediate_size + 7 * config.hidden_size) * each
    head = 3 * HEAD_PLACES * config.vocab_size * 4
    if adapted is None:  # the head's gradient is summed up in float32 beside the embedding's
        head += config.vocab_size * config.hidden_size * 4
    return {
        "library": LIBRARY_BYTES,
        # frozen weights are held once more in half width; trained ones stay float32
        "weights": 4 * (parameters + (trainable if adapted is not None else 0)) + (2 * frozen if each == 2 else 0),
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,  # AdamW: two moments in float32
        "activations": row * (kept + passing),
        "head": head,
    }


def _disk(config: ModelConfig, train: TrainSettings, whole: bool, parameters: int, trainable: int) -> dict[str, int]:
    """Bytes by part: checkpoints hold trained weights and AdamW's two moments; one more exists while it is written."""
    checkpoint = 12 * trainable
    return {
        "checkpoints": checkpoint * (train.keep_checkpoints + 2),  # the best one too
        "final": 4 * (parameters if whole else trainable) + TOKENIZER_BYTES * config.vocab_size,
    }


def _summed(parts: dict[str, int]) -> dict[str, int]:
    return {**parts, "total": sum(parts.values())}
