"""The likeliest of some labels after a prompt, by a decoder: classification without a head. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmworks.data.prompts import Prompt
from lmworks.evaluate.prediction import softmax
from lmworks.evaluate.text_windows import Ids
from lmworks.generate.stepper import Usage
from lmworks.generate.text import Reply

ContentFree = tuple[tuple[int, ...], ...]
"""Ids of a prompt about texts that say nothing."""
Likelihoods = Callable[[Sequence[Ids], Sequence[Sequence[Ids]]], list[np.ndarray]]
"""Ids of prompts, and for each those of its choices -> for each an array of log p of each choice."""


def choose_labels(likelihoods_of: Likelihoods, prompts: Sequence[Prompt]) -> list[Reply]:
    """For each prompt the label that is likeliest after it.

    Where prompts have content-free twins, each likelihood is divided by the label's mean probability after those
    (contextual calibration: Zhao et al. 2021, section 4): a label that the prompt makes likely whatever the text says
    counts less.

    Args:
        likelihoods_of: of a decoder: evaluate/choices by a network, evaluate/native_likelihoods by the native engine.
        prompts: with their labels and choices.

    Returns:
        Replies whose ``label_probabilities`` add up to 1 over the labels; their tokens are those of the label.

    Raises:
        InputError: a prompt with its longest label is longer than the context.
    """
    replies: dict[int, Reply] = {}
    for content_free, members in _by_content_free(prompts).items():
        asked = [prompts[index] for index in members]
        ids = [*(prompt.ids for prompt in asked), *content_free]
        choices = [*(prompt.choices for prompt in asked), *([asked[0].choices] * len(content_free))]
        likelihoods = likelihoods_of(ids, choices)
        bias = _bias(likelihoods[len(asked) :])
        for index, prompt, row in zip(members, asked, likelihoods, strict=False):
            replies[index] = _reply(prompt, row - bias)
    return [replies[index] for index in range(len(prompts))]


def count_choices(prompts: Sequence[Prompt]) -> int:
    """How many likelihoods :func:`choose_labels` computes."""
    free = sum(
        len(content_free) * len(prompts[members[0]].choices)
        for content_free, members in _by_content_free(prompts).items()
    )
    return free + sum(len(prompt.choices) for prompt in prompts)


def _by_content_free(prompts: Sequence[Prompt]) -> dict[ContentFree, list[int]]:
    """Numbers of prompts by their content-free twins, for which likelihoods are computed once."""
    groups: dict[ContentFree, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(tuple(map(tuple, prompt.content_free)), []).append(index)
    return groups


def _bias(likelihoods: Sequence[np.ndarray]) -> np.ndarray | float:
    """The logarithm of the labels' mean probabilities after content-free prompts; 0 without any."""
    return np.log(np.mean([softmax(row) for row in likelihoods], axis=0)) if likelihoods else 0.0


def _reply(prompt: Prompt, scores: np.ndarray) -> Reply:
    best = int(scores.argmax())
    probabilities = dict(zip(prompt.labels, softmax(scores).tolist(), strict=True))
    ids = prompt.choices[best]
    usage = Usage(len(prompt.ids), len(ids))
    return Reply(prompt.labels[best], ids, "end", usage, label_probabilities=probabilities)
