"""Parameters, FLOPs and bytes of a model, from its config alone: nothing is built and torch is not imported.

Counts of parameters, FLOPs of matrix products, keys and values are exact. Element-wise operations (norms, activations,
rotations, softmax) are not counted: memory bandwidth limits them, not arithmetic. Saved activations are counted in
model/activation_memory.

Sources: 2 FLOPs per weight and token forward, 4 backward (Kaplan et al. 2020, section 2.1); a frozen weight needs only
the gradient of its input (2 of the 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmworks.model.config import ModelConfig

LayerId = tuple[str, int]  # prefix of the stack, number of the layer


@dataclass(frozen=True)
class LinearShape:
    """One matrix of one block.

    Attributes:
        name: dotted name in the model, as ``named_modules`` gives it.
        inputs, outputs: its shape.
        bias: whether it has a bias.
        reads: which tokens pass through it: "own" (the stack's) or "memory" (the source tokens of an encoder-decoder).
        layers: the layers that use this block.
        weight: name of the matrix in its module.
    """

    name: str
    inputs: int
    outputs: int
    bias: bool
    reads: str = "own"
    layers: tuple[LayerId, ...] = ()
    weight: str = "weight"

    @property
    def weight_name(self) -> str:
        """Name of the parameter, as ``named_parameters`` gives it."""
        return f"{self.name}.{self.weight}"

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        return self.inputs * self.outputs

    @property
    def times(self) -> int:
        """How often each token passes through it."""
        return len(self.layers)

    @property
    def parameters(self) -> int:
        """Weights and bias."""
        return self.weights + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class StackShape:
    """A stack of layers: the model's own, or the encoder of an encoder-decoder.

    Attributes:
        prefix: of its parameters' names.
        layers: number of layers.
        reads: which tokens pass through it, as in :class:`LinearShape`.
        causal: whether tokens attend only to earlier ones.
        cross: whether it has cross-attention to the encoder's output.
    """

    prefix: str
    layers: int
    reads: str
    causal: bool
    cross: bool = False

    @property
    def path(self) -> str:
        """Prefix of its blocks' names."""
        return f"{self.prefix}layers."

    def blocks(self, config: ModelConfig) -> list[int]:
        """The block of each layer; fewer blocks than layers where layers share them."""
        groups = config.num_layer_groups or self.layers
        return [layer * groups // self.layers for layer in range(self.layers)]


def stacks(config: ModelConfig) -> list[StackShape]:
    """The encoder of an encoder-decoder, if it is one, and the model's own stack."""
    layers = config.num_hidden_layers
    if config.architecture != "encoder-decoder":
        return [StackShape("", layers, "own", config.architecture == "decoder")]
    return [
        StackShape("encoder.", layers, "memory", causal=False),
        StackShape("", config.num_decoder_layers or layers, "own", causal=True, cross=True),
    ]


def linears(config: ModelConfig) -> list[LinearShape]:
    """Every matrix of the blocks, by its name in the model; embeddings and heads are not among them."""
    matrices = []
    for stack in stacks(config):
        blocks = stack.blocks(config)
        for block in range(config.num_layer_groups or stack.layers):
            layers = tuple((stack.prefix, layer) for layer, own in enumerate(blocks) if own == block)
            matrices += _block(config, f"{stack.path}{block}", stack, layers)
    return matrices


def _block(config: ModelConfig, name: str, stack: StackShape, layers: tuple[LayerId, ...]) -> list[LinearShape]:
    if config.layer != "attention":
        return _other_layer(config, name, layers)
    hidden, inner, reads = config.hidden_size, config.intermediate_size, stack.reads
    queries, keys = config.num_attention_heads * config.head_size, config.key_value_heads * config.head_size
    matrices = []
    for part, source in [("self_attn", reads)] + ([("cross_attn", "memory")] if stack.cross else []):
        matrices += [
            LinearShape(f"{name}.{part}.q_proj", hidden, queries, config.qkv_bias, reads, layers),
            LinearShape(f"{name}.{part}.k_proj", hidden, keys, config.qkv_bias, source, layers),
            LinearShape(f"{name}.{part}.v_proj", hidden, keys, config.qkv_bias, source, layers),
            LinearShape(f"{name}.{part}.o_proj", queries, hidden, config.output_bias, reads, layers),
        ]
    ups = ["gate_proj", "up_proj"] if config.gated else ["up_proj"]
    matrices += [LinearShape(f"{name}.mlp.{up}", hidden, inner, config.mlp_bias, reads, layers) for up in ups]
    return [*matrices, LinearShape(f"{name}.mlp.down_proj", inner, hidden, config.mlp_bias, reads, layers)]


GATES = {"rnn": 1, "gru": 3, "lstm": 4}  # matrices of one width that a recurrent cell's weights hold


def _other_layer(config: ModelConfig, name: str, layers: tuple[LayerId, ...]) -> list[LinearShape]:
    """The matrices of a recurrent layer, of its input and of its state, or of a convolutional layer, one a group."""
    hidden = config.hidden_size
    if config.is_recurrent:
        outputs, parts = GATES[config.layer] * hidden, ("ih", "hh")
        return [
            LinearShape(f"{name}.cell", hidden, outputs, True, layers=layers, weight=f"weight_{part}_l0")
            for part in parts
        ]
    filters = hidden // len(config.kernel_sizes)
    return [
        LinearShape(f"{name}.convolutions.{index}", hidden * size, filters, True, layers=layers)
        for index, size in enumerate(config.kernel_sizes)
    ]


def parameters(config: ModelConfig) -> dict[str, int]:
    """Number of parameters by part, and their ``total``; tied and shared parameters count once. Exact.

    Parts: embed_tokens, embed_types, embed_positions (learned positions and relative-position biases, of each stack),
    embed_project, attention, feedforward, recurrent, convolution, norms, lm_head (with its bias and what comes before
    it), pooler, heads (for classification).
    """
    hidden, width = config.hidden_size, config.embedding_width
    matrices = linears(config)
    parts = {
        "embed_tokens": config.vocab_size * width,
        "embed_types": config.type_vocab_size * width,
        "embed_positions": len(stacks(config)) * _positions(config),
        "embed_project": (width + 1) * hidden if config.embedding_size else 0,
        "attention": sum(m.parameters for m in matrices if "_attn." in m.name),
        "feedforward": sum(m.parameters for m in matrices if ".mlp." in m.name),
        "recurrent": sum(m.parameters for m in matrices if m.name.endswith(".cell")),
        "convolution": sum(m.parameters for m in matrices if ".convolutions." in m.name),
        "norms": _norms(config),
        "lm_head": _head(config),
        "pooler": config.pooler * hidden * (hidden + 1),
        "heads": sum(
            head.size * (hidden + head.bias) + (head.dense is not None) * hidden * (hidden + 1) for head in config.heads
        ),
    }
    return {**parts, "total": sum(parts.values())}


def _positions(config: ModelConfig) -> int:
    if config.positions == "learned":
        return (config.max_position_embeddings + config.position_offset) * config.embedding_width
    return config.relative_buckets * config.num_attention_heads if config.positions == "relative" else 0


def _head(config: ModelConfig) -> int:
    if not config.language_head:
        return 0
    matrix = 0 if config.tie_word_embeddings else config.vocab_size * config.embedding_width
    before = (config.hidden_size + 1) * config.embedding_width if config.head_transform else 0
    return matrix + before + (config.vocab_size if config.head_bias else 0)


def _norms(config: ModelConfig) -> int:
    elements = config.embedding_width if config.language_head and config.head_transform else 0
    if config.layer != "attention":
        elements += config.embedding_width if config.embedding_norm else 0
        return elements * (2 if config.norm == "layer" else 1)
    for stack in stacks(config):
        blocks = config.num_layer_groups or stack.layers
        each = {"pre": 2, "post": 2, "both": 4}[config.norm_position] + stack.cross
        final = config.norm_position != "post"  # a post-norm stack ends normalised already
        elements += (blocks * each + final) * config.hidden_size
        elements += config.embedding_width if config.embedding_norm else 0
        elements += 2 * blocks * (1 + stack.cross) * config.head_size if config.qk_norm else 0
    return elements * (2 if config.norm == "layer" else 1)  # weight and bias, or weight alone


def visible_pairs(lengths: Iterable[int], window: int | None = None, causal: bool = True) -> int:
    """Number of (query, key) pairs that attention computes. Exact.

    Args:
        lengths: tokens of each document.
        window: keys that a query attends to, its own included; None: all.
        causal: False: every query attends to every key.
    """
    total = 0
    for length in lengths:
        reach = length if window is None else min(window, length)
        back = reach * (reach + 1) // 2 + (length - reach) * reach  # keys not later than their query
        total += back if causal else 2 * back - length
    return total


@dataclass(frozen=True)
class Flops:
    """Floating-point operations by part of the model; those of embed_project are part of ``linears``."""

    linears: int
    attention: int
    head: int
    adapters: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.linears + self.attention + self.head + self.adapters

    def times(self, count: float) -> Flops:
        """``count`` times these FLOPs."""
        return Flops(*(round(count * flops) for flops in (self.linears, self.attention, self.head, self.adapters)))


def forward_flops(
    config: ModelConfig,
    tokens: int,
    head_tokens: int | None = None,
    document_lengths: Sequence[int] | None = None,
    memory_lengths: Sequence[int] | None = None,
    labels: Mapping[str, int] | None = None,
) -> Flops:
    """FLOPs of one pass without gradients. Exact for the matrix products.

    Args:
        config: the model.
        tokens: tokens that pass through the stack (through the decoder of an encoder-decoder).
        head_tokens: tokens whose logits are computed; None: all.
        document_lengths: lengths of the documents, summing to tokens; None: one document. Tokens of different
            documents do not attend to each other, and such pairs cost nothing.
        memory_lengths: for an encoder-decoder: the source lengths, one a document.
        labels: number of tokens that each classification head reads, by its name; None: none.
    """
    lengths = [tokens] if document_lengths is None else [int(n) for n in document_lengths]
    if sum(lengths) != tokens:
        raise ValueError(f"document_lengths sum to {sum(lengths)}, not to tokens {tokens}")
    source = [int(n) for n in memory_lengths or []]
    if config.architecture == "encoder-decoder" and len(source) != len(lengths):
        raise ValueError(f"memory_lengths has {len(source)} sources for {len(lengths)} documents")
    reads = {"own": tokens, "memory": sum(source)}
    matrices = sum(2 * m.weights * m.times * reads[m.reads] for m in linears(config))
    if config.embedding_size:
        matrices += 2 * config.embedding_width * config.hidden_size * sum(reads.values())
    attention = sum(attention_flops(config, lengths, source).values())
    places = tokens if head_tokens is None else head_tokens
    return Flops(matrices, attention, sum(head_flops(config, places, labels or {}).values()))


def attention_flops(config: ModelConfig, lengths: Sequence[int], sources: Sequence[int]) -> dict[LayerId, int]:
    """FLOPs of attention scores and weighted sums of values in one forward pass, by layer. Exact.

    Args:
        config: the model.
        lengths: tokens of each document (of the decoder, in an encoder-decoder).
        sources: tokens of each document's source, in an encoder-decoder.
    """
    each = (
        4 * config.num_attention_heads * config.head_size * (config.layer == "attention")
    )  # 2 FLOPs an element for the score, 2 for the sum
    flops = {}
    for stack in stacks(config):
        own = lengths if stack.reads == "own" else sources
        across = sum(t * s for t, s in zip(lengths, sources, strict=True)) if stack.cross else 0
        for layer, block in enumerate(stack.blocks(config)):
            pairs = visible_pairs(own, config.window_of(block), stack.causal) + across
            flops[stack.prefix, layer] = each * pairs
    return flops


def head_flops(config: ModelConfig, places: int, labels: Mapping[str, int]) -> dict[str, int]:
    """FLOPs of the heads in one forward pass, by matrix. Exact.

    Args:
        config: the model.
        places: number of tokens whose logits over the vocabulary are computed.
        labels: number of tokens that each classification head reads, by its name.

    Returns:
        ``vocabulary``: of the lm_head; ``transform``: of the linear before it; ``classification``: of the other heads.
    """
    classification = 0
    for head in config.heads:
        before = config.hidden_size * ((head.kind == "pooled") + (head.dense is not None))
        classification += labels.get(head.name, 0) * 2 * config.hidden_size * (before + head.size)
    each = places * 2 * config.embedding_width if config.language_head else 0
    return {
        "vocabulary": each * config.vocab_size,
        "transform": each * config.hidden_size if config.head_transform else 0,
        "classification": classification,
    }


def key_value_bytes(config: ModelConfig, tokens: int, bytes_each: float = 4, memory_tokens: int = 0) -> int:
    """Bytes of a KV cache of all layers for ``tokens`` tokens, and, in an encoder-decoder, for ``memory_tokens`` source
    tokens. Exact. 0 where layers have no attention: the state of a recurrent layer does not grow."""
    if config.layer != "attention":
        return 0
    layers = config.num_decoder_layers or config.num_hidden_layers
    return round(2 * layers * config.key_value_heads * config.head_size * (tokens + memory_tokens) * bytes_each)
