"""A range test of learning rates (Smith 2017, section 3.3): rates rise exponentially, and the loss tells which serve.

From the weights a run begins with, some steps are made with rates from very small to far too large. At first nothing
happens, then the loss falls, then the network comes apart. The rate at which the smoothed loss falls fastest, taken
over the logarithm of the rate, is the one to train with. Afterwards weights and optimizer are what they were, bit for
bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmworks.data.batch import Example, ExampleTransform
from lmworks.model.transformer import Transformer
from lmworks.train.optimizers import AdamW, gradient_norm
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, sample

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9  # share of the running mean that is the past; its start is corrected as Adam's moments are
APART = 4.0  # the test ends where the smoothed loss is so many times the best


@dataclass(frozen=True)
class Found:
    """What a range test found.

    Attributes:
        rate: to train with.
        rates, losses: the curve: the rate of each step made, and the loss of its examples before it.
    """

    rate: float
    rates: list[float]
    losses: list[float]


def find(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    draw: ExampleTransform | None,
    optimizer: AdamW,
    precision: str,
    device: torch.device,
    total: int,
) -> Found:
    """Make the test on examples as training has them, drawn with random numbers that training will not see.

    Args:
        network: as a run begins with it.
        examples, settings, draw: of the run.
        optimizer: of the run, which has made no step yet.
        precision, device: of the products.
        total: steps of the run.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kept = [parameter.detach().clone() for parameter in parameters]
    rates = np.geomspace(LOWEST, HIGHEST, STEPS).tolist()
    size, losses, best = min(settings.batch_size, len(examples)), [], math.inf
    network.train()
    try:
        for step, rate in enumerate(rates, total + 1):
            chosen = np.random.default_rng((settings.seed, step)).permutation(len(examples))[:size].tolist()
            documents = sample(examples, chosen, draw, settings.seed, step)
            loss = accumulate_gradients(network, documents, settings, step, precision, device).loss
            norm = gradient_norm(parameters)
            if not math.isfinite(loss) or not math.isfinite(norm):
                break
            losses.append(loss)
            now = smoothed(losses)[-1]
            best = min(best, now)
            if now > APART * best:
                break
            optimizer.advance(rate, norm, settings.clip)
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        optimizer.state.clear()
    return Found(steepest(rates[: len(losses)], losses), rates[: len(losses)], losses)


def smoothed(losses: list[float]) -> list[float]:
    """Running mean of the losses, its bias towards the start corrected (Kingma & Ba 2015, section 3)."""
    found, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**number))
    return found


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest over log(rate), before it is at its lowest.

    Where it never falls, the smallest rate tried: nothing larger is known to be safe.
    """
    curve = np.array(smoothed(losses))
    lowest = int(curve.argmin()) if len(curve) else 0
    if lowest < 1:
        return rates[0] if rates else LOWEST
    slopes = np.gradient(curve[: lowest + 1], np.log(rates[: lowest + 1]))
    return rates[int(slopes.argmin())]
