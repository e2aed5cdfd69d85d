"""FLOPs of forward and backward passes for any set of trained parameters: exact for matrix products.

The backward pass computes gradients of inputs down to the lowest layer with trained parameters, and gradients of
trained weights; each takes as many FLOPs as the forward matmul (Kaplan et al. 2020, section 2.1: 2 FLOPs per weight and
token forward, 4 backward). A layer that the backward pass reaches is counted as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmworks.data.batch import Example, count_labels
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import Flops, LayerId
from lmworks.model.trained_parameters import TrainedParameters

HEADS = ("lm_head", "head_bias", "head_transform.", "pooler.", "heads.")


def frozen_layers(config: ModelConfig, trained: TrainedParameters) -> dict[str, int]:
    """By stack prefix, the number of lowest layers that the backward pass does not reach."""
    frozen, below_trained = {}, trained.has("embed_tokens", "embed_types", "embed_project", "virtual_tokens")
    for stack in sizes.stacks(config):
        inputs = (f"{stack.prefix}{part}" for part in ("embed_positions", "embed_norm", "relative_bias"))
        layers = [trained.has(f"{stack.path}{block}.") for block in stack.blocks(config)]
        reached = below_trained or trained.has(*inputs)
        frozen[stack.prefix] = 0 if reached else [*layers, True].index(True)
        below_trained = below_trained or trained.has("encoder.")  # the decoder reads the encoder's output
    return frozen


@dataclass
class Workload:
    """The documents that pass through a network, as needed to count floating-point operations.

    Attributes:
        lengths: tokens of each document.
        sources: tokens of each document's source, if there are sources.
        targets: number of tokens whose logits over the vocabulary are computed.
        labels: by classification head, the number of tokens that it reads.
    """

    lengths: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: float = 0.0
    labels: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, examples: Sequence[Example], targets: float) -> Workload:
        """The workload of these documents."""
        sources = [len(example.source) for example in examples if example.source is not None]
        return cls([example.width for example in examples], sources, targets, count_labels(examples))

    def add(self, other: Workload) -> None:
        """Add the documents of another workload."""
        self.lengths += other.lengths
        self.sources += other.sources
        self.targets += other.targets
        self.labels.update(other.labels)

    def flops(self, config: ModelConfig, trained: TrainedParameters, recompute: int = 0) -> Flops:
        """FLOPs of forward and backward passes over the documents.

        Args:
            config, trained, recompute: of :func:`training_flops`.
        """
        return training_flops(
            config,
            trained,
            sum(self.lengths),
            round(self.targets),
            self.lengths,
            self.sources,
            labels=self.labels,
            recompute=recompute,
        )


def training_flops(
    config: ModelConfig,
    trained: TrainedParameters,
    tokens: int,
    head_tokens: int | None = None,
    document_lengths: Sequence[int] | None = None,
    memory_lengths: Sequence[int] | None = None,
    *,
    labels: Mapping[str, int] | None = None,
    recompute: int = 0,
) -> Flops:
    """FLOPs of forward and backward over the tokens.

    Args:
        config: the model.
        trained: the trained parameters; all others are frozen.
        tokens, head_tokens, document_lengths, memory_lengths, labels: of :func:`sizes.forward_flops`.
        recompute: lowest layers, the encoder's first, whose forward pass runs once more (activation checkpointing).
    """
    lengths, sources = document_lengths or [tokens], memory_lengths or []
    reads = {"own": tokens + trained.soft_prompt * len(lengths), "memory": sum(sources)}
    passes = _passes(config, trained, recompute)
    encoder_trained = trained.has("encoder.", "embed_")
    linears = attention = adapters = 0
    for linear in sizes.linears(config):
        counts = [passes[layer] for layer in linear.layers]
        if "cross_attn" in linear.name and linear.reads == "memory" and not encoder_trained:
            counts = [times - (times > 1) for times in counts]  # the gradient of their input is not needed
        weight_gradients = len(counts) * (linear.weight_name in trained.own)
        linears += 2 * linear.weights * reads[linear.reads] * (sum(counts) + weight_gradients)
        adapters += 2 * trained.added_to(linear.name) * reads[linear.reads] * (sum(counts) + len(counts))
    attended = [length + trained.soft_prompt + trained.prefix for length in lengths]
    for layer, flops in sizes.attention_flops(config, attended, sources).items():
        attention += flops * (passes[layer] if passes[layer] == 1 else passes[layer] + 1)
    linears += _widening_flops(config, trained, sum(reads.values()))
    places = tokens if head_tokens is None else head_tokens
    head = sizes.head_flops(config, places, labels or {})
    return Flops(linears, attention, _head_flops(head, trained), adapters + 6 * trained.added_to("lm_head") * places)


def _passes(config: ModelConfig, trained: TrainedParameters, recompute: int) -> dict[LayerId, int]:
    """By layer, its FLOPs in multiples of its forward pass, without gradients of weights: 1 forward, 1 for the gradient
    of its input, 1 if it is recomputed."""
    frozen = frozen_layers(config, trained)
    passes = {}
    for stack in sizes.stacks(config):
        for layer in range(stack.layers):
            reached = layer >= frozen[stack.prefix]
            passes[stack.prefix, layer] = 1 + reached + (reached and layer < recompute)
        recompute = max(0, recompute - stack.layers)
    return passes


def _widening_flops(config: ModelConfig, trained: TrainedParameters, tokens: int) -> int:
    """FLOPs of embed_project, which widens factorized embeddings (ALBERT)."""
    if not config.embedding_size:
        return 0
    below = trained.has("embed_tokens", "embed_types", "embed_positions", "embed_norm")
    times = 1 + below + trained.has("embed_project.weight")
    return 2 * config.embedding_width * config.hidden_size * tokens * times


def _head_flops(forward: dict[str, int], trained: TrainedParameters) -> int:
    """FLOPs of the heads: forward, the gradient of their input if something below them is trained, and the gradients of
    their own weights."""
    below = not all(name.startswith(HEADS) for name in trained.names)
    names = {
        "vocabulary": ("lm_head.weight", "embed_tokens.weight"),
        "transform": ("head_transform.dense.weight",),
        "classification": ("heads.", "pooler."),
    }
    return sum(flops * (1 + below + trained.has(*names[part])) for part, flops in forward.items())
