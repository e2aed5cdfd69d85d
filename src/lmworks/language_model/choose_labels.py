"""The likeliest of some labels after a prompt, by a decoder: classification without a head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.data.prompts import Prompt
from lmworks.evaluate.prediction import softmax
from lmworks.evaluate.scoring import choice_likelihoods
from lmworks.generate.stepper import Usage
from lmworks.generate.text import Reply
from lmworks.model.transformer import Transformer


def choose_labels(network: Transformer, prompts: Sequence[Prompt]) -> list[Reply]:
    """For each prompt the label that is likeliest after it.

    Args:
        network: a decoder.
        prompts: with their labels and choices.

    Returns:
        Replies whose ``label_probabilities`` add up to 1 over the labels; their tokens are those of the label.

    Raises:
        InputError: a prompt with its longest label is longer than the context.
    """
    likelihoods = choice_likelihoods(
        network, [prompt.ids for prompt in prompts], [prompt.choices for prompt in prompts]
    )
    return [_reply(prompt, row) for prompt, row in zip(prompts, likelihoods, strict=True)]


def _reply(prompt: Prompt, log_likelihoods: np.ndarray) -> Reply:
    best = int(log_likelihoods.argmax())
    probabilities = dict(zip(prompt.labels, softmax(log_likelihoods).tolist(), strict=True))
    ids = prompt.choices[best]
    usage = Usage(len(prompt.ids), len(ids))
    return Reply(prompt.labels[best], ids, "end", usage, label_probabilities=probabilities)
