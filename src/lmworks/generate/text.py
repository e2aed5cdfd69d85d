"""Texts from ids: streaming without broken characters, stop strings. Knows tokenizers, not models' insides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lmworks.generate.decode import decode
from lmworks.generate.sampling import SamplingSettings
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

StopReason = Literal["end", "stop", "length"]


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
    network: Transformer, tokenizer: Tokenizer, prompt_ids: Sequence[int], settings: SamplingSettings
) -> Iterator[str]:
    """Continue one prompt; yield its text piece by piece."""
    builder = TextBuilder(tokenizer, settings.stop)
    steps = decode(network, [prompt_ids], settings, tokenizer.end_ids)
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
    network: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], settings: SamplingSettings
) -> list[Reply]:
    """Continue many prompts at once; each gets what it would get alone."""
    builders = [TextBuilder(tokenizer, settings.stop) for _ in prompts]
    texts, ids = [""] * len(prompts), [list[int]() for _ in prompts]
    reasons: list[StopReason] = ["length"] * len(prompts)
    steps = decode(network, prompts, settings, tokenizer.end_ids)
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
