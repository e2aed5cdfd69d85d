"""The order of training: shuffled epochs, cut into batches of indices, resumable at each. Knows no data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmworks.base.errors import InputError


class BatchSampler:
    """Lists of indices, one per step, as PyTorch's BatchSampler; its place can be saved and restored.

    Each epoch is a permutation that follows from (seed, epoch) alone, so the number of the step is the whole state. The
    last step of an epoch may be smaller; no index is left out, none comes twice. But where the number of steps is given
    and a batch is larger than the data, every batch is full: each example comes once before any comes again.

    Args:
        count: examples there are.
        batch_size: examples a step.
        seed: of the permutations.
        epochs: how often each example comes; a part of an epoch (0.5) ends it early.
        steps: how many steps there are, instead of epochs.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int = 0, epochs: float | None = None, steps: int | None = None
    ) -> None:
        if count < 1:
            raise InputError("there is nothing to train on", hint="give data with at least one usable row")
        if batch_size < 1:
            raise InputError(f"a step cannot have {batch_size} examples", "batch_size", "give at least 1")
        if (epochs is None) == (steps is None):
            raise InputError("give epochs or steps, and not both", "epochs", "leave one of them out")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = -(-count // batch_size)
        self.steps = steps if steps is not None else max(1, round((epochs or 0) * self.steps_per_epoch))
        self.repeats = -(-batch_size // count) if steps is not None else 1
        self.step = 0
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Steps from the beginning to the end."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """The steps that are left. The state already counts a step when it is handed out."""
        while self.step < self.steps:
            epoch, place = divmod(self.step, self.steps_per_epoch)
            order = self._permutation(epoch)
            self.step += 1
            yield order[place * self.batch_size : (place + 1) * self.batch_size].tolist()

    @property
    def epoch(self) -> float:
        """Epochs done, as a fraction."""
        return self.step * (self.batch_size / self.count if self.repeats > 1 else 1 / self.steps_per_epoch)

    def visits(self) -> np.ndarray:
        """(count,): how often each index comes, from the beginning to the end."""
        if self.repeats > 1:
            orders = (self._permutation(step)[: self.batch_size] for step in range(self.steps))
            return sum((np.bincount(order, minlength=self.count) for order in orders), np.zeros(self.count, int))
        epochs, rest = divmod(self.steps, self.steps_per_epoch)
        visits = np.full(self.count, epochs)
        visits[self._permutation(epochs)[: rest * self.batch_size]] += 1
        return visits

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._order = (epoch, np.concatenate([random.permutation(self.count) for _ in range(self.repeats)]))
        return self._order[1]

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as small JSON."""
        return {"step": self.step, "count": self.count, "batch_size": self.batch_size, "seed": self.seed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: it is the state of other data, another batch size or another seed.
        """
        for name in ("count", "batch_size", "seed"):
            if state[name] != getattr(self, name):
                raise InputError(
                    f"the checkpoint was made with {name} {state[name]}, not {getattr(self, name)}",
                    name,
                    "resume with the same data and settings, or begin a new run",
                )
        self.step = int(state["step"])
