"""Texts from ids: streaming without broken characters, stop strings. Knows tokenizers, not models' insides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lmworks.base.errors import InputError
from lmworks.generate.beam import decode_best
from lmworks.generate.decode import Steps, check_prompts, decode
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

StopReason = Literal["end", "stop", "length"]
Way = Callable[[Transformer, Sequence[Sequence[int]], SamplingSettings, set[int], Rules | None], Steps]


@dataclass(frozen=True)
class Reply:
    """What a prompt was continued with.

    Attributes:
        text: the new text, without the end token and the stop string.
        ids: all new ids, the end token included.
        stop_reason: "end" (an end token), "stop" (a stop string), "length" (max_tokens or the context).
    """

    text: str
    ids: list[int]
    stop_reason: StopReason


class TextBuilder:
    """Grows a text from ids and gives out only what can no longer change.

    A character whose bytes are not all there yet, and an ending that may become a stop string, are held back.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, [text for text in stop if text]
        self._ids: list[int] = []
        self._settled = 0  # ids before this one are decoded into _text for good
        self._text = ""
        self._given = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """Take one more id; give the text that is now certain."""
        self._ids.append(token)
        tail = self._tail()
        if not tail.endswith("\ufffd"):
            self._text += tail
            self._settled = len(self._ids)
        return self._give(self._text, hold=True)

    def finish(self) -> str:
        """Give what was held back; nothing follows."""
        return self._give(self._text + self._tail(), hold=False)

    def _tail(self) -> str:
        """Text of the unsettled ids, decoded after two settled ones, since decoders treat a text's start apart."""
        start = max(0, self._settled - 2)
        before = self._tokenizer.decode(self._ids[start : self._settled])
        return self._tokenizer.decode(self._ids[start:])[len(before) :]

    def _give(self, text: str, hold: bool) -> str:
        if self.stopped:
            return ""
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        end = len(text)
        if ends:
            end, self.stopped = min(ends), True
        elif hold:
            end -= max((_overlap(text, stop) for stop in self._stop), default=0)
        given, self._given = text[self._given : end], max(end, self._given)
        return given


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def stream(
    network: Transformer,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    settings: SamplingSettings,
    rules: Rules | None = None,
) -> Iterator[str]:
    """Continue one prompt, or answer one source; yield the text piece by piece (with beams: when all of it is found).

    Args:
        network: a decoder or an encoder-decoder.
        tokenizer: its own.
        prompt_ids: ids of the prompt; of an encoder-decoder those of the source.
        settings: how tokens are chosen.
        rules: what the model's publisher demands.
    """
    builder = TextBuilder(tokenizer, settings.stop)
    steps = _way(settings)(network, [prompt_ids], settings, tokenizer.end_ids, rules)
    for (token,) in steps:
        assert token is not None
        if token in tokenizer.end_ids:
            break
        if piece := builder.add(token):
            yield piece
        if builder.stopped:
            break
    if piece := builder.finish():
        yield piece


def complete(
    network: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    rules: Rules | None = None,
) -> list[Reply]:
    """Continue many prompts, or answer many sources, at once; each gets what it would get alone."""
    builders = [TextBuilder(tokenizer, settings.stop) for _ in prompts]
    texts, ids = [""] * len(prompts), [list[int]() for _ in prompts]
    reasons: list[StopReason] = ["length"] * len(prompts)
    steps = _way(settings)(network, prompts, settings, tokenizer.end_ids, rules)
    try:
        tokens = next(steps)
        while True:
            ended = set()
            for row, token in enumerate(tokens):
                if token is None:
                    continue
                ids[row].append(token)
                if token in tokenizer.end_ids:
                    reasons[row] = "end"
                    continue
                texts[row] += builders[row].add(token)
                if builders[row].stopped:
                    reasons[row] = "stop"
                    ended.add(row)
            tokens = steps.send(ended)
    except StopIteration:
        pass
    texts = [text + builder.finish() for text, builder in zip(texts, builders, strict=True)]
    return [Reply(*parts) for parts in zip(texts, ids, reasons, strict=True)]


def next_tokens(network: Transformer, tokenizer: Tokenizer, text: str, top: int) -> list[tuple[str, float]]:
    """The likeliest next tokens after a text, each with its probability.

    Raises:
        InputError: the text is empty or too long, or the network does not continue texts.
    """
    if network.config.architecture == "encoder-decoder":
        hint = "lmworks generate answers it; lmworks fill fills its blanks"
        raise InputError("an encoder-decoder answers a text and does not continue it", "text", hint)
    ids = tokenizer.encode(text, special=True)
    check_prompts(network, [ids])
    device = network.device
    with torch.inference_mode():
        last = torch.tensor([len(ids) - 1], device=device)
        logits = network(torch.tensor([ids], device=device), only=last).logits[0]
    best = logits.float().softmax(-1).topk(min(top, len(logits)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(tokenizer.piece(token), probability) for token, probability in pairs]


def _way(settings: SamplingSettings) -> Way:
    return decode if settings.num_beams == 1 else decode_best
