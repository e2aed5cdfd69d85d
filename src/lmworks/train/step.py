"""The gradient of one optimizer step: rows, precision, loss, backward. No schedule, no journal and no checkpoint."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from lmworks.base import process_memory
from lmworks.base.seeds import derived_seed
from lmworks.data.batch import CONTRASTIVE, LANGUAGE, Batch, Example, ExampleTransform
from lmworks.data.packing import collate, pack, pad
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.linear_parameters import merges_term
from lmworks.model.storage import WeightStorage
from lmworks.model.trained_parameters import TrainedParameters
from lmworks.model.training_cost import Workload
from lmworks.model.transformer import Transformer
from lmworks.train import losses
from lmworks.train.settings import TrainSettings


@dataclass(frozen=True)
class StepResult:
    """The results of a step's backward passes, besides the gradients in the parameters.

    Attributes:
        terms: by name, the mean of each term of the loss over the step's targets of that term, in nats.
        tokens: real tokens that passed through the network.
        targets: sum of the weights of the language head's targets.
        workload: the documents, for counting floating-point operations.
        weights: what terms are multiplied by, by name; 1 where nothing is said.
    """

    terms: dict[str, float]
    tokens: int
    targets: float
    workload: Workload
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The weighted sum of all terms."""
        return sum((self.weights.get(name, 1.0) * term for name, term in self.terms.items()), start=0.0)

    @property
    def has_targets(self) -> bool:
        """Whether anything in this step carries loss."""
        return self.targets > 0 or self.workload.labels.total() > 0


@contextmanager
def cast_frozen_weights(network: nn.Module, precision: str) -> Iterator[int]:
    """Within this block, frozen weights have this precision; trainable and adapted weights are unchanged.

    Afterwards the frozen weights are as they were. Meanwhile the originals stay in memory together with their copies,
    unless they are mapped from a file, of which the system may take the pages, or dequantized from blocks, which is
    done again.

    Yields:
        bytes of the originals that stay in memory.
    """
    if precision == "float32":
        yield 0
        return
    originals: list[tuple[nn.Parameter, torch.Tensor | WeightStorage]] = []
    blocks = _blocks_of(network)
    # An adapted weight is not cast here: model/products casts what the adapter makes of it, once per step.
    adapted = [module.base for module in network.modules() if merges_term(module)]
    adapted_ids = {id(base.weight) for base in adapted if isinstance(base, nn.Linear)}
    for parameter in network.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32 and id(parameter) not in adapted_ids:
            originals.append((parameter, blocks.get(id(parameter), parameter.data)))
            parameter.data = parameter.data.to(torch.bfloat16)
    dense = [data for _, data in originals if isinstance(data, torch.Tensor)]
    released = process_memory.release_mapped((data.data_ptr(), data.nbytes) for data in dense)
    try:
        yield sum(data.nbytes for data in dense) - released
    finally:
        if len(dense) < len(originals):
            process_memory.trim_memory(0)  # free pages of activations would stay beside the new weights
        for parameter, data in originals:
            parameter.data = data if isinstance(data, torch.Tensor) else data.dequantized()


