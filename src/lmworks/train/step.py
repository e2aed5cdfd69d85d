"""One optimizer step's gradient: rows, precision, loss, backward. Knows no schedule, no journal and no checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from lmworks.data.batch import Batch, Example
from lmworks.data.packing import pack, pad
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import forward_flops
from lmworks.model.transformer import Transformer
from lmworks.train.losses import next_token_loss
from lmworks.train.settings import TrainSettings


@dataclass(frozen=True)
class Gradient:
    """What a step's backward passes gave, besides the gradients in the parameters.

    Attributes:
        loss: mean over the step's targets, in nats.
        tokens: real tokens that passed through the network.
        targets: sum of the weights of the places that carry loss.
        flops: floating-point operations of the matrix products, forward and backward.
    """

    loss: float
    tokens: int
    targets: float
    flops: float


@contextmanager
def frozen_in(network: nn.Module, precision: str) -> Iterator[None]:
    """Within this block, frozen weights are held in this precision; trainable ones stay as they are.

    Afterwards the frozen weights are those that came, bit for bit; they are kept aside meanwhile, which costs their
    size once more (nothing, where they came from a mapped file).
    """
    if precision == "float32":
        yield
        return
    kept = []
    for parameter in network.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            kept.append((parameter, parameter.data))
            parameter.data = parameter.data.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def products_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Within this block (around a forward pass, not around its backward), products are made in this precision.

    Trainable weights stay float32 and are cast where they are used, so that small updates are not rounded away.
    """
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def rows_of(examples: Sequence[Example], settings: TrainSettings) -> list[Batch]:
    """A step's documents as the batches that pass through the network one after another."""
    return pack(examples, settings.row_tokens) if settings.packing else [pad(examples, 0)]


def gradient(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    step: int,
    precision: str,
    device: torch.device,
) -> Gradient:
    """Add the gradient of the step's mean loss to the trainable parameters.

    The mean is over all targets of the step, however its documents are laid into rows: one row of eight documents
    and eight rows of one give the same gradient.

    Args:
        network: in training mode, inside :func:`frozen_in`.
        examples: the step's documents.
        settings: packing, row_tokens, seed, recompute.
        step: number of the step; dropout follows from it and the seed alone, so that a resumed run draws the same.
        precision: of the products.
        device: the network's.
    """
    torch.manual_seed(seed_of(settings.seed, step))
    batches = rows_of(examples, settings)
    targets = sum(float(batch.weights.sum()) for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    loss = 0.0
    for batch in batches:
        if not batch.weights.any():
            continue
        with products_in(precision, device):
            loss_sum, _ = next_token_loss(network, _to(batch, device))
        (loss_sum / targets).backward()
        loss += loss_sum.detach().item()
    lengths = [int(n) for batch in batches for n in _lengths(batch)]
    flops = training_flops(network, network.config, lengths, targets, settings.recompute)
    return Gradient(loss / targets if targets else 0.0, tokens, targets, flops)


def training_flops(
    network: nn.Module, config: ModelConfig, lengths: Sequence[int], targets: float, recompute: bool
) -> float:
    """FLOPs of forward and backward: a frozen weight needs no gradient of its own, a trainable one does."""
    tokens = sum(lengths)
    once = forward_flops(config, tokens, round(targets), lengths)
    again = 1 if recompute else 0
    if all(parameter.requires_grad for parameter in network.parameters()):
        return float(once.times(3 + again, 3 + again, 3).total)
    adapted = 2 * sum(p.numel() for p in network.parameters() if p.requires_grad) * tokens
    return float(once.times(2 + again, 3 + again, 2).total + (3 + again) * adapted)


def seed_of(seed: int, step: int) -> int:
    """A seed for the random numbers of one step."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "little") >> 1


def _lengths(batch: Batch) -> list[int]:
    """Tokens of each document of a batch."""
    found: list[int] = []
    for row in batch.segments:
        found += torch.bincount(row)[1:].tolist()
    return [length for length in found if length]


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    moved = {f.name: getattr(batch, f.name).to(device, non_blocking=True) for f in fields(batch) if f.name != "tokens"}
    return replace(batch, **moved)
