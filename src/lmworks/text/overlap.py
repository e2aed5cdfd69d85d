"""How much of some texts occurs in others: n-grams of words that training rows share with rows to measure on.

A row counts as contaminated where SHARE or more of its n-grams of N words occur in the training rows (Chowdhery et al.
2022, PaLM, section 8: 8-grams, 70 %); one with fewer than N words where it equals a training row but for case and
punctuation. n-grams that MANY training rows or more have are boilerplate, such as an instruction, and do not count
(after Brown et al. 2020, appendix C). Knows no file and no token.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

N, SHARE, MANY = 8, 0.7, 10
_WORD = re.compile(r"\w+")
Gram = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """How much of each row occurs in the training rows.

    Attributes:
        shares: for each row the share of its n-grams that occur there; 0.0 where all of its n-grams are boilerplate.
        n: words of an n-gram.
    """

    shares: list[float]
    n: int = N

    @property
    def contaminated(self) -> list[int]:
        """Numbers of the rows of which SHARE or more occurs there."""
        return [number for number, share in enumerate(self.shares) if share >= SHARE]

    @property
    def share(self) -> float:
        """The share of the rows that are contaminated; 0 without rows."""
        return len(self.contaminated) / len(self.shares) if self.shares else 0.0


def overlap(texts: Sequence[str], training: Iterable[str], n: int = N) -> Overlap:
    """How much of each text occurs in training texts.

    Args:
        texts: those to measure on: their n-grams are held in memory.
        training: read once.
        n: words of an n-gram.
    """
    grams = [_grams(text, n) for text in texts]
    wanted = {gram for listed in grams for gram in listed}
    counts: Counter[Gram] = Counter()
    for text in training:
        counts.update(wanted.intersection(_grams(text, n)))
    return Overlap([_share(listed, counts, n) for listed in grams], n)


def _share(grams: set[Gram], counts: Counter[Gram], n: int) -> float:
    """The share of a text's n-grams that occur in training texts, boilerplate left out."""
    considered = [gram for gram in grams if counts[gram] < MANY or len(gram) < n]
    return sum(counts[gram] > 0 for gram in considered) / len(considered) if considered else 0.0


def _grams(text: str, n: int) -> set[Gram]:
    """The n-grams of a text; of a shorter one all its words, as one."""
    words = _WORD.findall(text.lower())
    if len(words) < n:
        return {tuple(words)} if words else set()
    return set(zip(*(words[begin:] for begin in range(n)), strict=False))


def said_by(values: dict[str, Any]) -> str:
    """All that a row says, as one text: its texts, or prompt and answer, or its messages but the system's."""
    return "\n".join(_parts(values))


def _parts(values: dict[str, Any]) -> Iterator[str]:
    for message in values.get("messages", ()):
        if message.get("role") != "system" and isinstance(message.get("content"), str):
            yield message["content"]
    for name in ("text", "text_pair", "prompt", "completion", "source", "target", "question", "context"):
        if isinstance(values.get(name), str):
            yield values[name]
