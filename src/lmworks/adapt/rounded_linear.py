"""A linear that computes with rounded weights while it trains the exact ones: quantization-aware training.

The gradient of the rounded weight is taken as that of the exact one, as if rounding were the identity: the
straight-through estimator (Bengio, Léonard & Courville 2013, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation"). Ternary weights with inputs in eight bits are BitNet b1.58 (Ma et al. 2024, "The
Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lmworks.adapt.adapters import Adapter
from lmworks.kernels.matmul import matmul
from lmworks.model import accumulation
from lmworks.model.linear import flat_product
from lmworks.model.products import product_dtype
from lmworks.model.rounding_rules import Rule, q4_0, ternary

WEIGHT_RULES: dict[str, Rule] = {"int4": q4_0, "ternary": ternary}
"""How weights are rounded, by the name that a setting gives it."""
INPUT_LEVELS = 127
SAMPLED = 64  # elements by which a changed weight is told from the same one
LEAST_INPUT = 1e-5  # the smallest absmax of a token's inputs, as in the published code


class _KeptWeight(NamedTuple):
    """A rounded weight, and some elements (n,) of the exact one."""

    sample: torch.Tensor
    rounded: torch.Tensor


class RoundedLinear(Adapter):
    """A linear that multiplies by its rounded weight; the weight itself, and a bias, are trained.

    Unlike other adapters it has no parameters besides those of its base. While it is not active, it multiplies by the
    exact weight. It is merged by rounding, so that plain linears compute the same, but for rounded inputs.

    Args:
        base: a plain linear.
        weights: key of :data:`WEIGHT_RULES`.
        rounds_inputs: whether inputs are rounded to eight bits, each token's by its own absmax.
    """

    def __init__(self, base: nn.Module, weights: str, rounds_inputs: bool) -> None:
        super().__init__(base)
        base.requires_grad_(True)
        self.weights, self.rule, self.rounds_inputs = weights, WEIGHT_RULES[weights], rounds_inputs
        self._kept: _KeptWeight | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features), in x's precision, or autocast's."""
        if self.rounds_inputs and self.enabled:
            x = _RoundedInputs.apply(x)
        if not self.active:
            return self.base(x)
        x, weight, bias = x.to(product_dtype(x)), self.base.get_parameter("weight"), getattr(self.base, "bias", None)
        with torch.autocast(x.device.type, enabled=False):
            if torch.is_grad_enabled():
                self._kept = None
                return _RoundedProduct.apply(x, weight, bias, self.rule)
            return flat_product(x, self._rounded(weight, x.dtype), None if bias is None else bias.to(x.dtype))

    def _rounded(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The rounded weight, kept from one pass without gradients to the next: an answer takes a pass for each token.

        Whether it is still that of the weight is told by some of its elements, all of which a training step changes:
        steps and checkpoints write into the weight without a trace that autograd would see.
        """
        sample = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)].clone()
        kept = self._kept
        if kept is None or kept.rounded.dtype != dtype or not torch.equal(kept.sample, sample):
            kept = self._kept = _KeptWeight(sample, self.rule(weight).dequantized().to(dtype))
        return kept.rounded

    @torch.no_grad()
    def widen_ternary(self) -> None:
        """Multiply a weight that is ternary already, -m, 0 and m, so that rounding it gives the same numbers again.

        The mean magnitude of such a weight is smaller than m, as it has zeros: training that goes on from a saved
        weight would begin with another one.
        """
        weight = self.base.get_parameter("weight")
        if self.weights != "ternary" or weight.is_meta:
            return
        magnitudes = weight.abs()
        largest = magnitudes.max()
        if bool(((magnitudes == 0) | (magnitudes == largest)).all()) and bool(largest > 0):
            weight.data = weight.data * (largest / magnitudes.mean())

    @property
    def saved_elements(self) -> int:
        """Its input, or the rounded one: unlike a fused block, module by module nothing is computed again. Linears with
        the same exact input share it, which is not counted."""
        return self.in_features

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.merged_weight`: the rounded weight."""
        return self.rule(weight).dequantized().double()

    def extra_repr(self) -> str:
        return f"weights={self.weights}, rounds_inputs={self.rounds_inputs}, enabled={self.enabled}"


class _RoundedProduct(torch.autograd.Function):
    """x Q(W)^T + b. The rounded weight is computed again for the backward pass, so that no copy of all weights is kept
    between both."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rule: Rule) -> torch.Tensor:
        ctx.rule = rule
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return flat_product(x, rule(weight).dequantized().to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        flat = grad_y.reshape(-1, grad_y.shape[-1]).contiguous()
        grad_x = grad_weight = None
        if needs_x:
            grad_x = matmul(flat, ctx.rule(weight).dequantized().to(flat.dtype)).view(*grad_y.shape[:-1], -1)
        if needs_weight:
            grad_weight = accumulation.weight_gradient(weight, flat, x.reshape(len(flat), -1).contiguous())
        return grad_x, grad_weight, flat.sum(0, dtype=torch.float32) if needs_bias else None, None


class _RoundedInputs(torch.autograd.Function):
    """Inputs rounded to 255 levels between -absmax and absmax of each token; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        exact = x.float()
        scales = INPUT_LEVELS / exact.abs().amax(-1, keepdim=True).clamp_min_(LEAST_INPUT)
        return (exact * scales).round_().div_(scales).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> torch.Tensor:
        return grad_y
