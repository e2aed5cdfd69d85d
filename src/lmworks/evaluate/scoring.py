"""How likely texts are to a network: nats, tokens, bits per byte; likelihoods of choices; loss on held-out examples.

Everything is one thing: the nats of the tokens of an example that carry loss. Documents are packed into flat rows
without padding, hidden states are made once, and the head runs only where a token is scored, a few hundred places at a
time: tokens x vocabulary is never held. Packed, batched and one by one give the same figures.

What of a text is scored: with a tokenizer that opens texts (BOS), every token. Without one the first token has nothing
that it could be predicted from: it is not scored, and its bytes are not counted either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.data.batch import Batch, Example
from lmworks.data.packing import pack
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

ROW_TOKENS = 1024  # tokens that pass through the network at a time; matrix products are at full speed well below it
HEAD_PLACES = 256  # places whose logits exist at a time: 50 MB in float32 at 49,152 words


@dataclass(frozen=True)
class Score:
    """How likely one text is.

    Attributes:
        nats: -log p of its scored tokens, summed; natural logarithm.
        tokens: how many were scored.
        bytes: UTF-8 bytes of what was scored.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Comparable across tokenizers; NaN where nothing could be scored."""
        return bits_per_byte(self.nats, self.bytes)

    @property
    def nats_per_token(self) -> float:
        """The loss that training reports; NaN where nothing could be scored."""
        return self.nats / self.tokens if self.tokens else math.nan


class Losses(NamedTuple):
    """The nats of several examples, row by row.

    Attributes:
        nats: (n,) float64, -log p of each example's tokens that carry loss.
        tokens: (n,) int64, how many those are.
    """

    nats: np.ndarray
    tokens: np.ndarray


def row_losses(network: Transformer, examples: Sequence[Example], row_tokens: int = ROW_TOKENS) -> Losses:
    """What each example costs a network, for instance rows that it was not trained on.

    Args:
        network: a decoder; its mode (training or not) is the same afterwards, dropout is off meanwhile.
        examples: documents as tokens; ``loss`` says which tokens count.
        row_tokens: tokens that pass through at a time; a longer example passes alone.
    """
    tokens = np.array([int(example.loss[1:].sum()) for example in examples], dtype=np.int64)
    return Losses(_nats(network, examples, row_tokens), tokens)


def summary(losses: Losses, sizes: Sequence[int]) -> dict[str, Any]:
    """Loss in nats a token and bits a byte over all rows, and each row's part in them, as the journal keeps it.

    Args:
        losses: of the rows.
        sizes: bytes of each row's scored text (Example.bytes).
    """
    nats, tokens = float(losses.nats.sum()), int(losses.tokens.sum())
    return {
        "loss": nats / tokens if tokens else math.nan,
        "bits_per_byte": bits_per_byte(nats, sum(sizes)),
        "tokens": tokens,
        "row_nats": losses.nats.tolist(),
        "row_tokens": losses.tokens.tolist(),
        "row_bytes": [int(size) for size in sizes],
    }


def bits_per_byte(nats: float, size: int) -> float:
    """Nats of a text of so many bytes as bits a byte: comparable across tokenizers; NaN where nothing was scored."""
    return nats / math.log(2) / size if size else math.nan


def score_texts(
    network: Transformer, tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int = ROW_TOKENS
) -> list[Score]:
    """How likely each text is, in the order given.

    A text longer than the model's context is scored in windows, each token once; after the first window every token
    sees at least half a context before it.
    """
    scored = [_windows(ids, begins, text, tokenizer, network) for text, (ids, begins) in _spans(tokenizer, texts)]
    nats = iter(_nats(network, [window for windows, _, _ in scored for window in windows], row_tokens))
    return [Score(sum(float(next(nats)) for _ in windows), count, size) for windows, count, size in scored]


def choice_likelihoods(
    network: Transformer,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    row_tokens: int = ROW_TOKENS,
) -> list[np.ndarray]:
    """log p of each choice after its prompt; the largest is the model's answer.

    Args:
        network: a decoder.
        prompts: token ids of each prompt.
        choices: for each prompt the token ids of its choices, each with the end that a whole answer has.
        row_tokens: tokens that pass through at a time.

    Returns:
        For each prompt an array with one log-likelihood (nats, at most 0) a choice, not divided by its length.

    Raises:
        InputError: a prompt or a choice has no token, or both together are longer than the context.
    """
    examples = []
    for number, (prompt, answers) in enumerate(zip(prompts, choices, strict=True), 1):
        for answer in answers:
            length = len(prompt) + len(answer)
            if not prompt or not answer:
                raise InputError("a prompt or a choice without tokens has no likelihood", f"prompt {number}")
            if length > network.config.max_position_embeddings:
                fault = f"{length} tokens with its choice; the context is {network.config.max_position_embeddings}"
                raise InputError(fault, f"prompt {number}", "shorten the prompt")
            ids = np.array([*prompt, *answer], dtype=np.int32)
            examples.append(Example(ids, np.arange(length) >= len(prompt)))
    nats = iter(_nats(network, examples, row_tokens))
    return [np.array([-next(nats) for _ in answers]) for answers in choices]


def _spans(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[str, tuple[list[int], list[int]]]]:
    return list(zip(texts, tokenizer.spans(texts), strict=True))


def _windows(
    ids: list[int], begins: list[int], text: str, tokenizer: Tokenizer, network: Transformer
) -> tuple[list[Example], int, int]:
    """A text as examples of at most one context, how many of its tokens they score, and those tokens' bytes."""
    whole = np.array([*tokenizer.opening, *ids], dtype=np.int32)
    first = max(len(tokenizer.opening), 1)
    if len(whole) <= first:
        return [], 0, 0
    context = network.config.max_position_embeddings
    windows, done = [], first
    while done < len(whole):
        begin = 0 if done == first else done - context // 2
        end = min(begin + context, len(whole))
        windows.append(Example(whole[begin:end], np.arange(begin, end) >= done))
        done = end
    unscored = begins[first - len(tokenizer.opening)]  # the character at which scoring begins
    return windows, len(whole) - first, len(text[unscored:].encode("utf-8", errors="replace"))