def _blocks_of(network: nn.Module) -> dict[int, WeightStorage]:
    """By id of a parameter, the quantized blocks that give exactly its numbers."""
    storages = {}
    for name, storage in getattr(network, "dequantized_from", {}).items():
        with contextlib.suppress(AttributeError):  # a method may have replaced the layer
            weight = network.get_submodule(name).get_parameter("weight")
            if weight.dtype == torch.float32 and torch.equal(weight, storage.dequantized()):
                storages[id(weight)] = storage
    return storages


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Within this block (a forward pass, without its backward), matrix products have this precision.

    Trainable weights stay float32 and are cast where they are used, so that rounding does not lose small updates.
    """
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def sample(
    examples: Sequence[Example], indices: Sequence[int], transform: ExampleTransform | None, seed: int, step: int
) -> list[Example]:
    """A step's examples, with their random part sampled by (seed, step, index), so that a resumed run samples the same.

    Args:
        examples: the fixed part of all of them.
        indices: of this step's examples.
        transform: the random part of the task; None: there is none.
        seed, step: of the run.
    """
    if transform is None:
        return [examples[index] for index in indices]
    times: Counter[int] = Counter()
    documents = []
    for index in indices:
        repeat = (
            (times[index],) if times[index] else ()
        )  # a step larger than the data set contains examples several times
        documents.append(transform(examples[index], np.random.default_rng((seed, step, index, *repeat))))
        times[index] += 1
    return documents


def batches_of(examples: Sequence[Example], settings: TrainSettings, virtual: int = 0) -> list[Batch]:
    """A step's documents as the batches that pass through the network one after another.

    Documents of equal length get one row each: this needs neither padding nor an attention mask. Texts to compare pass
    through together, since each is compared with all. ``virtual`` tokens that the network puts before each document
    count in a row.
    """
    if any(CONTRASTIVE in example.labels for example in examples):
        return [collate(examples)]
    if not settings.packing:
        return [pad(examples, 0)]
    shapes = {(example.width, example.size) for example in examples}
    if len(shapes) > 1:
        return pack(examples, settings.row_capacity, fill=True, virtual=virtual)
    documents_per_batch = max(1, settings.row_capacity // (examples[0].size + virtual))
    return [
        collate(examples[begin : begin + documents_per_batch]) for begin in range(0, len(examples), documents_per_batch)
    ]


def accumulate_gradients(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    step: int,
    precision: str,
    device: torch.device,
    loss_weights: Mapping[str, float] | None = None,
) -> StepResult:
    """Add the gradient of the step's loss to the trainable parameters.

    The loss is the sum of its terms' means (:func:`lmworks.train.losses.terms`). Each mean is over all targets of the
    step, however its documents are packed: one row of eight documents and eight rows of one give the same gradient.

    Args:
        network: in training mode, inside :func:`cast_frozen_weights`.
        examples: the step's documents, sampled.
        settings: packing, row_tokens, seed.
        step: number of the step; it and the seed determine dropout, so that a resumed run drops the same elements.
        precision: of the matrix products.
        device: the network's.
        loss_weights: of terms of classification heads, by name; 1 where nothing is said.
    """
    _seed(derived_seed(settings.seed, step), device)
    factors = loss_weights or {}
    batches = batches_of(examples, settings, network.soft_prompt_length)
    weights = losses.weights_of(batches)
    means = {name: 0.0 for name, weight in weights.items() if weight}
    with accumulate_in_place():
        for batch in batches:
            if settings.trim_above is not None:
                process_memory.trim_memory(settings.trim_above)
            if not weights[LANGUAGE] and not batch.labels:
                continue
            # The language head computes its gradient together with its loss, so the weights are divided, not the total.
            scaled = replace(batch, weights=batch.weights / (weights[LANGUAGE] or 1.0))
            with autocast(precision, device):
                terms = losses.terms(network, scaled.to(device))
            parts = {
                name: term.total if name == LANGUAGE else term.total / weights[name] for name, term in terms.items()
            }
            for name, part in parts.items():
                means[name] += float(part.detach())
            if parts:
                weighted = [part * factors[name] if name in factors else part for name, part in parts.items()]
                functools.reduce(operator.add, weighted).backward()
    tokens = sum(batch.tokens for batch in batches)
    workload = Workload.of(examples, weights[LANGUAGE])
    return StepResult(means, tokens, weights[LANGUAGE], workload, factors)


def step_flops(network: Transformer, workload: Workload, recompute: int = 0) -> float:
    """FLOPs of forward and backward passes over the documents, with the network's current trainable parameters."""
    return float(workload.flops(network.config, TrainedParameters.of(network), recompute).total)


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout on this device uses; torch.manual_seed would also seed all other devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
