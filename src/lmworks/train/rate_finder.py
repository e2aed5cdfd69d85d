"""A range test of learning rates (Smith 2017, section 3.3): some steps with rates that rise exponentially.

The test starts from the run's initial weights, with rates from very small to far too large. At first the loss hardly
changes, then it falls, then training diverges. The result is the rate at which the smoothed loss falls fastest over the
logarithm of the rate. Afterwards weights and optimizer are as before, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
SMOOTHING = 0.9  # decay of the running mean of losses, bias-corrected as in Adam
DIVERGED = 4.0  # the test ends when the smoothed loss exceeds this multiple of its minimum


@dataclass(frozen=True)
class RateCurve:
    """The result of a range test.

    Attributes:
        best: the learning rate to train with.
        rates, losses: of each step; the loss is that before the step's update.
    """

    best: float
    rates: list[float]
    losses: list[float]


def range_test(
    network: Transformer,
    examples: Sequence[Example],
    settings: TrainSettings,
    transform: ExampleTransform | None,
    optimizer: AdamW,
    precision: str,
    device: torch.device,
    total: int,
    loss_weights: Mapping[str, float] | None = None,
) -> RateCurve:
    """Run the test on training examples, sampled with random numbers that training does not use.

    Args:
        network: with the run's initial weights.
        examples, settings, transform: of the run.
        optimizer: of the run, before its first step.
        precision, device: of the matrix products.
        total: steps of the run.
        loss_weights: of the run.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    initial = [parameter.detach().clone() for parameter in parameters]
    rates = np.geomspace(LOWEST, HIGHEST, STEPS).tolist()
    size, losses, best = min(settings.batch_size, len(examples)), [], math.inf
    network.train()
    try:
        for step, rate in enumerate(rates, total + 1):
            indices = np.random.default_rng((settings.seed, step)).permutation(len(examples))[:size].tolist()
            documents = sample(examples, indices, transform, settings.seed, step)
            loss = accumulate_gradients(network, documents, settings, step, precision, device, loss_weights).loss
            norm = gradient_norm(parameters)
            if not math.isfinite(loss) or not math.isfinite(norm):
                break
            losses.append(loss)
            current = smoothed(losses)[-1]
            best = min(best, current)
            if current > DIVERGED * best:
                break
            optimizer.advance(rate, norm, settings.max_grad_norm)
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, initial, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        optimizer.state.clear()
    return RateCurve(steepest(rates[: len(losses)], losses), rates[: len(losses)], losses)


def smoothed(losses: list[float]) -> list[float]:
    """Running mean of the losses, its bias towards the start corrected (Kingma & Ba 2015, section 3)."""
    means, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**number))
    return means


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest over log(rate), before it is at its lowest.

    If it never falls, the smallest rate of the test, because no larger one is known to be safe.
    """
    curve = np.array(smoothed(losses))
    lowest = int(curve.argmin()) if len(curve) else 0
    if lowest < 1:
        return rates[0] if rates else LOWEST
    derivative = np.gradient(curve[: lowest + 1], np.log(rates[: lowest + 1]))
    return rates[int(derivative.argmin())]
