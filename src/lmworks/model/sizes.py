"""Parameters, FLOPs and bytes of a model, from its config alone: nothing is built and torch is not imported.

Counts are exact where arithmetic can be exact (parameters, FLOPs of matrix products, keys and values) and
estimates where they depend on what autograd keeps (activations); the docstrings say which. Element-wise work
(norms, activations, rotations, softmax) is not counted as FLOPs: it is bound by memory, not by arithmetic.

Sources: 2 FLOPs a weight and token forward, 4 backward (Kaplan et al. 2020, section 2.1); a frozen weight needs
only the gradient of its input (2 of the 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lmworks.model.config import ModelConfig


@dataclass(frozen=True)
class Linear:
    """One matrix of one layer.

    Attributes:
        name: dotted name in the model, as ``named_modules`` gives it.
        inputs, outputs: its shape.
        bias: whether it has one.
        reads: whose tokens pass through it: "own" (the stack's) or "memory" (the encoder's of an encoder-decoder).
    """

    name: str
    inputs: int
    outputs: int
    bias: bool
    reads: str = "own"

    @property
    def weights(self) -> int:
        """Weights, the bias left out."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Weights and bias."""
        return self.weights + (self.outputs if self.bias else 0)


def linears(config: ModelConfig) -> list[Linear]:
    """Every matrix of the stacks, by its name in the model; embeddings and head are not among them."""
    if config.architecture != "encoder-decoder":
        return [m for n in range(config.num_hidden_layers) for m in _layer(config, f"layers.{n}", "own")]
    encoder = (f"encoder.layers.{n}" for n in range(config.num_hidden_layers))
    decoder = (f"layers.{n}" for n in range(config.num_decoder_layers or config.num_hidden_layers))
    return [
        *(m for name in encoder for m in _layer(config, name, "memory")),
        *(m for name in decoder for m in _layer(config, name, "own", cross=True)),
    ]


def _layer(config: ModelConfig, layer: str, reads: str, cross: bool = False) -> list[Linear]:
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_size, config.key_value_heads * config.head_size
    found = []
    for block, read in [("self_attn", reads)] + ([("cross_attn", "memory")] if cross else []):
        found += [
            Linear(f"{layer}.{block}.q_proj", hidden, queries, config.qkv_bias, reads),
            Linear(f"{layer}.{block}.k_proj", hidden, keys, config.qkv_bias, read),
            Linear(f"{layer}.{block}.v_proj", hidden, keys, config.qkv_bias, read),
            Linear(f"{layer}.{block}.o_proj", queries, hidden, config.output_bias, reads),
        ]
    ups = ["gate_proj", "up_proj"] if config.gated else ["up_proj"]
    found += [Linear(f"{layer}.mlp.{name}", hidden, inner, config.mlp_bias, reads) for name in ups]
    return [*found, Linear(f"{layer}.mlp.down_proj", inner, hidden, config.mlp_bias, reads)]


def parameters(config: ModelConfig) -> dict[str, int]:
    """Number of parameters by part, and under ``total`` all of them; a tied head counts as 0. Exact."""
    hidden = config.hidden_size
    matrices = linears(config)
    positions = config.max_position_embeddings * hidden if config.positions == "learned" else 0
    parts = {
        "embed_tokens": config.vocab_size * hidden,
        "embed_positions": positions,
        "attention": sum(m.parameters for m in matrices if "_attn." in m.name),
        "feedforward": sum(m.parameters for m in matrices if ".mlp." in m.name),
        "norms": _norms(config),
        "lm_head": 0 if config.tie_word_embeddings else config.vocab_size * hidden,
    }
    return {**parts, "total": sum(parts.values())}


def _norms(config: ModelConfig) -> int:
    each = 2 if config.norm == "layer" else 1  # weight and bias, or weight alone
    final = 1 if config.norm_position == "pre" else 0  # a post-norm stack ends normalised already
    norms, attentions = 2 * config.num_hidden_layers + final, config.num_hidden_layers
    if config.architecture == "encoder-decoder":
        layers = config.num_decoder_layers or config.num_hidden_layers
        norms, attentions = norms + 3 * layers + final, attentions + 2 * layers
    heads = 2 * attentions * config.head_size if config.qk_norm else 0
    return each * (norms * config.hidden_size + heads)


def lora_parameters(adapted: Iterable[Linear], rank: int) -> int:
    """Parameters of the two low-rank factors beside each of these matrices. Exact."""
    return sum(rank * (m.inputs + m.outputs) for m in adapted)


def visible_pairs(lengths: Iterable[int], window: int | None = None, causal: bool = True) -> int:
    """(query, key) pairs that may see each other, documents packed or not. Exact.

    Args:
        lengths: tokens of each document.
        window: tokens that a place looks back, itself included; None: all.
        causal: False where every place sees every other.
    """
    total = 0
    for length in lengths:
        reach = length if window is None else min(window, length)
        back = reach * (reach + 1) // 2 + (length - reach) * reach  # keys not later than their query
        total += back if causal else 2 * back - length
    return total


