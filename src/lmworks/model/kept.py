"""What autograd keeps from forward to backward, from a config alone, tensor by tensor as this house's modules keep it.

Told for documents of several lengths that lie in one flat row, in training without dropout; a test compares. Beside it
stand some bytes a layer that no token adds to. Where a sliding window hides something it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmworks.kernels.library import NATIVE_ACTIVATIONS
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import Linear, linears, stacks

FROM_OUTPUT = ("relu", "tanh", "sigmoid")  # activations whose gradient follows from what they gave
SMALLEST_ROW, LARGEST_ROW = 512, 4096  # tokens: from here on matrix products run at nearly their full rate; enough
ROW_BYTES = 400e6


def activation_bytes(
    config: ModelConfig,
    adapted: Iterable[Linear] | None = None,
    rank: int = 0,
    bytes_each: float = 4,
    part: str = "own",
    native: bool = False,
) -> int:
    """Bytes a token and layer. Scores come on top where attention writes them out: :func:`score_bytes`.

    The inputs of all norms; queries, keys and values as attention sees them; its output, and that output laid out for
    the next product; what activation and gate need; and the input of each matrix that is trained or has an adapter.

    Args:
        config: the model.
        adapted: matrices with LoRA beside them, all else frozen; None: every weight is trained.
        rank: of the adapters.
        bytes_each: bytes of one activation.
        part: "own", a token of the stack (of the decoder); "memory", a source token in the encoder; "cross", a source
            token in each layer of the decoder, whose keys and values it has.
        native: the native kernels serve, whole blocks at once where these are plain: they do not repeat keys and values
            for each query head, lay nothing out again, and compute gates anew.
    """
    stack = next(one for one in stacks(config) if one.reads == ("memory" if part == "memory" else "own"))
    fused = native and not stack.cross and _is_fused(config)
    self_written, cross_written = writes_scores(config, adapted is not None)
    matrices = linears(config) if adapted is None else adapted
    names = [m.name for m in matrices if m.name.startswith(stack.path)]
    across = ("cross_attn.k_proj", "cross_attn.v_proj")
    low = sum(name.endswith(across) == (part == "cross") for name in names) / (config.num_layer_groups or stack.layers)
    if fused:
        kept: float = _block(config)
    elif part == "cross":
        kept = _keys_and_values(config, native and not cross_written)
    else:
        kernel = native and config.positions != "relative"
        kept = _norms(config, stack.cross) + _keys_and_values(config, kernel and not self_written)
        kept += _queries(config, names, "self_attn", kernel, self_written)
        if stack.cross:
            kept += _queries(config, names, "cross_attn", native, cross_written)
        kept += _feedforward(config, names, native)
    return round((kept + rank * low * (adapted is not None)) * bytes_each)


def _is_fused(config: ModelConfig) -> bool:
    """Whether blocks without cross-attention pass as one autograd function (model/fused), trained or frozen."""
    plain = config.norm_position != "both" and not config.qk_norm
    scores = config.positions != "relative" and config.attention_softcap is None and config.sliding_window is None
    return plain and scores and config.norm != "rms_offset" and config.activation in NATIVE_ACTIVATIONS


def _block(config: ModelConfig) -> int:
    """Of a fused block: what its norms read, what attention read and made, what the activation read."""
    heads, shared, size = config.num_attention_heads, config.key_value_heads, config.head_size
    sums = 2 if config.norm_position == "pre" else 3  # a post-norm block's input is the block's before it, normalised
    kept = sums * config.hidden_size + 2 * (2 if config.norm == "layer" else 1)
    kept += 2 * (heads + shared) * size + heads
    return kept + config.intermediate_size * (2 if config.gated else 1)


def writes_scores(config: ModelConfig, frozen: bool) -> tuple[bool, bool]:
    """Whether self-attention and cross-attention keep the weights of each pair; fused attention does not, and serves
    relative positions whose biases are frozen."""
    capped = config.attention_softcap is not None
    return capped or (config.positions == "relative" and not frozen), capped


def _fused(config: ModelConfig, native: bool, written: bool) -> bool:
    """Whether the native kernel computes an attention."""
    return native and not written and config.sliding_window is None


def _norms(config: ModelConfig, cross: bool) -> int:
    norms = {"pre": 2, "post": 2, "both": 4}[config.norm_position] + cross
    return norms * (config.hidden_size + (2 if config.norm == "layer" else 1))


def _keys_and_values(config: ModelConfig, native: bool) -> int:
    heads = config.key_value_heads if _fused(config, native, False) else config.num_attention_heads
    normed = config.key_value_heads * (config.head_size + 1) if config.qk_norm else 0
    return 2 * heads * config.head_size + normed


def _queries(config: ModelConfig, names: list[str], part: str, native: bool, written: bool) -> int:
    """A query, what attention made of it, and the inputs of the matrices before and after."""
    heads, wide = config.num_attention_heads, config.num_attention_heads * config.head_size
    kept = wide + (heads * (config.head_size + 1) if config.qk_norm else 0)
    kept += 0 if written else wide + heads  # the output, and the logarithm of each softmax's sum
    if not _fused(config, native, written):
        kept += wide * _any(names, f"{part}.o_proj")
    own = ("q_proj", "k_proj", "v_proj") if part == "self_attn" else ("q_proj",)
    return kept + config.hidden_size * _any(names, *(f"{part}.{name}" for name in own))


def _feedforward(config: ModelConfig, names: list[str], native: bool) -> int:
    inner, down = config.intermediate_size, _any(names, "down_proj")
    kept = config.hidden_size * _any(names, "gate_proj", "up_proj")
    from_output, kernel = config.activation in FROM_OUTPUT, native and config.activation in NATIVE_ACTIVATIONS
    if config.gated:
        return kept + inner * ((2 if kernel or from_output else 3) + down)
    return kept + inner * (1 if from_output and not kernel else 1 + down)


def _any(names: list[str], *ends: str) -> bool:
    return any(name.endswith(ends) for name in names)


def score_bytes(
    config: ModelConfig,
    lengths: Sequence[int],
    memory_lengths: Sequence[int] = (),
    bytes_each: float = 4,
    frozen: bool = False,
) -> int:
    """Bytes that autograd keeps for pairs of tokens in all layers, beside :func:`activation_bytes`, for one flat row.

    Relative positions keep the weights of each head, or where their biases are frozen what is added to the scores of
    a causal stack; capped scores keep the capped ones and the weights. A causal mask or a window that hides something
    is one more byte a pair, or one activation where nothing else is written out. Where a window hides something, pairs
    are those of the whole row.

    Args:
        config: the model.
        lengths: tokens of the row's documents.
        memory_lengths: of their sources, where the model has an encoder.
        bytes_each: bytes of one activation.
        frozen: only adapters are trained.
    """
    self_written, cross_written = writes_scores(config, frozen)
    capped = config.attention_softcap is not None
    a_pair = config.num_attention_heads * (2 if capped else 1) * bytes_each
    total = 0.0
    for stack in stacks(config):
        own = lengths if stack.reads == "own" else memory_lengths
        for block in stack.blocks(config):
            window = config.window_of(block)
            hides = window is not None and max(own) > window
            pairs = sum(own) ** 2 if hides else sum(length**2 for length in own)
            if self_written:
                total += pairs * (a_pair + (hides or (stack.causal and not capped)))
            elif config.positions == "relative":
                total += pairs * a_pair * stack.causal
            elif hides:
                total += pairs * bytes_each
        if stack.cross and cross_written:
            total += stack.layers * a_pair * sum(t * s for t, s in zip(lengths, memory_lengths, strict=True))
    return round(total)


def kept_bytes(
    config: ModelConfig,
    lengths: Sequence[int],
    memory_lengths: Sequence[int] = (),
    adapted: Sequence[Linear] | None = None,
    rank: int = 0,
    bytes_each: float = 4,
    native: bool = False,
) -> int:
    """Bytes that autograd keeps in all layers for one flat row; embeddings, last norm and head are not among them.

    Arguments as of :func:`activation_bytes` and :func:`score_bytes`.
    """
    total = score_bytes(config, lengths, memory_lengths, bytes_each, adapted is not None)
    for stack in stacks(config):
        tokens = sum(lengths if stack.reads == "own" else memory_lengths)
        total += stack.layers * tokens * activation_bytes(config, adapted, rank, bytes_each, stack.reads, native)
        if stack.cross:
            across = activation_bytes(config, adapted, rank, bytes_each, "cross", native)
            total += stack.layers * sum(memory_lengths) * across
    return total


def row_tokens(config: ModelConfig) -> int:
    """Tokens of a row whose activations take some :data:`ROW_BYTES`: matrix products gain a little by larger rows, and
    where a token keeps little there is room for them."""
    sources = [SMALLEST_ROW] if config.architecture == "encoder-decoder" else []
    each = kept_bytes(config, [SMALLEST_ROW], sources, native=True) / SMALLEST_ROW
    return min(max(SMALLEST_ROW, int(ROW_BYTES / each) // 256 * 256), LARGEST_ROW)
