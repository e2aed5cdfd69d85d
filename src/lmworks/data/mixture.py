"""The order of training on several tasks: the task of each step, and which of its examples; resumable at each step.

Every step is of one task. An epoch is as many steps as one pass over all examples takes; each task's share of them is
proportional to size^(1/T) (Raffel et al. 2020, section 3.5.2; Xue et al. 2021, section 3.1): T = 1 is proportional
sampling, in which an epoch is one pass over each task, and T without end is equal sampling. Shares are counts, not
chances: within each epoch the steps of all tasks are shuffled. Knows no data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.sampler import BatchSampler

ORDER = 7  # seeds the order of the tasks apart from that of their examples


@dataclass(frozen=True)
class Mixture:
    """Several tasks whose examples stand one after another.

    Attributes:
        names: of the tasks.
        sizes: examples of each.
        weights: what each task's loss is multiplied by.
        temperature: T of the shares; 1: proportional to the sizes, inf: equal.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    temperature: float = 1.0

    def steps_of_epoch(self, batch_size: int) -> np.ndarray:
        """(tasks,): steps of each task in an epoch, at least one."""
        passes = np.array([-(-size // batch_size) for size in self.sizes])
        if self.temperature == 1.0:
            return passes
        exponent = 0.0 if math.isinf(self.temperature) else 1.0 / self.temperature
        powers = np.array(self.sizes, dtype=float) ** exponent
        exact = powers / powers.sum() * passes.sum()
        steps = np.floor(exact).astype(int)
        most_left = np.argsort(steps - exact, kind="stable")  # the largest remainders get what rounding down left
        steps[most_left[: passes.sum() - steps.sum()]] += 1
        return np.maximum(steps, 1)

    def shares(self, batch_size: int) -> dict[str, float]:
        """By task, its share of the steps."""
        steps = self.steps_of_epoch(batch_size)
        return dict(zip(self.names, (steps / steps.sum()).tolist(), strict=True))

    @property
    def loss_weights(self) -> dict[str, float]:
        """By task, what its loss is multiplied by."""
        return dict(zip(self.names, self.weights, strict=True))


class MixtureSampler:
    """Lists of indices, one per step, each of one task; has the interface of BatchSampler.

    The examples of a task come in the order in which a BatchSampler over that task alone, with the same seed and with
    as many steps, gives them: a run of that task alone sees the same batches.

    Args:
        mixture: the tasks, whose examples are numbered one task after another.
        batch_size: examples a step.
        seed: of the order of tasks and of examples.
        epochs, steps: the length of training; one of them is given.
    """

    repeats = 1

    def __init__(
        self, mixture: Mixture, batch_size: int, seed: int, epochs: float | None = None, steps: int | None = None
    ) -> None:
        self.mixture, self.batch_size, self.seed = mixture, batch_size, seed
        self.quotas = mixture.steps_of_epoch(batch_size)
        self.steps_per_epoch = int(self.quotas.sum())
        self.steps = steps if steps is not None else max(1, round((epochs or 0) * self.steps_per_epoch))
        totals = self.steps_by_task(self.steps)
        self.samplers = [
            BatchSampler(size, batch_size, seed, steps=max(1, total))
            for size, total in zip(mixture.sizes, totals, strict=True)
        ]
        self.starts = np.cumsum([0, *mixture.sizes[:-1]])
        self.step = 0

    def __len__(self) -> int:
        """Steps from the beginning to the end."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """The steps that are left. The state already counts a step when it is handed out."""
        for sampler, total in zip(self.samplers, self.steps_by_task(self.steps), strict=True):
            sampler.steps = total  # the length may have been set again since
        streams = [iter(sampler) for sampler in self.samplers]
        while self.step < self.steps:
            epoch, place = divmod(self.step, self.steps_per_epoch)
            task = self._order(epoch)[place]
            self.step += 1
            yield [int(self.starts[task]) + index for index in next(streams[task])]

    @property
    def epoch(self) -> float:
        """Epochs done, as a fraction."""
        return self.step / self.steps_per_epoch

    def steps_by_task(self, steps: int) -> list[int]:
        """How many of the first ``steps`` steps are of each task."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        begun = np.bincount(self._order(epochs)[:rest], minlength=len(self.quotas))
        return [int(count) for count in epochs * self.quotas + begun]

    def visits(self) -> np.ndarray:
        """(count,): how often each index comes, from the beginning to the end."""
        totals = self.steps_by_task(self.steps)
        parts = zip(self.samplers, totals, strict=True)
        return np.concatenate([sampler.visits() * (total > 0) for sampler, total in parts])

    def _order(self, epoch: int) -> np.ndarray:
        """The task of each step of an epoch."""
        random = np.random.default_rng((self.seed, epoch, ORDER))
        return random.permutation(np.repeat(np.arange(len(self.quotas)), self.quotas))

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as small JSON."""
        return {
            "step": self.step,
            "sizes": list(self.mixture.sizes),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is the state of other data, another batch size or another seed.
        """
        for name, own in (("sizes", list(self.mixture.sizes)), ("batch_size", self.batch_size), ("seed", self.seed)):
            if state.get(name) != own:
                fault = f"the checkpoint was made with {name} {state.get(name)}, not {own}"
                raise InputError(fault, name, "resume with the same data and settings, or begin a new run")
        self.step = int(state["step"])
        for sampler, step in zip(self.samplers, self.steps_by_task(self.step), strict=True):
            sampler.step = step


def sampler_of(
    count: int,
    batch_size: int,
    seed: int,
    epochs: float | None,
    steps: int | None,
    mixture: Mixture | None = None,
) -> BatchSampler | MixtureSampler:
    """The steps of a run, each with the indices of its examples.

    Args:
        count: examples there are.
        batch_size, seed, epochs, steps: as of both samplers; ``steps`` takes precedence.
        mixture: the tasks that the examples are of; None: they are of one.
    """
    epochs = epochs if steps is None else None
    if mixture is not None:
        return MixtureSampler(mixture, batch_size, seed, epochs, steps)
    return BatchSampler(count, batch_size, seed, epochs, steps)
