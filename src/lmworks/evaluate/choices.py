"""How likely each of some choices is after a prompt, by a decoder.

The beginning that all prompts share is read once, and each prompt once for all of its choices, whose own tokens follow
from its cache. Where a network's cache depends on what follows, each prompt is read with each choice, in flat rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from lmworks.data.batch import Example
from lmworks.evaluate import progress
from lmworks.evaluate.scoring import row_losses, token_losses
from lmworks.evaluate.text_windows import ChoiceScores, Ids, check_choices
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.prefixes import (
    cached_tokens,
    groups_after_prefix,
    keeps_keys,
    pad_rows,
    read_prefix,
)
from lmworks.model.cache import Cache
from lmworks.model.chunks import EVALUATED_TOKENS
from lmworks.model.transformer import Transformer


@torch.no_grad()
def choice_scores(
    network: Transformer,
    prompts: Sequence[Ids],
    choices: Sequence[Sequence[Ids]],
    row_tokens: int = EVALUATED_TOKENS,
) -> list[ChoiceScores]:
    """How likely each choice is after its prompt; the likeliest is the model's answer.

    Args:
        network: a decoder.
        prompts: token ids of each prompt.
        choices: for each prompt the token ids of its choices, each with the end that a whole answer has.
        row_tokens: tokens that pass through at a time.

    Raises:
        InputError: a prompt or a choice has no token, or what is read of both is longer than the context.
    """
    check_choices(prompts, choices, network.max_text_tokens)
    if not keeps_keys(network):
        return _flat_scores(network, prompts, choices, row_tokens)
    training = network.training
    network.eval()
    try:
        return _cached_scores(network, prompts, choices, row_tokens)
    finally:
        network.train(training)


def choice_likelihoods(
    network: Transformer,
    prompts: Sequence[Ids],
    choices: Sequence[Sequence[Ids]],
    row_tokens: int = EVALUATED_TOKENS,
) -> list[np.ndarray]:
    """For each prompt an array with log p of each choice (nats, at most 0); arguments and errors as of
    :func:`choice_scores`."""
    return [scores.log_probabilities for scores in choice_scores(network, prompts, choices, row_tokens)]


def _flat_scores(
    network: Transformer, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]], row_tokens: int
) -> list[ChoiceScores]:
    """Each prompt with each of its choices as a document of its own."""
    examples = []
    for prompt, answers in zip(prompts, choices, strict=True):
        for answer in answers:
            ids = np.array([*prompt, *answer], dtype=np.int32)
            examples.append(Example(ids, np.arange(len(ids)) >= len(prompt)))
    losses = row_losses(network, examples, row_tokens).language
    pairs = zip(-losses.nats, losses.correct == losses.targets, strict=True)
    each = [list(islice(pairs, len(answers))) for answers in choices]
    return [ChoiceScores(*map(np.array, zip(*own, strict=True))) for own in each]


def _cached_scores(
    network: Transformer, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]], row_tokens: int
) -> list[ChoiceScores]:
    """The same from caches: of what all prompts share, and of each prompt."""
    begin = shared_length(prompts)
    prefix = read_prefix(network, prompts[0][:begin]) if begin else None
    scores = [ChoiceScores.of(len(answers)) for answers in choices]
    lengths = [len(prompt) + max(map(len, answers)) for prompt, answers in zip(prompts, choices, strict=True)]
    counts = list(map(len, choices))
    for group in groups_after_prefix(network.config, lengths, begin, row_tokens, counts):
        cache, last = _read_prompts(network, prefix, [prompts[index][begin:] for index in group], begin)
        firsts, likeliest = last.float().log_softmax(-1), last.argmax(-1).tolist()
        flat = [(row, place) for row, index in enumerate(group) for place in range(len(choices[index]))]
        at_once = max(1, cached_tokens(network.config) // max(lengths[index] for index in group))
        for start in range(0, len(flat), at_once):
            part = flat[start : start + at_once]
            answers = [choices[group[row]][place] for row, place in part]
            rows = torch.tensor([row for row, _ in part], device=network.device)
            first = firsts[rows, torch.tensor([answer[0] for answer in answers], device=network.device)]
            begins = [len(prompts[group[row]]) for row, _ in part]
            following, is_greedy = _following(network, cache, rows, begins, answers)
            sums = (first.double().cpu() + following).tolist()
            for (row, place), answer, value, greedy in zip(part, answers, sums, is_greedy.tolist(), strict=True):
                scores[group[row]].add(place, value, greedy and likeliest[row] == answer[0])
            progress.report(len(part))
    return scores


def _read_prompts(
    network: Transformer, prefix: Cache | None, rows: Sequence[Ids], begin: int
) -> tuple[Cache, torch.Tensor]:
    """The cache of prompts, and the logits (B, V) after the last token of each.

    Args:
        network: in evaluation mode.
        prefix: the cache of what stands before all of them; None: nothing does.
        rows: ids of the prompts from there on, one or more each; padded on the right.
        begin: tokens before them.
    """
    device, width = network.device, max(map(len, rows))
    if prefix is None:
        cache = Cache(network.config, len(rows), width, network.dtype, device)
    else:
        cache = prefix.of_rows(torch.zeros(len(rows), dtype=torch.int64, device=device), width)
    ids, positions, segments = (part.to(device) for part in pad_rows(rows, [begin] * len(rows)))
    last = torch.arange(len(rows)) * width + torch.tensor([len(row) - 1 for row in rows])
    given = None if bool(segments.all()) else segments
    output = network(ids, positions=positions, segments=given, cache=cache, logits_to_keep=last.to(device))
    return cache, output.logits


def _following(
    network: Transformer, cache: Cache, rows: torch.Tensor, begins: Sequence[int], answers: Sequence[Ids]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all tokens but the first of each choice, which follows its prompt in the cache: (N,) log p, float64; and (N,)
    bool, whether each of them is the likeliest.

    Args:
        network: in evaluation mode.
        cache: of the prompts.
        rows: (N,) the prompt of each choice.
        begins: tokens of that prompt.
        answers: ids of the N choices.
    """
    sums, is_greedy = torch.zeros(len(answers), dtype=torch.float64), torch.ones(len(answers), dtype=torch.bool)
    if max(map(len, answers)) == 1:
        return sums, is_greedy
    ids, positions, segments = pad_rows([answer[:-1] for answer in answers], begins)
    width, device = ids.shape[1], network.device
    given = None if bool(segments.all()) else segments.to(device)
    states = network.hidden_states(
        ids.to(device), positions=positions.to(device), segments=given, cache=cache.of_rows(rows, width)
    ).flatten(0, 1)
    places = segments.flatten().nonzero().squeeze(1)
    targets = torch.tensor([token for answer in answers for token in answer[1:]])
    nats, correct = token_losses(network, states.index_select(0, places.to(device)), targets)
    is_greedy[(places // width)[~correct]] = False
    return sums.index_add_(0, places // width, -nats.double()), is_greedy
