"""How likely texts are to a network: nats, tokens, bits per byte; likelihoods of choices; loss on held-out examples.

Everything is one thing: the nats of the tokens of an example that carry loss, whatever the objective: a decoder's next
tokens, an encoder's hidden words, a decoder's with a source beside it. Documents are laid into rows without padding,
hidden states are made once, and the head runs only where a token is scored, a few hundred places at a time: tokens x
vocabulary is never held. Packed, batched and one by one give the same figures.

What of a text is scored: with a tokenizer that opens texts (BOS), every token. Without one the first token has nothing
that it could be predicted from: it is not scored, and its bytes are not counted either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.data.batch import Batch, Example, Source
from lmworks.data.packing import pack, pad
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

ROW_TOKENS = 1024  # tokens that pass through the network at a time; matrix products are at full speed well below it
HEAD_PLACES = 256  # places whose logits exist at a time: 50 MB in float32 at 49,152 words
DRAWING_SEED = 20_000  # of what an objective draws for a measurement: the same each time, no seed of training

Draw = Callable[[Example, np.random.Generator], Example]


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
        correct: (n,) int64, at how many of them the likeliest token is the right one.
        pair_nats: (n,) float64, -log p of the right answer to whether the second sentence follows; NaN where an example
            asks no such question. None where none does.
    """

    nats: np.ndarray
    tokens: np.ndarray
    correct: np.ndarray
    pair_nats: np.ndarray | None = None


def row_losses(
    network: Transformer, examples: Sequence[Example], row_tokens: int = ROW_TOKENS, draw: Draw | None = None
) -> Losses:
    """What each example costs a network, for instance rows that it was not trained on.

    Args:
        network: of any kind; its mode (training or not) is the same afterwards, dropout is off meanwhile.
        examples: documents as tokens; ``loss`` says which tokens count.
        row_tokens: tokens that pass through at a time; a longer example passes alone.
        draw: the random part of the examples (data/drawing); each row draws the same every time it is measured.
    """
    if draw is not None:
        examples = [draw(one, np.random.default_rng((DRAWING_SEED, row))) for row, one in enumerate(examples)]
    found = _measured(network, examples, row_tokens)
    tokens = np.array([example.learned for example in examples], dtype=np.int64)
    paired = any(example.pair is not None for example in examples)
    return Losses(found.nats, tokens, found.correct, found.pairs if paired else None)


def summary(losses: Losses, sizes: Sequence[int]) -> dict[str, Any]:
    """Figures over all rows, and each row's part in them, as the journal keeps it.

    ``loss`` is nats per token, ``perplexity`` its exponential, ``accuracy`` the share of tokens that were likeliest;
    ``bits_per_byte`` only where the rows' bytes were counted; ``pair_loss`` and ``pair_accuracy`` of next sentences
    only where they were asked (an answer is right when it got more than half of the probability).

    Args:
        losses: of the rows.
        sizes: bytes of each row's scored text (Example.bytes); 0: not counted.
    """
    nats, tokens, size = float(losses.nats.sum()), int(losses.tokens.sum()), int(sum(sizes))
    loss = nats / tokens if tokens else math.nan
    figures: dict[str, Any] = {"loss": loss}
    if size:
        figures["bits_per_byte"] = bits_per_byte(nats, size)
    figures["perplexity"] = perplexity(loss)
    figures["accuracy"] = int(losses.correct.sum()) / tokens if tokens else math.nan
    if losses.pair_nats is not None:
        asked = losses.pair_nats[~np.isnan(losses.pair_nats)]
        figures |= {"pair_loss": float(asked.mean()), "pair_accuracy": float((asked < math.log(2)).mean())}
    return {
        **figures,
        "tokens": tokens,
        "row_nats": losses.nats.tolist(),
        "row_tokens": losses.tokens.tolist(),
        "row_bytes": [int(size) for size in sizes],
    }


