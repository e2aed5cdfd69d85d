"""Parameter groups, AdamW and learning-rate schedules. Knows no loop and no loss."""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.train.settings import DEFAULT_RATES, OptimizerSettings

__all__ = ["OptimizerSettings", "clip", "groups", "make", "peak_rate", "rate"]


def peak_rate(network: nn.Module, settings: OptimizerSettings) -> float:
    """The learning rate asked for, or the one that fits: a network with frozen weights is being adapted."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    frozen = any(not parameter.requires_grad for parameter in network.parameters())
    return DEFAULT_RATES["lora" if frozen else "full"]


def rate(step: int, total: int, peak: float, settings: OptimizerSettings) -> float:
    """Learning rate of a step (the first is 1) out of ``total``.

    It rises in a straight line over the warm-up, ``peak * step / warmup``, then falls to zero (just after the last
    step) in a straight line or along half a cosine (Loshchilov & Hutter 2017, eq. 5), or stays.
    """
    warmup = settings.warmup if settings.warmup >= 1 else settings.warmup * total
    warmup = min(math.ceil(warmup), total)
    if step <= warmup:
        return peak * step / warmup
    if settings.schedule == "constant":
        return peak
    gone = (step - 1 - warmup) / max(total - warmup, 1)
    gone = min(max(gone, 0.0), 1.0)
    left = 1.0 - gone if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
    return peak * left


def groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices of linears, which decay, and all else, which does not.

    Norms, biases and embeddings (and a head tied to one) are scales, offsets and tables: pulling them to zero would
    shrink what is rarely seen.
    """
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and id(parameter) not in tables
            (decayed if matrix else others).append(parameter)
    found = ({"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0})
    return [group for group in found if group["params"]]


def make(network: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over everything trainable, one fused pass over memory a step."""
    return torch.optim.AdamW(
        groups(network, settings.weight_decay),
        lr=peak_rate(network, settings),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def clip(parameters: list[nn.Parameter], largest: float) -> float:
    """Shorten the gradient to a global norm of ``largest`` at most (0: leave it); gives the norm it had."""
    norm = nn.utils.clip_grad_norm_(parameters, largest if largest > 0 else math.inf)
    return float(norm)
