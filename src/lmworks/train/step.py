"""One optimizer step's gradient: rows, precision, loss, backward. Knows no schedule, no journal and no checkpoint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from lmworks.data.batch import Batch, Example
from lmworks.data.packing import pack, pad
from lmworks.evaluate.scoring import Draw, lay, moved
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.products import LoRALinearProtocol
from lmworks.model.sizes import forward_flops, recomputed_fraction
from lmworks.model.transformer import Transformer
from lmworks.train import losses
from lmworks.train.settings import TrainSettings


@dataclass
class Passed:
    """What passed through a network, as counting its floating-point operations needs it.

    Attributes:
        lengths: tokens of each document.
        sources: tokens of each document's source, where there are any.
        targets: places at which logits were made.
        pairs: documents whose pair of sentences was judged.
    """

    lengths: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: float = 0.0
    pairs: int = 0

    def add(self, other: Passed) -> None:
        """Count another's documents too."""
        self.lengths += other.lengths
        self.sources += other.sources
        self.targets += other.targets
        self.pairs += other.pairs

    @classmethod
    def of(cls, examples: Sequence[Example], targets: float, pairs: int) -> Passed:
        """What these documents are."""
        sources = [len(example.source) for example in examples if example.source is not None]
        return cls([example.width for example in examples], sources, targets, pairs)


@dataclass(frozen=True)
class Gradient:
    """What a step's backward passes gave, besides the gradients in the parameters.

    Attributes:
        loss: mean over the step's targets, in nats, and that of its pairs of sentences where there are any.
        tokens: real tokens that passed through the network.
        targets: sum of the weights of the places that carry loss.
        passed: the documents, for counting floating-point operations.
        pair_loss: the part of the loss that pairs of sentences are; None without.
    """

    loss: float
    tokens: int
    targets: float
    passed: Passed
    pair_loss: float | None = None


@contextmanager
def frozen_in(network: nn.Module, precision: str) -> Iterator[None]:
    """Within this block, frozen weights are held in this precision; trainable and adapted ones stay as they are.

    Afterwards the frozen weights are those that came, bit for bit; they are kept aside meanwhile, which costs their
    size once more (nothing, where they came from a mapped file).
    """
    if precision == "float32":
        yield
        return
    kept = []
    # What has an update beside it stays: the sum of both is rounded, anew each step (model/products).
    summed = {id(one.base.weight) for one in network.modules() if isinstance(one, LoRALinearProtocol)}
    for parameter in network.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32 and id(parameter) not in summed:
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


def drawn(examples: Sequence[Example], chosen: Sequence[int], draw: Draw | None, seed: int, step: int) -> list[Example]:
    """A step's examples, their random part drawn anew from (seed, step, index): a resumed run draws the same.

    Args:
        examples: the fixed part of all of them.
        chosen: indices of this step's.
        draw: an objective's (data/drawing); None: there is nothing to draw.
        seed, step: of the run.
    """
    if draw is None:
        return [examples[index] for index in chosen]
    times: Counter[int] = Counter()
    made = []
    for index in chosen:
        again = (times[index],) if times[index] else ()  # where steps are larger than the data, examples come again
        made.append(draw(examples[index], np.random.default_rng((seed, step, index, *again))))
        times[index] += 1
    return made


def rows_of(examples: Sequence[Example], settings: TrainSettings) -> list[Batch]:
    """A step's documents as the batches that pass through the network one after another.

    Documents of one length stand a document a row, which is as free of padding as a flat row and asks for no borders.
    """
    if not settings.packing:
        return [pad(examples, 0)]
    shapes = {(example.width, example.size) for example in examples}
    if len(shapes) > 1:
        return pack(examples, settings.room)
    at_once = max(1, settings.room // examples[0].size)
    return [lay(examples[begin : begin + at_once]) for begin in range(0, len(examples), at_once)]


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
    and eight rows of one give the same gradient. Where there are pairs of sentences, the mean of their loss over the
    step's documents is added.

    Args:
        network: in training mode, inside :func:`frozen_in`.
        examples: the step's documents, drawn.
        settings: packing, row_tokens, seed.
        step: number of the step; dropout follows from it and the seed alone, so that a resumed run draws the same.
        precision: of the products.
        device: the network's.
    """
    _seed(seed_of(settings.seed, step), device)
    batches = rows_of(examples, settings)
    targets = sum(float(batch.weights.sum()) for batch in batches)
    paired = sum(len(batch.pair_labels) for batch in batches if batch.pair_labels is not None)
    words = pairs = 0.0
    with accumulate_in_place():
        for batch in batches:
            if batch.pair_labels is None and not targets:
                continue
            shared = replace(batch, weights=batch.weights / (targets or 1.0))  # so that sums over batches are the mean
            with products_in(precision, device):
                found = losses.loss(network, moved(shared, device))
            mean = found.words
            words += float(mean.detach())
            if found.pairs is not None:
                pair_mean = found.pairs / paired
                pairs += float(pair_mean.detach())
                mean = mean + pair_mean
            mean.backward()
    tokens = sum(batch.tokens for batch in batches)
    return Gradient(words + pairs, tokens, targets, Passed.of(examples, targets, paired), pairs if paired else None)


def training_flops(network: Transformer, passed: Passed, recompute: int = 0) -> float:
    """FLOPs of forward and backward: a frozen weight needs no gradient of its own, a trainable one does."""
    tokens = sum(passed.lengths)
    once = forward_flops(
        network.config, tokens, round(passed.targets), passed.lengths, passed.sources, pairs=passed.pairs
    )
    again = recomputed_fraction(network.config, recompute)
    if all(parameter.requires_grad for parameter in network.parameters()):
        return float(once.times(3 + again, 3 + again, 3).total)
    trained = {name: weight.numel() for name, weight in network.named_parameters() if weight.requires_grad}
    beside = 2 * sum(
        size * (sum(passed.sources) if name.startswith("encoder.") else tokens) for name, size in trained.items()
    )
    return float(once.times(2 + again, 3 + again, 2).total + (3 + again) * beside)


def seed_of(seed: int, step: int) -> int:
    """A seed for the random numbers of one step."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "little") >> 1


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that this device's dropout reads; torch.manual_seed would look for every other device too."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