def perplexity(loss: float) -> float:
    """exp of the mean nats per token, which compares only under one tokenizer; infinite where no number holds it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, size: int) -> float:
    """Nats of a text of so many bytes as bits per byte: comparable across tokenizers; NaN where nothing was scored."""
    return nats / math.log(2) / size if size else math.nan


def score_texts(
    network: Transformer, tokenizer: Tokenizer, texts: Sequence[str], row_tokens: int = ROW_TOKENS
) -> list[Score]:
    """How likely each text is, in the order given.

    A text longer than the model's context is scored in windows, each token once; after the first window every token
    sees at least half a context before it.
    """
    scored = [_windows(ids, begins, text, tokenizer, network) for text, (ids, begins) in _spans(tokenizer, texts)]
    nats = iter(_measured(network, [window for windows, _, _ in scored for window in windows], row_tokens).nats)
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
    nats = iter(_measured(network, examples, row_tokens).nats)
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


def hidden_states(network: Transformer, batch: Batch) -> torch.Tensor:
    """(B, T, E) of a batch: through the encoder first where the batch has a source."""
    segments = None if _alone(batch.segments) else batch.segments
    memory = seen = None
    if batch.source is not None:
        seen = None if _alone(batch.source.segments) else batch.source.segments
        memory = network.encode(batch.source.ids, seen, batch.source.positions)
    return network.hidden_states(
        batch.ids,
        positions=batch.positions,
        segments=segments,
        types=batch.types,
        memory=memory,
        memory_segments=seen,
    )


def _alone(segments: torch.Tensor) -> bool:
    """Whether each row is one document and nothing else, so that nothing has to be kept apart."""
    return bool((segments == 1).all())


def lay(examples: Sequence[Example]) -> Batch:
    """All documents as one batch without padding: a document a row where all are of one length, else one flat row."""
    first = examples[0]
    shape = (first.width, first.size)
    if all((example.width, example.size) == shape for example in examples):
        return pad(examples, 0)
    (batch,) = pack(examples, sum(example.size for example in examples))
    return batch


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device."""
    if device.type == "cpu":
        return batch
    source = batch.source
    if source is not None:
        source = Source(*(part.to(device, non_blocking=True) for part in vars(source).values()))
    tensors = {name: part for name, part in vars(batch).items() if isinstance(part, torch.Tensor)}
    there: dict[str, Any] = {name: part.to(device, non_blocking=True) for name, part in tensors.items()}
    return replace(batch, source=source, **there)


class _Found(NamedTuple):
    """By document: -log p of its tokens, those that were the likeliest, -log p of its pair label."""

    nats: np.ndarray
    correct: np.ndarray
    pairs: np.ndarray


@torch.no_grad()
def _measured(network: Transformer, examples: Sequence[Example], row_tokens: int) -> _Found:
    """(n,) each, of the tokens of each example that carry loss."""
    count = len(examples)
    found = _Found(np.zeros(count), np.zeros(count, dtype=np.int64), np.full(count, np.nan))
    training = network.training
    network.eval()
    try:
        for group in _groups(examples, row_tokens):
            part = _measured_batch(network, lay([examples[index] for index in group]), len(group))
            for whole, these in zip(found, part, strict=True):
                whole[group] = these
    finally:
        network.train(training)
    return found


def _groups(examples: Sequence[Example], row_tokens: int) -> list[list[int]]:
    """Examples with something to score, neighbours in length together, as many as a row holds."""
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(examples)), key=lambda place: (-examples[place].size, -len(examples[place]))):
        if not examples[index].learned and examples[index].pair is None:
            continue
        size = examples[index].size
        if size > room or not groups:
            groups.append([])
            room = row_tokens
        groups[-1].append(index)
        room -= size
    return groups


def _measured_batch(network: Transformer, batch: Batch, documents: int) -> _Found:
    """(documents,) each, of one batch."""
    device = network.embed_tokens.weight.device
    places = batch.weights.flatten().nonzero().squeeze(1)
    targets = batch.targets.flatten()[places].to(device)
    hidden = hidden_states(network, moved(batch, device)).flatten(0, 1)
    picked = hidden.index_select(0, places.to(device))
    nats, correct = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    for begin in range(0, len(picked), HEAD_PLACES):
        logits = network.head(picked[begin : begin + HEAD_PLACES]).float()
        wanted = targets[begin : begin + HEAD_PLACES]
        nats.append(functional.cross_entropy(logits, wanted, reduction="none").cpu())
        correct.append((logits.argmax(1) == wanted).cpu())
    number = places // batch.ids.shape[1] if len(batch.ids) > 1 else batch.segments.flatten()[places] - 1
    of_document = number.numpy()
    sums = np.bincount(of_document, weights=torch.cat(nats).double().numpy(), minlength=documents)
    right = np.bincount(of_document, weights=torch.cat(correct).numpy(), minlength=documents)
    pairs = np.full(documents, np.nan)
    if batch.pair_places is not None and batch.pair_labels is not None:
        logits = network.pair_logits(hidden.index_select(0, batch.pair_places.to(device))).float().cpu()
        asked = batch.pair_places
        rows = asked // batch.ids.shape[1] if len(batch.ids) > 1 else batch.segments.flatten()[asked] - 1
        pairs[rows.numpy()] = functional.cross_entropy(logits, batch.pair_labels, reduction="none").double().numpy()
    return _Found(sums, right, pairs)