@torch.no_grad()
def _nats(network: Transformer, examples: Sequence[Example], row_tokens: int) -> np.ndarray:
    """(n,) float64: -log p of the tokens of each example that carry loss."""
    found = np.zeros(len(examples))
    training = network.training
    network.eval()
    try:
        for group in _groups(examples, row_tokens):
            rows = [examples[index] for index in group]
            (batch,) = pack(rows, sum(len(example) for example in rows))
            found[group] = _row_nats(network, batch, len(group))
    finally:
        network.train(training)
    return found


def _groups(examples: Sequence[Example], row_tokens: int) -> list[list[int]]:
    """Examples with something to score, neighbours in length together, as many as a row holds."""
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(examples)), key=lambda place: -len(examples[place])):
        if not examples[index].loss[1:].any():
            continue
        size = len(examples[index])
        if size > room or not groups:
            groups.append([])
            room = row_tokens
        groups[-1].append(index)
        room -= size
    return groups


def _row_nats(network: Transformer, batch: Batch, documents: int) -> np.ndarray:
    """(documents,) float64 of one packed row."""
    device = network.embed_tokens.weight.device
    places = batch.weights.flatten().nonzero().squeeze(1)
    targets = batch.targets.flatten()[places].to(device)
    hidden = network.hidden_states(
        batch.ids.to(device), positions=batch.positions.to(device), segments=batch.segments.to(device)
    )
    hidden = hidden.flatten(0, 1).index_select(0, places.to(device))
    nats = torch.cat(
        [
            functional.cross_entropy(network.head(part).float(), targets[begin : begin + len(part)], reduction="none")
            for begin, part in ((n, hidden[n : n + HEAD_PLACES]) for n in range(0, len(hidden), HEAD_PLACES))
        ]
    )
    of_document = batch.segments.flatten()[places].numpy() - 1
    return np.bincount(of_document, weights=nats.cpu().double().numpy(), minlength=documents)
