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
from fnmatch import fnmatchcase

from lmworks.model.config import ModelConfig

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Linear:
    """One matrix of every layer of a stack.

    Attributes:
        name: dotted name inside the layer, as the model's modules call it.
        inputs, outputs: its shape.
        layers: how many layers have it.
        bias: whether it has one.
        stack: "layers" for the one stack there usually is; "decoder" for the second one of an encoder-decoder.
        side: "own" where it reads the stack's own tokens, "memory" where it reads the encoder's.
    """

    name: str
    inputs: int
    outputs: int
    layers: int
    bias: bool
    stack: str = "layers"
    side: str = "own"

    @property
    def weights(self) -> int:
        """Weights in all layers together, biases left out."""
        return self.inputs * self.outputs * self.layers

    @property
    def parameters(self) -> int:
        """Weights and biases in all layers together."""
        return self.weights + (self.outputs * self.layers if self.bias else 0)


def linears(config: ModelConfig) -> list[Linear]:
    """Every matrix of the stacks; embeddings and head are not among them."""
    found = _stack(config, config.num_hidden_layers, "layers", cross=False)
    if config.architecture == "encoder-decoder":
        found += _stack(config, config.num_decoder_layers or 0, "decoder", cross=True)
    return found


def _stack(config: ModelConfig, layers: int, stack: str, cross: bool) -> list[Linear]:
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_size, config.key_value_heads * config.head_size
    found = []
    for block, side in [("self_attn", "own")] + ([("cross_attn", "memory")] if cross else []):
        found += [
            Linear(f"{block}.q_proj", hidden, queries, layers, config.qkv_bias, stack),
            Linear(f"{block}.k_proj", hidden, keys, layers, config.qkv_bias, stack, side),
            Linear(f"{block}.v_proj", hidden, keys, layers, config.qkv_bias, stack, side),
            Linear(f"{block}.o_proj", queries, hidden, layers, config.output_bias, stack),
        ]
    for name in ["gate_proj", "up_proj"] if config.gated else ["up_proj"]:
        found.append(Linear(f"mlp.{name}", hidden, inner, layers, config.mlp_bias, stack))
    return [*found, Linear("mlp.down_proj", inner, hidden, layers, config.mlp_bias, stack)]


def parameters(config: ModelConfig) -> dict[str, int]:
    """Number of parameters by part, and under ``total`` all of them; a tied head counts as 0. Exact."""
    hidden = config.hidden_size
    matrices = linears(config)
    positions = config.max_position_embeddings * hidden if config.positions == "learned" else 0
    parts = {
        "embed_tokens": config.vocab_size * hidden,
        "embed_positions": positions,
        "attention": sum(m.parameters for m in matrices if "attn" in m.name),
        "feedforward": sum(m.parameters for m in matrices if m.name.startswith("mlp.")),
        "norms": _norms(config),
        "lm_head": 0 if config.tie_word_embeddings else config.vocab_size * hidden,
    }
    return {**parts, "total": sum(parts.values())}


def _norms(config: ModelConfig) -> int:
    each = 2 if config.norm == "layer" else 1  # weight and bias, or weight alone
    layers = 2 * config.num_hidden_layers
    attentions = config.num_hidden_layers
    final = 1
    if config.architecture == "encoder-decoder":
        layers += 3 * (config.num_decoder_layers or 0)
        attentions += 2 * (config.num_decoder_layers or 0)
        final = 2
    count = each * config.hidden_size * (layers + final)
    return count + (2 * each * config.head_size * attentions if config.qk_norm else 0)


def targeted(config: ModelConfig, targets: str | Iterable[str]) -> list[Linear]:
    """The matrices that LoRA targets name: ``all-linear``, last names (``q_proj``) or patterns (``*.mlp.*``)."""
    if targets == "all-linear":
        return linears(config)
    wanted = [targets] if isinstance(targets, str) else list(targets)
    return [m for m in linears(config) if any(_matches(m, pattern) for pattern in wanted)]


def _matches(matrix: Linear, pattern: str) -> bool:
    full = f"layers.0.{matrix.name}"
    return matrix.name.rsplit(".", 1)[-1] == pattern or any(fnmatchcase(n, pattern) for n in (matrix.name, full))


def lora_parameters(config: ModelConfig, rank: int, targets: str | Iterable[str] = ATTENTION_TARGETS) -> int:
    """Parameters of the two low-rank factors beside every target. Exact."""
    return sum(rank * (m.inputs + m.outputs) * m.layers for m in targeted(config, targets))


def visible_pairs(lengths: Iterable[int], window: int | None = None, causal: bool = True) -> int:
    """(query, key) pairs that may see each other, documents packed or not. Exact.

    Args:
        lengths: tokens of each document.
        window: tokens that a place looks back, itself included; None: all.
        causal: False where every place sees every other.
    """
    total = 0
    for length in lengths:
        if not causal:
            total += length * length
        elif window is None or window >= length:
            total += length * (length + 1) // 2
        else:
            total += window * (window + 1) // 2 + (length - window) * window
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
    wide = 4 * config.num_attention_heads * config.head_size  # scores and mix: 2 FLOPs each
    both = config.architecture == "encoder-decoder"
    if both and memory_lengths is None:
        raise ValueError("an encoder-decoder needs memory_lengths")
    source = [int(n) for n in memory_lengths or []]
    own = {"layers": sum(source) if both else tokens, "decoder": tokens}
    matrix = sum(2 * m.weights * (sum(source) if m.side == "memory" else own[m.stack]) for m in linears(config))
    if both:
        pairs = config.num_hidden_layers * visible_pairs(source, causal=False)
        cross = sum(t * s for t, s in zip(lengths, source, strict=True))
        pairs += (config.num_decoder_layers or 0) * (visible_pairs(lengths) + cross)
    else:
        causal = config.architecture == "decoder"
        layers = range(config.num_hidden_layers)
        pairs = sum(visible_pairs(lengths, config.window_of(layer), causal) for layer in layers)
    heads = tokens if head_tokens is None else head_tokens
    return Flops(matrix, wide * pairs, 2 * config.vocab_size * config.hidden_size * heads)


def training_flops(
    config: ModelConfig,
    tokens: int,
    head_tokens: int | None = None,
    document_lengths: Sequence[int] | None = None,
    *,
    method: str = "full",
    rank: int = 0,
    targets: str | Iterable[str] = ATTENTION_TARGETS,
    recompute: bool = False,
) -> Flops:
    """FLOPs of forward and backward over the tokens; one decoder or encoder stack.

    full: 6 a weight and token. lora: 4 a frozen weight (forward, and the gradient of its input) and 6 an adapter's.
    Attention has no weights: three times its forward. recompute: the stack's forward runs once more.
    """
    once = forward_flops(config, tokens, head_tokens, document_lengths)
    again = 1 if recompute else 0
    if method == "full":
        return once.times(3 + again, 3 + again, 3)
    adapters = 2 * lora_parameters(config, rank, targets) * tokens
    with_adapters = Flops(once.linears, once.attention, once.head, adapters)
    return with_adapters.times(2 + again, 3 + again, 2, 3 + again)


def key_value_bytes(config: ModelConfig, tokens: int, bytes_each: float = 4) -> int:
    """Bytes of the cached keys and values of so many tokens in every layer (self-attention). Exact."""
    layers = config.num_decoder_layers or config.num_hidden_layers
    return round(2 * layers * config.key_value_heads * config.head_size * tokens * bytes_each)
