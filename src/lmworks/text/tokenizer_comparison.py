"""Tokenizers on one text: tokens, used part of the vocabulary, and faults of the round trip.

A round trip is encode, then decode. Differences are counted by characters: those of the text, and those in their place
after the round trip. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from typing import Any

from lmworks.base.errors import InputError
from lmworks.text.plain_text import check_text
from lmworks.text.tokenizer import Tokenizer

STRETCH = 16
"""Tokens compared at once where a round trip has faults; groups of them begin where a token begins."""
WHOLE_WORDS = ("WordLevel", "WordPiece")


@dataclass(frozen=True)
class Fault:
    """One way in which a text differs after the round trip.

    Attributes:
        lost: characters of the text; empty where others were inserted.
        became: the characters in their place; empty where they are left out.
        count: how often.
        unknown: whether it became the unknown token.
    """

    lost: str
    became: str
    count: int
    unknown: bool


@dataclass(frozen=True)
class Comparison:
    """Figures of one tokenizer on a text.

    Attributes:
        name: of the tokenizer.
        tokens, characters, bytes: of the text, without special tokens around it.
        vocabulary: number of ids.
        used: number of ids that occur in the text.
        faults: most frequent first; none where the round trip gives the text.
    """

    name: str
    tokens: int
    characters: int
    bytes: int
    vocabulary: int
    used: int
    faults: list[Fault] = field(default_factory=list)

    @property
    def bytes_per_token(self) -> float:
        """How much text a token carries; comparable between languages with one alphabet."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def characters_per_token(self) -> float:
        """The same in characters."""
        return self.characters / self.tokens if self.tokens else 0.0

    @property
    def unknown_characters(self) -> int:
        """Characters that became the unknown token."""
        return sum(len(fault.lost) * fault.count for fault in self.faults if fault.unknown)

    @property
    def other_faults(self) -> int:
        """Places where the text comes back otherwise for another reason: case, accents, white space ..."""
        return sum(fault.count for fault in self.faults if not fault.unknown)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            **asdict(self),
            "bytes_per_token": self.bytes_per_token,
            "characters_per_token": self.characters_per_token,
            "used_share": self.used / self.vocabulary if self.vocabulary else 0.0,
            "unknown_characters": self.unknown_characters,
            "other_faults": self.other_faults,
        }


def compare(text: str, tokenizers: Mapping[str, Tokenizer]) -> list[Comparison]:
    """Each tokenizer on the same text, in the order given.

    Raises:
        InputError: the text is empty.
    """
    if not text:
        raise InputError("there is no text to compare on", "TEXT", "give a text, or a file that has some")
    check_text(text, "TEXT")
    return [_compared(name, tokenizer, text) for name, tokenizer in tokenizers.items()]


def _compared(name: str, tokenizer: Tokenizer, text: str) -> Comparison:
    encoding = tokenizer.core.encode(text, add_special_tokens=False)
    ids: list[int] = encoding.ids
    faults = _faults(tokenizer, text, ids, encoding.offsets)
    return Comparison(name, len(ids), len(text), len(text.encode("utf-8")), tokenizer.vocab_size, len(set(ids)), faults)


def _faults(tokenizer: Tokenizer, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[Fault]:
    """What differs after the round trip, counted."""
    unknown_id = tokenizer.unk_id
    has_unknown = unknown_id is not None and unknown_id in ids
    if not has_unknown and tokenizer.decode(ids, skip_special=False) == text:
        return []
    counts: Counter[tuple[str, str, bool]] = Counter()
    words = type(tokenizer.core.model).__name__ in WHOLE_WORDS and not _single_characters(tokenizer)
    last = 0  # where in the text the last stretch ended
    for begin, end in _stretches(ids, offsets, unknown_id):
        start, stop = offsets[begin][0], offsets[end - 1][1]
        became = _decoded_after(tokenizer, ids, begin, end)
        if ids[begin] == unknown_id and unknown_id is not None:
            token = tokenizer.piece(unknown_id)
            between = became[: -len(token)] if became.endswith(token) else ""
            counts.update(_differences(text[last:start], between))
            lost = [text[start:stop]] if words else text[start:stop]
            counts.update((part, token, True) for part in lost)
        else:
            counts.update(_differences(text[last:stop], became))
        last = stop
    counts.update(_differences(text[last:], ""))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Fault(lost, became, count, unknown) for (lost, became, unknown), count in ordered]


def _single_characters(tokenizer: Tokenizer) -> bool:
    """Whether every entry but the special ones is one character, so that nothing larger can be unknown."""
    specials = tokenizer.specials
    return all(len(piece) == 1 for piece in tokenizer.core.get_vocab() if piece not in specials)


def _stretches(ids: list[int], offsets: list[tuple[int, int]], unknown: int | None) -> Iterator[tuple[int, int]]:
    """Ranges of tokens: each unknown token alone, the others in stretches that cut no character in two."""
    begin = 0
    for place in range(1, len(ids) + 1):
        if place < len(ids) and unknown not in (ids[place], ids[place - 1]):
            full = place - begin >= STRETCH and offsets[place][0] >= offsets[place - 1][1]
            if not full:
                continue
        yield begin, place
        begin = place


def _decoded_after(tokenizer: Tokenizer, ids: list[int], begin: int, end: int) -> str:
    """What some tokens add to the text, with the token before them at hand: its neighbour decides about a space."""
    if begin == 0:
        return tokenizer.decode(ids[:end], skip_special=False)
    before = tokenizer.decode(ids[begin - 1 : begin], skip_special=False)
    return tokenizer.decode(ids[begin - 1 : end], skip_special=False)[len(before) :]


def _differences(text: str, became: str) -> Iterator[tuple[str, str, bool]]:
    """What was replaced, left out or put in, in runs of characters."""
    if text == became:
        return
    for operation, start, stop, from_, to in SequenceMatcher(None, text, became, autojunk=False).get_opcodes():
        lost, gained = text[start:stop], became[from_:to]
        if operation == "replace" and len(lost) == len(gained):  # character by character: a change of case, an accent
            yield from ((before, after, False) for before, after in zip(lost, gained, strict=True))
        elif operation != "equal":
            yield lost, gained, False
