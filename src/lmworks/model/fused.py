"""A block's way forward and back as one autograd function, where the native kernels serve.

The same arithmetic as transformer.Block, in the same order and with the same random draws (a test compares): the block
there is the definition, this is how it is trained fast. Autograd then has one node a block in place of some thirty,
which on small models takes longer than their arithmetic; the norms' outputs and the activation are computed again on
the way back instead of kept; and where weights are frozen nothing is kept for them.

    pre-norm:  x1 = x + drop(attend(norm1(x)));  y = x1 + drop(feed(norm2(x1)))
    post-norm: x1 = norm1(x + drop(attend(x)));  y = norm2(x1 + drop(feed(x1)))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lmworks.kernels.dispatch import compute_dtype, to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.library import NATIVE_ACTIVATIONS, library
from lmworks.model import products
from lmworks.model.attention import Attention, Rotation
from lmworks.model.feedforward import FeedForward
from lmworks.model.masks import Sight
from lmworks.model.norm import LayerNorm, RMSNorm
from lmworks.model.products import TENSORS, Beside, Found, Line

Maybe = torch.Tensor | None
NORMS = 4  # tensors of both norms
Q, K, V, OUT, GATE, UP, DOWN = range(7)  # the linears, in the order of their tensors


class How(NamedTuple):
    """What a block does beside its products; rates are 0 where nothing is dropped."""

    before: bool
    layer: bool
    eps: float
    size: int
    scale: float
    causal: bool
    kind: int
    rates: tuple[float, float, float]  # of attention's weights, of the residuals, inside the feed-forward
    beside: tuple[Beside, ...]  # of each linear
    width: torch.dtype  # of activations


def can_run(
    x: torch.Tensor, attention: Attention, mlp: FeedForward, norms: tuple[nn.Module, nn.Module], sight: Sight
) -> bool:
    """Whether these modules, as they stand now, are plain ones that the fused block computes."""
    return (
        torch.is_grad_enabled()
        and compute_dtype(x) is not None
        and sight.aligned
        and sight.within(attention.window)
        and attention.q_norm is None
        and attention.how.softcap is None
        and mlp.activation in NATIVE_ACTIVATIONS
        and all(map(products.can_pass, _linears(attention, mlp)))
        and type(norms[0]) in (LayerNorm, RMSNorm)
        and all(not one._forward_hooks and not one._forward_pre_hooks for one in (attention, mlp))
    )


def run(
    x: torch.Tensor,
    attention: Attention,
    mlp: FeedForward,
    norms: tuple[nn.Module, nn.Module],
    sight: Sight,
    rotation: Rotation,
    before: bool,
    dropout: float,
    training: bool,
) -> torch.Tensor:
    """(B, T, E) -> (B, T, E). Arguments as the block has them; ``before``: norms stand before the parts."""
    rates = (attention.how.dropout, dropout, mlp.dropout) if training else (0.0, 0.0, 0.0)
    layer, eps = isinstance(norms[0], LayerNorm), float(norms[0].eps)  # type: ignore[arg-type]
    scale = attention.how.scale or attention.size**-0.5
    tensors: list[Maybe] = []
    beside = []
    for norm in norms:
        tensors += [norm.weight, getattr(norm, "bias", None)]  # type: ignore[list-item]
    for module in _linears(attention, mlp):
        own, numbers = products.tensors_of(module)
        tensors += own
        beside.append(numbers)
    wide = compute_dtype(x)
    assert wide is not None
    form = (attention.size, scale, sight.causal, NATIVE_ACTIVATIONS[mlp.activation])
    how = How(before, layer, eps, *form, rates, tuple(beside), wide)
    turns = None if rotation.own is None else tuple(_table(part, x) for part in rotation.own)
    return _Block.apply(x.to(wide), how, sight.borders(), turns, *tensors)


def _linears(attention: Attention, mlp: FeedForward) -> tuple[nn.Module | None, ...]:
    own = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return (*own, mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _table(part: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Cosines or sines (B or 1, T, 1, R/2) -> (B * T, R/2)."""
    return part.float().expand(len(x), -1, -1, -1).reshape(-1, part.shape[-1])


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: How, borders: Any, turns: Any, *tensors: Maybe) -> torch.Tensor:
        seeds: list[int] = []
        ctx.how, ctx.turns = how, turns
        with torch.autocast("cpu", enabled=False):
            y, kept = _forward(how, x.reshape(-1, x.shape[-1]), borders, turns, tensors, seeds)
        ctx.save_for_backward(*borders, *kept, *tensors)
        ctx.shape, ctx.seeds = x.shape, seeds
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        tensors, kept = list(saved[-NORMS - 7 * TENSORS :]), saved[2 : -NORMS - 7 * TENSORS]
        found = Found(tensors, ctx.needs_input_grad[4:])
        dy = grad.reshape(-1, grad.shape[-1]).contiguous()
        dx = _backward(ctx.how, dy, saved[:2], ctx.turns, tensors, kept, ctx.seeds, found, ctx.needs_input_grad[0])
        return (None if dx is None else dx.view(ctx.shape), None, None, None, *found.gradients)