@dataclass(frozen=True)
class Flops:
    """Floating-point operations by what they are spent on."""

    linears: int
    attention: int
    head: int
    adapters: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.linears + self.attention + self.head + self.adapters

    def times(self, linears: float, attention: float, head: float, adapters: float = 1) -> Flops:
        """Each part multiplied by its own factor."""
        return Flops(
            round(self.linears * linears),
            round(self.attention * attention),
            round(self.head * head),
            round(self.adapters * adapters),
        )


def forward_flops(
    config: ModelConfig,
    tokens: int,
    head_tokens: int | None = None,
    document_lengths: Sequence[int] | None = None,
    memory_lengths: Sequence[int] | None = None,
) -> Flops:
    """FLOPs of one pass without gradients. Exact for the matrix products.

    Args:
        config: the model.
        tokens: tokens that pass through the stack (through the decoder of an encoder-decoder).
        head_tokens: places at which logits are made; None: all.
        document_lengths: lengths of the documents, summing to tokens; None: one document. Tokens of different
            documents do not see each other, and pairs that cannot see each other cost nothing.
        memory_lengths: for an encoder-decoder: the source lengths, one a document.
    """
    lengths = [tokens] if document_lengths is None else [int(n) for n in document_lengths]
    if sum(lengths) != tokens:
        raise ValueError(f"document_lengths sum to {sum(lengths)}, not to tokens {tokens}")
    source = [int(n) for n in memory_lengths or []]
    reads = {"own": tokens, "memory": sum(source)}
    matrices = sum(2 * m.weights * reads[m.reads] for m in linears(config))
    pairs = 0
    causal = config.architecture != "encoder"
    if config.architecture == "encoder-decoder":
        pairs += sum(t * s for t, s in zip(lengths, source, strict=True)) * (config.num_decoder_layers or 0)
        pairs += sum(visible_pairs(source, config.window_of(n), False) for n in range(config.num_hidden_layers))
        pairs += sum(visible_pairs(lengths, config.window_of(n)) for n in range(config.num_decoder_layers or 0))
    else:
        pairs += sum(visible_pairs(lengths, config.window_of(n), causal) for n in range(config.num_hidden_layers))
    wide = 4 * config.num_attention_heads * config.head_size  # a score and its share of the mix: 2 FLOPs each
    places = tokens if head_tokens is None else head_tokens
    return Flops(matrices, wide * pairs, 2 * config.vocab_size * config.hidden_size * places)


def training_flops(
    config: ModelConfig,
    tokens: int,
    head_tokens: int | None = None,
    document_lengths: Sequence[int] | None = None,
    *,
    adapter_parameters: int | None = None,
    recompute: bool = False,
) -> Flops:
    """FLOPs of forward and backward over the tokens; one decoder or encoder stack.

    With every weight trained: 6 a weight and token. With adapters (``adapter_parameters`` of them) beside frozen
    weights: 4 a frozen weight, namely forward and the gradient of its input, and 6 an adapter's. Attention has no
    weights: three times its forward. recompute: the stack's forward runs once more.
    """
    once = forward_flops(config, tokens, head_tokens, document_lengths)
    again = 1 if recompute else 0
    if adapter_parameters is None:
        return once.times(3 + again, 3 + again, 3)
    beside = Flops(once.linears, once.attention, once.head, 2 * adapter_parameters * tokens)
    return beside.times(2 + again, 3 + again, 2, 3 + again)


def key_value_bytes(config: ModelConfig, tokens: int, bytes_each: float = 4) -> int:
    """Bytes of the cached keys and values of so many tokens in every layer (self-attention). Exact."""
    layers = config.num_decoder_layers or config.num_hidden_layers
    return round(2 * layers * config.key_value_heads * config.head_size * tokens * bytes_each)


def activation_bytes(
    config: ModelConfig,
    adapted: Iterable[Linear] | None = None,
    rank: int = 0,
    bytes_each: float = 4,
) -> int:
    """Bytes a token and layer that autograd keeps from forward to backward, in training one stack without dropout.

    Counted tensor by tensor as this house's modules keep them (a test compares): the inputs of both norms; queries,
    keys and values as attention sees them, keys and values once a query head; its output, and that output laid out for
    the next product; what activation and gate need; and the input of each matrix that is trained or has an adapter.

    Args:
        config: the model.
        adapted: matrices with LoRA beside them, all else frozen; None: every weight is trained.
        rank: of the adapters.
        bytes_each: bytes of one activation.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, size = config.num_attention_heads, config.head_size
    layers = config.num_hidden_layers
    kept = 2 * hidden + 2 * (2 if config.norm == "layer" else 1) + 5 * heads * size + heads
    kept += 3 * inner if config.gated else inner
    if config.qk_norm:
        kept += (heads + config.key_value_heads) * (size + 1)
    if adapted is None:
        return round((kept + 2 * hidden + inner) * bytes_each)
    names = [matrix.name for matrix in adapted]
    low = rank * len(names) / layers
    attention = any(name.endswith(("q_proj", "k_proj", "v_proj")) for name in names)
    feedforward = any(name.endswith(("gate_proj", "up_proj")) for name in names)
    down = any(name.endswith("down_proj") for name in names)
    if not any(name.endswith("o_proj") for name in names):
        kept -= heads * size
    return round((kept + low + hidden * (attention + feedforward) + inner * down) * bytes_each)
