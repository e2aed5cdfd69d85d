"""How likely texts are to a masked language model: its pseudo-log-likelihood.

Each token is hidden once and predicted from all others (Salazar et al. 2020). That paper hides one token at a time,
which takes as many passes as there are tokens; here every ``STRIDE``-th token is hidden at a time, about the share that
such models are trained with, so a text takes STRIDE passes. With a stride of the text's length it is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lmworks.data.batch import Example
from lmworks.data.documents import frame_of, require_id
from lmworks.evaluate.scoring import row_losses
from lmworks.evaluate.text_windows import Ids, Score
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

STRIDE = 7
"""Of seven tokens one is hidden at a time: 14 %, where BERT is trained with 15 % (Devlin et al. 2019)."""


def pseudo_scores(
    network: Transformer, tokenizer: Tokenizer, texts: Sequence[str], stride: int = STRIDE
) -> list[Score]:
    """How likely each text is, in the order given; a text longer than the model's context is read in windows.

    Args:
        network: an encoder with a language head.
        tokenizer: with a mask token.
        texts: the texts; one without tokens has a score of no tokens.
        stride: every so-many-th token is hidden at a time.

    Raises:
        InputError: the tokenizer has no mask token.
    """
    frame = frame_of(tokenizer)
    size = network.max_text_tokens - len(frame)
    parts: list[list[Example]] = []
    spans = tokenizer.spans(texts)
    for ids, _ in spans:
        windows = [frame.around(ids[begin : begin + size]) for begin in range(0, len(ids), size)]
        parts.append([
            example
            for window in windows
            for example in hidden_examples(
                window, range(len(frame.opening), len(window) - len(frame.closing)), tokenizer, stride
            )
        ])  # fmt: skip
    nats = iter(row_losses(network, [example for part in parts for example in part]).language.nats)
    sums = [sum(float(next(nats)) for _ in part) for part in parts]
    sizes = [len(text.encode("utf-8", errors="replace")) for text in texts]
    return [
        Score(total, len(ids), size if len(ids) else 0, characters=len(text) if len(ids) else 0)
        for total, (ids, _), size, text in zip(sums, spans, sizes, texts, strict=True)
    ]


def choice_pseudo_likelihoods(
    network: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Ids],
    choices: Sequence[Sequence[Ids]],
    stride: int = STRIDE,
) -> list[np.ndarray]:
    """Pseudo-log-likelihood of each choice after its prompt, whose tokens are not hidden.

    Args:
        network: an encoder with a language head.
        tokenizer: with a mask token.
        prompts: ids of each prompt without special tokens; may be empty.
        choices: for each prompt the ids of its choices.
        stride: every so-many-th token of a choice is hidden at a time.

    Returns:
        For each prompt an array with one log-likelihood (nats, at most 0) a choice, not divided by its length.

    Raises:
        InputError: the tokenizer has no mask token.
    """
    frame, parts = frame_of(tokenizer), []
    for prompt, answers in zip(prompts, choices, strict=True):
        for ids in answers:
            begin = len(frame.opening) + len(prompt)
            text = frame.around(np.array([*prompt, *ids], dtype=np.int32))
            parts.append(list(hidden_examples(text, range(begin, begin + len(ids)), tokenizer, stride)))
    nats = iter(row_losses(network, [example for part in parts for example in part]).language.nats)
    sums = iter([-sum(float(next(nats)) for _ in part) for part in parts])
    return [np.array([next(sums) for _ in answers]) for answers in choices]


def hidden_examples(
    ids: np.ndarray, places: Sequence[int], tokenizer: Tokenizer, stride: int = STRIDE
) -> Iterator[Example]:
    """Examples that hide each of some tokens once, every ``stride``-th of them at a time.

    Args:
        ids: (T,) a text with its special tokens.
        places: of the tokens that are hidden.
        tokenizer: with a mask token.
        stride: distance of the tokens that are hidden at a time.

    Raises:
        InputError: the tokenizer has no mask token.
    """
    mask = require_id(tokenizer, "mask", "the pseudo-likelihood of a text")
    for first in range(min(stride, len(places))):
        loss = np.zeros(len(ids), dtype=bool)
        loss[list(places[first::stride])] = True
        yield Example(np.where(loss, mask, ids).astype(np.int32), loss, targets=ids)
