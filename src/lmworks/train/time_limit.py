"""A limit of time for training: as many steps are planned as fit into it, and training stops when it is over.

The steps that fit are found by timing a few of them on training examples, at a learning rate of zero, so that they
change nothing. The schedule of the learning rate then ends about when the time does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lmworks.base.journal import RunFolder
from lmworks.data.batch import Example, ExampleTransform
from lmworks.model.transformer import Transformer
from lmworks.train.optimizers import AdamW, gradient_norm
from lmworks.train.settings import TrainSettings
from lmworks.train.step import accumulate_gradients, sample

EVENT = "length"
TIMED_STEPS = 6
TIMED_SHARE = 0.05  # of the limit, after which no further step is timed; one is in any case
PLANNED_SHARE = 0.97  # of the limit: a schedule that ends early loses less than one that is cut off


class StepTiming(NamedTuple):
    """What the steps are timed on.

    Attributes:
        network, examples, settings, transform: of the run.
        optimizer: of the run, before its first step.
        precision, device: of the matrix products.
    """

    network: Transformer
    examples: Sequence[Example]
    settings: TrainSettings
    transform: ExampleTransform | None
    optimizer: AdamW
    precision: str
    device: torch.device


class TimeLimit:
    """The time that training may take and has taken, in all sessions of a run.

    Attributes:
        most: seconds that it may take; None: as many as it needs.
        earlier: seconds that earlier sessions took, as far as their steps were saved.
    """

    def __init__(self, most: float | None) -> None:
        self.most, self.earlier = most, 0.0
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds so far, evaluations and checkpoints between steps included."""
        return self.earlier + time.monotonic() - self._began

    @property
    def is_over(self) -> bool:
        """Whether no further step may begin."""
        return self.most is not None and self.elapsed >= self.most

    def fitting_steps(self, run: RunFolder, timing: StepTiming, total: int) -> int:
        """The steps of a run: as many as fit into the limit, at least one; all of them without a limit.

        A resumed run keeps the number that its first session found.

        Args:
            run: its journal gets the timing.
            timing: what the steps are timed on.
            total: steps without the limit.
        """
        if self.most is None:
            return total
        if earlier := run.events(EVENT):
            return int(earlier[0]["steps"])
        step = self._step_seconds(timing, total)
        steps = max(1, min(total, math.floor(PLANNED_SHARE * (self.most - self.elapsed) / step)))
        run.write(EVENT, steps=steps, without_limit=total, step_seconds=step, seconds=self.elapsed)
        return steps

    def _step_seconds(self, timing: StepTiming, total: int) -> float:
        """Seconds of a step with documents of mean length; the first one, which allocates memory, is not counted."""
        network, examples, settings, transform, optimizer, precision, device = timing
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        size, seconds, tokens = min(settings.batch_size, len(examples)), 0.0, 0
        network.train()
        for step in range(total + 1, total + 1 + TIMED_STEPS):
            began = time.perf_counter()
            indices = np.random.default_rng((settings.seed, step)).permutation(len(examples))[:size].tolist()
            documents = sample(examples, indices, transform, settings.seed, step)
            accumulate_gradients(network, documents, settings, step, precision, device)
            norm = gradient_norm(parameters)
            if not math.isfinite(norm):  # zero times infinity is no number; the run's own step reports it
                for parameter in parameters:
                    parameter.grad = None
            optimizer.advance(0.0, norm, settings.max_grad_norm)
            if step > total + 1:
                seconds += time.perf_counter() - began
                tokens += sum(examples[index].size for index in indices)
                if self.elapsed > TIMED_SHARE * (self.most or 0.0):
                    break
        optimizer.state.clear()
        mean = settings.batch_size * sum(example.size for example in examples) / len(examples)
        return seconds * mean / tokens
