"""Blind tests with answers, and people who rate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import BlindTest
from lmworks.ratings.blind_test_settings import BlindTestSettings


def make_test(folder: Path, models: Sequence[str] = ("base", "tuned"), prompts: int = 6, **settings: Any) -> BlindTest:
    """A test whose answers are there: each names its model and prompt."""
    test = BlindTest.create(
        folder,
        BlindTestSettings(models=list(models), **settings),
        [[{"role": "user", "content": f"Question {number}?"}] for number in range(prompts)],
    )
    for prompt in range(prompts):
        for model in models:
            test.answers.add(prompt, model, Answer(f"{model} answers {prompt}", "stop"))
    return test


def rate_all(test: BlindTest, rater: str, best_of: Callable[[int, list[str]], Sequence[str] | None]) -> int:
    """Rate what is left as a rater would, by places in the order shown. ``best_of`` gives models; None skips."""
    count = 0
    while (prompt := test.next_prompt(rater)) is not None:
        order = test.order(prompt, rater)
        best = best_of(prompt, order)
        test.rate(rater, prompt, None if best is None else [order.index(model) for model in best])
        count += 1
    return count


def by_strength(strengths: Mapping[str, float], seed: int, ties: float = 0.0) -> Callable[[int, list[str]], list[str]]:
    """A rater who chooses by the models' true strengths."""
    random = np.random.default_rng(seed)

    def best_of(prompt: int, order: list[str]) -> list[str]:
        if random.random() < ties:
            return order
        weights = np.exp([strengths[model] for model in order])
        return [order[random.choice(len(order), p=weights / weights.sum())]]

    return best_of
