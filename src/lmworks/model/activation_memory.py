"""Bytes of the activations that autograd saves for the backward pass, from a config alone.

Exact for documents of several lengths packed in one flat row, in training without dropout (a test compares), except for
a few bytes per layer that do not depend on the number of tokens. Where a sliding window hides tokens, the result is an
upper bound. Of recurrent and convolutional layers the bytes are as measured, and approximate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from lmworks.kernels.native_module import NATIVE_ACTIVATIONS
from lmworks.model.config import ModelConfig
from lmworks.model.fusion import is_fusable
from lmworks.model.sizes import LinearShape, linears, stacks

FROM_OUTPUT = ("relu", "tanh", "sigmoid")  # activations whose gradient is computed from their output
DEFAULT_ROW_TOKENS, MAX_ROW_TOKENS = 512, 4096  # from the smaller size on, matmuls reach nearly their full rate
ROW_BYTES = 400e6


def activation_bytes(
    config: ModelConfig,
    adapted: Iterable[LinearShape] | None = None,
    added: Mapping[str, int] = MappingProxyType({}),
    bytes_each: float = 4,
    part: str = "own",
    native: bool = False,
    skipped: int = 0,
) -> int:
    """Saved bytes per token and layer. Attention scores, where they are saved, are counted by :func:`score_bytes`.

    Saved are: the inputs of all norms; queries, keys and values as attention reads them; the output of attention, and a
    contiguous copy of it for the output projection; the tensors that activation and gate need; and the input of each
    matrix that is trained or whose adapter reads it.

    Args:
        config: the model.
        adapted: matrices whose input is saved, all else frozen; None: every weight is trained.
        added: elements per token that adapters save besides, by the names of their matrices.
        bytes_each: bytes of one activation.
        part: "own", a token of the stack (of the decoder); "memory", a source token in the encoder; "cross", the keys
            and values of a source token in each layer of the decoder.
        native: the native kernels are used, for whole blocks where these are fusable. They do not repeat keys and
            values for each query head, make no copies, and recompute gates.
        skipped: lowest layers of the stack that the backward pass does not reach; none of their matrices is adapted.
    """
    if config.layer != "attention":
        return round(_other_layer(config) * config.hidden_size * 4)  # in float32, whatever the precision
    stack = next(stack for stack in stacks(config) if stack.reads == ("memory" if part == "memory" else "own"))
    fused = native and not stack.cross and is_fusable(config) and config.sliding_window is None
    self_scores, cross_scores = saves_scores(config, adapted is not None)
    matrices = linears(config) if adapted is None else adapted
    names = [m.name for m in matrices if m.name.startswith(stack.path)]
    cross_names = ("cross_attn.k_proj", "cross_attn.v_proj")
    reached = len(set(stack.blocks(config)[skipped:])) or 1
    of_adapters = sum(
        size
        for name, size in added.items()
        if name.startswith(stack.path) and name.endswith(cross_names) == (part == "cross")
    )
    if fused:
        saved: float = _block(config)
    elif part == "cross":
        saved = _keys_and_values(config, native and not cross_scores)
    else:
        kernel = native and config.positions != "relative"
        saved = _norms(config, stack.cross) + _keys_and_values(config, kernel and not self_scores)
        saved += _queries(config, names, "self_attn", kernel, self_scores)
        if stack.cross:
            saved += _queries(config, names, "cross_attn", native, cross_scores)
        saved += _feedforward(config, names, native)
    return round((saved + of_adapters / reached) * bytes_each)


def _block(config: ModelConfig) -> int:
    """Elements per token that a fused block saves: inputs of its norms, inputs and output of attention, inputs of the
    activation."""
    heads, shared, size = config.num_attention_heads, config.key_value_heads, config.head_size
    sums = 2 if config.norm_position == "pre" else 3  # a post-norm block saves its input too, which no norm reads
    saved = sums * config.hidden_size + 2 * (2 if config.norm == "layer" else 1)
    saved += 2 * (heads + shared) * size + heads
    return saved + config.intermediate_size * (2 if config.gated else 1)


# Tensors of hidden_size a token that PyTorch saves for one cell and its input, as measured; gates, states, and the
# products before their sum.
CELL_TENSORS = {"rnn": 2, "gru": 8, "lstm": 18}
CONVOLUTION_TENSORS = 4  # the input with zeros between documents, the output, what max over time or dropout keep


def _other_layer(config: ModelConfig) -> int:
    """Tensors of hidden_size a token that a recurrent or convolutional layer saves; approximate."""
    if config.is_recurrent:
        return CELL_TENSORS[config.layer] + bool(config.hidden_dropout)  # whose output is another tensor
    return CONVOLUTION_TENSORS


def saves_scores(config: ModelConfig, frozen: bool) -> tuple[bool, bool]:
    """Whether self-attention and cross-attention save the attention weight of each (query, key) pair. Fused attention
    does not; it also computes relative positions as long as their biases are frozen."""
    capped = config.attention_softcap is not None
    return capped or (config.positions == "relative" and not frozen), capped


def _is_native(config: ModelConfig, native: bool, scores: bool) -> bool:
    """Whether attention is computed by the native kernel."""
    return native and not scores and config.sliding_window is None


def _norms(config: ModelConfig, cross: bool) -> int:
    norms = {"pre": 2, "post": 2, "both": 4}[config.norm_position] + cross
    return norms * (config.hidden_size + (2 if config.norm == "layer" else 1))


def _keys_and_values(config: ModelConfig, native: bool) -> int:
    heads = config.key_value_heads if _is_native(config, native, False) else config.num_attention_heads
    normed = config.key_value_heads * (config.head_size + 1) if config.qk_norm else 0
    return 2 * heads * config.head_size + normed


def _queries(config: ModelConfig, names: list[str], part: str, native: bool, scores: bool) -> int:
    """Elements per query: the query, the output of attention, and the inputs of the projections before and after it."""
    heads, width = config.num_attention_heads, config.num_attention_heads * config.head_size
    saved = width + (heads * (config.head_size + 1) if config.qk_norm else 0)
    saved += 0 if scores else width + heads  # the output, and the log-sum-exp of each softmax
    if not _is_native(config, native, scores):
        saved += width * _any(names, f"{part}.o_proj")
    own = ("q_proj", "k_proj", "v_proj") if part == "self_attn" else ("q_proj",)
    return saved + config.hidden_size * _any(names, *(f"{part}.{name}" for name in own))


def _feedforward(config: ModelConfig, names: list[str], native: bool) -> int:
    inner, down = config.intermediate_size, _any(names, "down_proj")
    saved = config.hidden_size * _any(names, "gate_proj", "up_proj")
    from_output, kernel = config.activation in FROM_OUTPUT, native and config.activation in NATIVE_ACTIVATIONS
    if config.gated:
        return saved + inner * ((2 if kernel or from_output else 3) + down)
    return saved + inner * (1 if from_output and not kernel else 1 + down)


def _any(names: list[str], *ends: str) -> bool:
    return any(name.endswith(ends) for name in names)


def score_bytes(
    config: ModelConfig,
    lengths: Sequence[int],
    memory_lengths: Sequence[int] = (),
    bytes_each: float = 4,
    frozen: bool = False,
    skipped: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Bytes saved for (query, key) pairs in all layers, in addition to :func:`activation_bytes`, for one flat row.

    With relative positions, the attention weights of each head are saved, or, if the biases are frozen, the bias that a
    causal stack adds to its scores. With a soft cap, the capped scores and the weights are saved. A causal mask, or a
    window that hides tokens, takes one more byte per pair, or one activation where no scores are saved. With such a
    window all pairs of the row are counted.

    Args:
        config: the model.
        lengths: tokens of the row's documents.
        memory_lengths: of their sources, where the model has an encoder.
        bytes_each: bytes of one activation.
        frozen: whether some parameters are frozen.
        skipped: by stack prefix, the lowest layers that the backward pass does not reach and that save nothing.
    """
    self_scores, cross_scores = saves_scores(config, frozen)
    capped = config.attention_softcap is not None
    pair_bytes = config.num_attention_heads * (2 if capped else 1) * bytes_each
    total = 0.0
    for stack in stacks(config):
        own = lengths if stack.reads == "own" else memory_lengths
        num_skipped = skipped.get(stack.prefix, 0)
        for block in stack.blocks(config)[num_skipped:]:
            window = config.window_of(block)
            hides = window is not None and max(own) > window
            pairs = sum(own) ** 2 if hides else sum(length**2 for length in own)
            if self_scores:
                total += pairs * (pair_bytes + (hides or (stack.causal and not capped)))
            elif config.positions == "relative":
                total += pairs * pair_bytes * stack.causal
            elif hides:
                total += pairs * bytes_each
        if stack.cross and cross_scores:
            pairs = sum(t * s for t, s in zip(lengths, memory_lengths, strict=True))
            total += (stack.layers - num_skipped) * pair_bytes * pairs
    return round(total)


