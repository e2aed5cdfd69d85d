"""A block's way forward and back as one autograd function, where the native kernels serve.

The same arithmetic as transformer.Block, in the same order and with the same random draws (a test compares): the block
there is the definition, this is how it is trained fast. Autograd then has one node a block in place of some thirty,
which on small models takes longer than their arithmetic; and the norms' outputs and the activation are computed again
on the way back instead of kept.

    pre-norm:  x1 = x + drop(attend(norm1(x)));  y = x1 + drop(feed(norm2(x1)))
    post-norm: x1 = norm1(x + drop(attend(x)));  y = norm2(x1 + drop(feed(x1)))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lmworks.kernels.activations import NATIVE
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves
from lmworks.model.attention import Attention, Rotation
from lmworks.model.feedforward import FeedForward
from lmworks.model.masks import Sight
from lmworks.model.norm import LayerNorm, RMSNorm

Maybe = torch.Tensor | None


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


def can_run(
    x: torch.Tensor, attention: Attention, mlp: FeedForward, norms: tuple[nn.Module, nn.Module], sight: Sight
) -> bool:
    """Whether these modules, as they stand now, are plain ones that the fused block computes."""
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.up_proj, mlp.down_proj)
    return (
        torch.is_grad_enabled()
        and serves(x)
        and sight.aligned
        and sight.within(attention.window)
        and attention.q_norm is None
        and attention.how.softcap is None
        and mlp.activation in NATIVE
        and all(type(one) is nn.Linear for one in linears)
        and (mlp.gate_proj is None or type(mlp.gate_proj) is nn.Linear)
        and type(norms[0]) in (LayerNorm, RMSNorm)
        and all(not one._forward_hooks and not one._forward_pre_hooks for one in (*linears, attention, mlp))
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
    how = How(before, layer, eps, attention.size, scale, sight.causal, NATIVE[mlp.activation], rates)
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj)
    weights: list[Maybe] = []
    for module in (*norms, *linears, mlp.down_proj):
        weights += [None, None] if module is None else [module.weight, getattr(module, "bias", None)]  # type: ignore[list-item]
    turns = None if rotation.own is None else tuple(_table(part, x) for part in rotation.own)
    return _Block.apply(x, how, sight.borders(), turns, *weights)


def _table(part: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Cosines or sines (B or 1, T, 1, R/2) -> (B * T, R/2)."""
    return part.expand(len(x), -1, -1, -1).reshape(-1, part.shape[-1])


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: How, borders: Any, turns: Any, *weights: Maybe) -> torch.Tensor:
        ctx.how, ctx.turns, ctx.seeds = how, turns, []
        n1, n2, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj = _pairs(weights)
        flat = x.reshape(-1, x.shape[-1])
        read, stats1 = _norm(how, flat, n1) if how.before else (flat, ())
        q, k, v = _linear(read, q_proj), _linear(read, k_proj), _linear(read, v_proj)
        q, k = _turn(how, q, turns, 1.0), _turn(how, k, turns, 1.0)
        mixed, log_sum = torch.empty_like(q), q.new_empty(len(q), q.shape[1] // how.size)
        spread = (how.size, how.scale, how.causal, how.rates[0], _seed(ctx, how.rates[0]))
        library().attend(*map(capsule, (q, k, v, *borders, mixed, log_sum)), *spread)
        sum1 = _residual(ctx, flat, _linear(mixed, o_proj))
        x1, stats1 = (sum1, stats1) if how.before else _norm(how, sum1, n1)
        read, stats2 = _norm(how, x1, n2) if how.before else (x1, ())
        gate = None if gate_proj[0] is None else _linear(read, gate_proj)
        up = _linear(read, up_proj)
        inner = _activate(how, up, gate)
        dropped_inner = _drop(inner, how.rates[2], _seed(ctx, how.rates[2]))
        sum2 = _residual(ctx, x1, _linear(dropped_inner, down_proj))
        y, stats2 = (sum2, stats2) if how.before else _norm(how, sum2, n2)
        kept = (flat, q, k, v, mixed, log_sum, sum1, *stats1, gate, up, sum2 if not how.before else None, *stats2)
        ctx.save_for_backward(*borders, *kept, *weights)
        ctx.shape = x.shape
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        how, wants = ctx.how, ctx.needs_input_grad[4:]
        saved = list(ctx.saved_tensors)
        weights, saved = saved[-18:], saved[:-18]
        n1, n2, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj = _pairs(weights)
        count = 2 if how.layer else 1
        borders, (flat, q, k, v, mixed, log_sum, sum1) = saved[:2], saved[2:9]
        stats1, (gate, up, sum2), stats2 = saved[9 : 9 + count], saved[9 + count : 12 + count], saved[12 + count :]
        found: list[Maybe] = [None] * 18
        spread_seed, seed1, inner_seed, seed2 = ctx.seeds
        dy = grad.reshape(flat.shape).contiguous()
        # feed-forward
        if not how.before:
            dy = _norm_back(how, sum2, n2, stats2, dy, wants, found, 1)
            x1, _ = _norm(how, sum1, n1)
        else:
            x1 = sum1
        read = _norm(how, x1, n2)[0] if how.before else x1
        inner = _drop(_activate(how, up, gate), how.rates[2], inner_seed)
        dpart = _drop(dy, how.rates[1], seed2)
        dinner = _linear_back(inner, down_proj, dpart, wants, found, 8)
        dinner = _drop(dinner, how.rates[2], inner_seed)
        dup, dgate = _activate_back(how, up, gate, dinner)
        dread = _linear_back(read, up_proj, dup, wants, found, 7)
        if dgate is not None:
            dread = _linear_back(read, gate_proj, dgate, wants, found, 6, dread)
        if how.before:
            dx1 = _norm_back(how, x1, n2, stats2, dread, wants, found, 1).add_(dy)
        else:
            dx1 = dread.add_(dy)
        # attention
        dsum = dx1 if how.before else _norm_back(how, sum1, n1, stats1, dx1, wants, found, 0)
        read = _norm(how, flat, n1)[0] if how.before else flat
        dmixed = _linear_back(mixed, o_proj, _drop(dsum, how.rates[1], seed1), wants, found, 5)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        spread = (how.size, how.scale, how.causal, how.rates[0], spread_seed)
        arrays = (q, k, v, *borders, mixed, log_sum, dmixed, dq, dk, dv)
        library().attend_back(*map(capsule, arrays), *spread)
        dq, dk = _turn(how, dq, ctx.turns, -1.0), _turn(how, dk, ctx.turns, -1.0)
        dread = _linear_back(read, q_proj, dq, wants, found, 2)
        dread = _linear_back(read, k_proj, dk, wants, found, 3, dread)
        dread = _linear_back(read, v_proj, dv, wants, found, 4, dread)
        dx = _norm_back(how, flat, n1, stats1, dread, wants, found, 0) if how.before else dread
        return (dx.add_(dsum).view(ctx.shape), None, None, None, *found)


def _pairs(weights: Any) -> list[tuple[Maybe, Maybe]]:
    """Weight and bias of each module."""
    return list(zip(weights[::2], weights[1::2], strict=True))


def _seed(ctx: Any, rate: float) -> int:
    """A seed for one dropout, kept for the way back."""
    ctx.seeds.append(draw_seed() if rate else 0)
    return ctx.seeds[-1]


def _residual(ctx: Any, x: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    rate, seed = ctx.how.rates[1], _seed(ctx, ctx.how.rates[1])
    if not rate:
        return part.add_(x)
    y = torch.empty_like(x)
    library().add_dropped(capsule(x), capsule(part), capsule(y), rate, seed)
    return y


def _drop(x: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
    if not rate:
        return x
    y = torch.empty_like(x)
    library().drop(capsule(x), capsule(y), rate, seed)
    return y


def _norm(how: How, x: torch.Tensor, module: tuple[Maybe, Maybe]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    y, mean, scale = torch.empty_like(x), x.new_empty(len(x)), x.new_empty(len(x))
    weight, shift = (None if part is None else capsule(part) for part in module)
    if not how.layer:
        library().rms_norm(capsule(x), weight, capsule(y), capsule(scale), how.eps)
        return y, (scale,)
    library().layer_norm(capsule(x), weight, shift, capsule(y), capsule(mean), capsule(scale), how.eps)
    return y, (mean, scale)


def _norm_back(
    how: How,
    x: torch.Tensor,
    module: tuple[Maybe, Maybe],
    stats: Any,
    dy: torch.Tensor,
    wants: Any,
    found: Any,
    at: int,
) -> torch.Tensor:
    """The gradient of a norm's input; those of its weights go to their places in ``found``."""
    dx, parts = torch.empty_like(x), []
    for place, weight in enumerate(module):
        found[2 * at + place] = torch.zeros_like(weight) if weight is not None and wants[2 * at + place] else None
        parts.append(None if found[2 * at + place] is None else capsule(found[2 * at + place]))
    arrays = [*map(capsule, (x, module[0], *stats, dy, dx))]
    if how.layer:
        library().layer_norm_back(*arrays, *parts)
    else:
        library().rms_norm_back(*arrays, parts[0])
    return dx


def _linear(x: torch.Tensor, module: tuple[Maybe, Maybe]) -> torch.Tensor:
    weight, bias = module
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())  # type: ignore[union-attr]


def _linear_back(
    x: torch.Tensor, module: tuple[Maybe, Maybe], dy: torch.Tensor, wants: Any, found: Any, at: int, onto: Maybe = None
) -> torch.Tensor:
    """The gradient of a linear's input, added to ``onto`` where given; those of its weights go to ``found``."""
    if wants[2 * at]:
        found[2 * at] = dy.t() @ x
    if wants[2 * at + 1]:
        found[2 * at + 1] = dy.sum(0)
    weight = module[0]
    return dy @ weight if onto is None else onto.addmm_(dy, weight)  # type: ignore[arg-type,operator]


def _turn(how: How, x: torch.Tensor, turns: Any, sign: float) -> torch.Tensor:
    if turns is None:
        return x
    y = torch.empty_like(x)
    library().rotate(*map(capsule, (x, *turns, y)), how.size, sign)
    return y


def _activate(how: How, up: torch.Tensor, gate: Maybe) -> torch.Tensor:
    y = torch.empty_like(up)
    x, other = (up, None) if gate is None else (gate, capsule(up))
    library().activate(how.kind, capsule(x), other, capsule(y))
    return y


def _activate_back(how: How, up: torch.Tensor, gate: Maybe, dy: torch.Tensor) -> tuple[torch.Tensor, Maybe]:
    """Gradients of up and of gate."""
    dup = torch.empty_like(up)
    if gate is None:
        library().activate_back(how.kind, capsule(up), None, capsule(dy), capsule(dup), None)
        return dup, None
    dgate = torch.empty_like(gate)
    library().activate_back(how.kind, *map(capsule, (gate, up, dy, dgate, dup)))
    return dup, dgate