def _forward(
    how: How, flat: torch.Tensor, borders: Any, turns: Any, tensors: Any, seeds: list[int]
) -> tuple[torch.Tensor, list[Maybe]]:
    """x (tokens, E) -> y, and what is kept of it."""
    lines = _lines(how, tensors)
    n1, n2 = tensors[:2], tensors[2:NORMS]
    read, stats1 = _norm(how, flat, n1) if how.before else (flat, NOTHING)
    (q, k, v), low_qkv = products.forward(read, lines[Q : V + 1], seeds)
    q, k = _turn(how, q, turns, 1.0), _turn(how, k, turns, 1.0)
    mixed, log_sum = torch.empty_like(q), q.new_empty(len(q), q.shape[1] // how.size, dtype=torch.float32)
    spread = (how.size, how.scale, how.causal, how.rates[0], _seed(seeds, how.rates[0]))
    library().varlen_attention(*map(to_dlpack, (q, k, v, *borders, mixed, log_sum)), *spread)
    (part,), low_o = products.forward(mixed, lines[OUT : OUT + 1], seeds)
    sum1 = _residual(how, flat, part, seeds)
    x1, stats1 = (sum1, stats1) if how.before else _norm(how, sum1, n1)
    read, stats2 = _norm(how, x1, n2) if how.before else (x1, NOTHING)
    ups = lines[UP : UP + 1] if tensors[NORMS + GATE * TENSORS] is None else lines[GATE : UP + 1]
    (*gates, up), low_up = products.forward(read, ups, seeds)
    gate = gates[0] if gates else None
    inner = _activate(how, up, gate)
    inner = _drop(inner, how.rates[2], _seed(seeds, how.rates[2]))
    (part,), low_down = products.forward(inner, lines[DOWN:], seeds)
    sum2 = _residual(how, x1, part, seeds)
    y, stats2 = (sum2, stats2) if how.before else _norm(how, sum2, n2)
    lows = (low_qkv, low_o, low_up, low_down)
    kept = [flat, q, k, v, mixed, log_sum, sum1, *stats1, gate, up, None if how.before else sum2, *stats2, *lows]
    return y, kept


def _backward(
    how: How,
    dy: torch.Tensor,
    borders: Any,
    turns: Any,
    tensors: list[Maybe],
    kept: Any,
    seeds: list[int],
    found: Found,
    wanted: bool,
) -> Maybe:
    """The gradient of x where it is wanted, from that of y; those of the weights go to ``found``."""
    flat, q, k, v, mixed, log_sum, sum1, mean1, scale1, gate, up, sum2, mean2, scale2 = kept[:14]
    low_qkv, low_o, low_up, low_down = kept[14:]
    stats1, stats2 = (mean1, scale1), (mean2, scale2)
    lines = _lines(how, tensors)
    seed_q, seed_k, seed_v, spread_seed, seed_o, seed1, *seeds_up, inner_seed, seed_down, seed2 = seeds
    at = [NORMS + TENSORS * line for line in range(7)]
    n1, n2 = tensors[:2], tensors[2:NORMS]
    # feed-forward
    if how.before:
        x1 = sum1
    else:
        dy = _norm_back(how, sum2, n2, stats2, dy, found, 2)
        x1, _ = _norm(how, sum1, n1)
    inner = read = None  # made anew where somebody reads them
    if found.reads(at[DOWN]):
        inner = _drop(_activate(how, up, gate), how.rates[2], inner_seed)
    if any(map(found.reads, at[GATE:DOWN])):
        read = _norm(how, x1, n2)[0] if how.before else x1
    dpart = _drop(dy, how.rates[1], seed2)
    dinner = products.backward(inner, lines[DOWN:], low_down, [dpart], [seed_down], found, at[DOWN:])
    dup, dgate = _activate_back(how, up, gate, _drop(dinner, how.rates[2], inner_seed))
    first, slopes = (UP, [dup]) if dgate is None else (GATE, [dgate, dup])
    dread = products.backward(read, lines[first:DOWN], low_up, slopes, seeds_up, found, at[first:DOWN])
    assert dread is not None
    if how.before:
        dread = _norm_back(how, x1, n2, stats2, dread, found, 2)
    dx1 = dread.add_(dy)
    # attention
    dsum = dx1 if how.before else _norm_back(how, sum1, n1, stats1, dx1, found, 0)
    dpart = _drop(dsum, how.rates[1], seed1)
    dmixed = products.backward(mixed, lines[OUT : OUT + 1], low_o, [dpart], [seed_o], found, at[OUT : OUT + 1])
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    spread = (how.size, how.scale, how.causal, how.rates[0], spread_seed)
    library().varlen_attention_backward(
        *map(to_dlpack, (q, k, v, *borders, mixed, log_sum, dmixed, dq, dk, dv)), *spread
    )
    slopes = [_turn(how, dq, turns, -1.0), _turn(how, dk, turns, -1.0), dv]
    read = _norm(how, flat, n1)[0] if how.before and any(map(found.reads, at[: V + 1])) else flat
    below = wanted or (how.before and any(found.wants[:2]))
    inputs = ([seed_q, seed_k, seed_v], found, at[: V + 1], below)
    dread = products.backward(read, lines[: V + 1], low_qkv, slopes, *inputs)
    if dread is None:
        return None
    dx = _norm_back(how, flat, n1, stats1, dread, found, 0) if how.before else dread
    return dx.add_(dsum) if wanted else None


def _lines(how: How, tensors: Any) -> list[Line]:
    own = iter(tensors[NORMS:])
    return [Line(next(own), next(own), next(own), next(own), beside) for beside in how.beside]


def _seed(seeds: list[int], rate: float) -> int:
    """A seed for one dropout, kept for the way back."""
    seeds.append(draw_seed() if rate else 0)
    return seeds[-1]


def _residual(how: How, x: torch.Tensor, part: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    rate, seed = how.rates[1], _seed(seeds, how.rates[1])
    if not rate:
        return part.add_(x)
    y = torch.empty_like(x)
    library().dropout_add(to_dlpack(x), to_dlpack(part), to_dlpack(y), rate, seed)
    return y


def _drop(x: Maybe, rate: float, seed: int) -> torch.Tensor:
    assert x is not None
    if not rate:
        return x
    y = torch.empty_like(x)
    library().dropout(to_dlpack(x), to_dlpack(y), rate, seed)
    return y


NOTHING: tuple[Maybe, Maybe] = (None, None)


def _norm(how: How, x: torch.Tensor, module: Any) -> tuple[torch.Tensor, tuple[Maybe, Maybe]]:
    """Normalised rows, and their means (where these are subtracted) and scales."""
    y, scale = torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)
    weight, shift = (None if part is None else to_dlpack(part) for part in module)
    if not how.layer:
        library().rms_norm(to_dlpack(x), weight, to_dlpack(y), to_dlpack(scale), how.eps)
        return y, (None, scale)
    mean = torch.empty_like(scale)
    library().layer_norm(to_dlpack(x), weight, shift, to_dlpack(y), to_dlpack(mean), to_dlpack(scale), how.eps)
    return y, (mean, scale)


def _norm_back(
    how: How, x: torch.Tensor, module: Any, stats: tuple[Maybe, Maybe], dy: torch.Tensor, found: Found, at: int
) -> torch.Tensor:
    """The gradient of a norm's input; those of its weights go to their places in ``found``."""
    dx, parts = torch.empty_like(x), []
    for place, weight in enumerate(module, at):
        wanted = weight is not None and found.wants[place]
        found.gradients[place] = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        parts.append(to_dlpack(found.gradients[place]) if wanted else None)  # type: ignore[arg-type]
    arrays = [to_dlpack(one) for one in (x, module[0], *stats, dy, dx) if one is not None]
    if how.layer:
        library().layer_norm_backward(*arrays, *parts)
    else:
        library().rms_norm_backward(*arrays, parts[0])
    return dx


def _turn(how: How, x: torch.Tensor, turns: Any, sign: float) -> torch.Tensor:
    if turns is None:
        return x
    y = torch.empty_like(x)
    library().rotate(*map(to_dlpack, (x, *turns, y)), how.size, sign)
    return y


def _activate(how: How, up: torch.Tensor, gate: Maybe) -> torch.Tensor:
    y = torch.empty_like(up)
    x, other = (up, None) if gate is None else (gate, to_dlpack(up))
    library().activate(how.kind, to_dlpack(x), other, to_dlpack(y))
    return y


def _activate_back(how: How, up: torch.Tensor, gate: Maybe, dy: torch.Tensor) -> tuple[torch.Tensor, Maybe]:
    """Gradients of up and of gate."""
    dup = torch.empty_like(up)
    if gate is None:
        library().activate_backward(how.kind, to_dlpack(up), None, to_dlpack(dy), to_dlpack(dup), None)
        return dup, None
    dgate = torch.empty_like(gate)
    library().activate_backward(how.kind, *map(to_dlpack, (gate, up, dy, dgate, dup)))
    return dup, dgate