def prefix_bytes(config: ModelConfig, tokens: int, bytes_each: float = 4, native: bool = False) -> int:
    """Bytes that a layer saves for virtual tokens of prefixes, which attention alone reads: their queries, keys and
    values, and the output of attention.

    Args:
        config: the model.
        tokens: virtual tokens of all documents of a row.
        bytes_each: bytes of one activation.
        native: as in :func:`activation_bytes`.
    """
    heads, width = config.num_attention_heads, config.num_attention_heads * config.head_size
    return round(tokens * (2 * width + heads + _keys_and_values(config, native)) * bytes_each)


def saved_activation_bytes(
    config: ModelConfig,
    lengths: Sequence[int],
    memory_lengths: Sequence[int] = (),
    adapted: Sequence[LinearShape] | None = None,
    added: Mapping[str, int] = MappingProxyType({}),
    bytes_each: float = 4,
    native: bool = False,
    skipped: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Bytes that autograd saves in all layers for one flat row, without embeddings, final norm and head.

    Arguments as of :func:`activation_bytes` and :func:`score_bytes`.
    """
    total = score_bytes(config, lengths, memory_lengths, bytes_each, adapted is not None, skipped)
    for stack in stacks(config):
        num_skipped = skipped.get(stack.prefix, 0)
        tokens = sum(lengths if stack.reads == "own" else memory_lengths)
        each = activation_bytes(config, adapted, added, bytes_each, stack.reads, native, num_skipped)
        total += (stack.layers - num_skipped) * tokens * each
        if stack.cross:
            each = activation_bytes(config, adapted, added, bytes_each, "cross", native, num_skipped)
            total += (stack.layers - num_skipped) * sum(memory_lengths) * each
    return total


def row_tokens(config: ModelConfig, precision: str) -> int:
    """Tokens of a row whose saved activations take about :data:`ROW_BYTES`. Fewer and larger rows are faster, and
    models with few activations per token, or activations of half the size, have memory for them."""
    sources = [DEFAULT_ROW_TOKENS] if config.architecture == "encoder-decoder" else []
    size = 2 if precision == "bfloat16" else 4
    each = (
        saved_activation_bytes(config, [DEFAULT_ROW_TOKENS], sources, bytes_each=size, native=True) / DEFAULT_ROW_TOKENS
    )
    return min(max(DEFAULT_ROW_TOKENS, int(ROW_BYTES / each) // 256 * 256), MAX_ROW_TOKENS)
