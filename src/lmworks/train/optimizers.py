"""Parameter groups, AdamW and learning-rate schedules. Knows no loop and no loss."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw

from lmworks.train.settings import DEFAULT_RATES, OptimizerSettings

__all__ = ["AdamW", "OptimizerSettings", "gradient_norm", "groups", "make", "peak_rate", "rate"]


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


class AdamW(torch.optim.AdamW):
    """AdamW as torch computes it, in one fused pass over memory, clipping too.

    A step of a small network takes a few milliseconds, so what torch's own step looks up anew each time is left out.
    """

    def advance(self, rate: float, norm: float = 0.0, largest: float = 0.0) -> None:
        """One step with the gradients that are there; they are given back afterwards.

        Args:
            rate: learning rate.
            norm: global norm of the gradients.
            largest: they are shortened to this norm where theirs is larger; 0: never.
        """
        scale = torch.tensor(norm / largest) if 0 < largest < norm else None  # gradients are divided by it
        for group in self.param_groups:
            group["lr"] = rate
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            kept = [self.state[parameter] or self._begun(parameter) for parameter in parameters]
            with torch.no_grad():
                adamw(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    [state["exp_avg"] for state in kept],
                    [state["exp_avg_sq"] for state in kept],
                    [],
                    [state["step"] for state in kept],
                    fused=True,
                    grad_scale=scale,
                    amsgrad=False,
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    lr=rate,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=False,
                )
            for parameter in group["params"]:
                parameter.grad = None

    def _begun(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        self.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
        return self.state[parameter]


def make(network: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW over everything trainable."""
    return AdamW(
        groups(network, settings.weight_decay),
        lr=peak_rate(network, settings),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0
