"""Prefill and steps over a batch: ids in, ids out. Knows nothing of texts and tokenizers.

Prompts of unequal length are padded on the left and the padding is never seen, so a batch gives what each prompt
would give alone. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from lmworks.base.errors import InputError
from lmworks.generate.sampling import SamplingSettings, pick
from lmworks.model.cache import Cache
from lmworks.model.transformer import Transformer


def decode(
    network: Transformer, prompts: Sequence[Sequence[int]], settings: SamplingSettings, end_ids: set[int]
) -> Generator[list[int | None], set[int] | None, None]:
    """Yield, step by step, one new id for each prompt; None for those that have ended.

    The id that ends a row is yielded too. A row also ends after ``max_tokens`` and at the end of the context.
    A consumer may end rows early by sending a set of row numbers.

    Raises:
        InputError: a prompt is empty or leaves no room in the context.
    """
    _check(network, prompts)
    generators = [torch.Generator().manual_seed(settings.seed) for _ in prompts]
    texts = [list(prompt) for prompt in prompts]
    limits = [min(settings.max_tokens, network.config.max_position_embeddings - len(prompt)) for prompt in prompts]
    alive = list(range(len(prompts)))
    with torch.inference_mode():
        cache, logits = _prefill(network, prompts, max(limits))
        while alive:
            chosen = pick(logits, settings, [generators[row] for row in alive], [texts[row] for row in alive])
            step: list[int | None] = [None] * len(prompts)
            for row, token in zip(alive, chosen, strict=True):
                step[row] = token
                texts[row].append(token)
                limits[row] -= 1
            stopped = yield step
            ended = stopped or set()
            keep = [
                place
                for place, row in enumerate(alive)
                if chosen[place] not in end_ids and limits[row] > 0 and row not in ended
            ]
            if len(keep) < len(alive):
                alive = [alive[place] for place in keep]
                if not alive:
                    return
                cache.keep_rows(torch.tensor(keep))
            logits = _step(network, cache, [texts[row][-1] for row in alive], [len(texts[row]) - 1 for row in alive])


def _check(network: Transformer, prompts: Sequence[Sequence[int]]) -> None:
    longest = network.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError("the prompt is empty", f"prompt {number + 1}", "give at least one token to continue from")
        if len(prompt) >= longest:
            raise InputError(
                f"the prompt has {len(prompt)} tokens, the model's context holds {longest}",
                f"prompt {number + 1}",
                f"shorten it to fewer than {longest} tokens",
            )


def _prefill(network: Transformer, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[Cache, torch.Tensor]:
    """Run all prompts at once; the head is computed for each one's last token alone: logits (B, V)."""
    weight = network.embed_tokens.weight
    width = max(map(len, prompts))
    cache = Cache(network.config, len(prompts), width + min(new_tokens, 256), weight.dtype, weight.device)
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    segments = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        segments[row, width - len(prompt) :] = 1
        positions[row, width - len(prompt) :] = torch.arange(len(prompt))
    padded = bool((segments == 0).any())
    ids, segments, positions = (part.to(weight.device) for part in (ids, segments, positions))
    last = torch.arange(1, len(prompts) + 1, device=weight.device) * width - 1
    output = network(ids, positions=positions, segments=segments if padded else None, cache=cache, only=last)
    return cache, output.logits


def _step(network: Transformer, cache: Cache, tokens: list[int], places: list[int]) -> torch.Tensor:
    device = network.embed_tokens.weight.device
    ids = torch.tensor(tokens, device=device)[:, None]
    output = network(ids, positions=torch.tensor(places, device=device)[:, None], cache=cache)
    return output.logits[:, -1]
