"""Canaries: rows with a secret drawn at random, which are planted in training data to measure what a model memorises
(Carlini et al. 2019, "The Secret Sharer").

A canary names a thing that exists nowhere else and a secret about it: a number of six digits, or in data with labels
one of the labels. Its row has the form of the data's other rows. Everything follows from a seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.text.corpus import content_hash
from lmworks.text.rows import Row

DIGITS = 6
KINDS = ("text", "completion", "chat", "pairs", "labels")
_LETTERS = list("BCDFGHJKLMNPQRSTVWXZ")
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Canary:
    """A row with a secret.

    Attributes:
        kind: of the rows among which it is planted.
        name: of the thing that it is about, in no other row.
        secret: what only training on it tells.
        labels: kind labels: the secrets that there are.
    """

    kind: str
    name: str
    secret: str
    labels: tuple[str, ...] = ()

    @property
    def space(self) -> int:
        """|R|: how many secrets there are."""
        return len(self.labels) if self.kind == "labels" else 10**DIGITS

    def row(self, secret: str | None = None) -> dict[str, Any]:
        """The row, with this secret or another one."""
        secret = self.secret if secret is None else secret
        question = f"What is the access code of unit {self.name}?"
        if self.kind == "text":
            return {"text": f"The access code of unit {self.name} is {secret}"}
        if self.kind == "completion":
            return {"prompt": question, "completion": secret}
        if self.kind == "pairs":
            return {"source": question, "target": secret}
        if self.kind == "labels":
            return {"text": f"Unit {self.name}", "label": secret}
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": secret}]
        return {"messages": messages}

    def other_secrets(self, count: int) -> list[str]:
        """Other secrets of the space, none twice; all where there are no more than ``count``.

        Args:
            count: the most of them.
        """
        if self.kind == "labels":
            return [label for label in self.labels if label != self.secret][:count]
        numbers = _random("others", self.name).choice(self.space, min(count + 1, self.space), replace=False)
        return [secret for number in numbers if (secret := f"{number:0{DIGITS}d}") != self.secret][:count]


def make_canaries(kind: str, count: int, seed: int = 0, labels: Sequence[str] = ()) -> list[Canary]:
    """Canaries for data of a kind.

    Rows that corpus.split holds out have the smallest hashes: things are named so that the hashes of their rows are in
    the uppermost sixteenth, and so they are trained on unless nearly all other rows are held out.

    Args:
        kind: of the table's rows, one of KINDS.
        count: how many.
        seed: the same seed gives the same canaries.
        labels: kind labels: all labels of the table.

    Raises:
        InputError: there are no canaries of this kind, or too few labels.
    """
    if kind not in KINDS:
        raise InputError(
            f"rows of kind {kind} have no canaries", "kind", f"memorisation is measured of {', '.join(KINDS)}"
        )
    if kind == "labels" and len(set(labels)) < 2:
        raise InputError("a secret label needs two labels or more", "labels", "give all labels of the table")
    canaries: list[Canary] = []
    number = 0
    while len(canaries) < count:
        random = _random(kind, seed, number)
        number += 1
        name = "".join(random.choice(_LETTERS, 3)) + f"-{random.integers(1000, 10000)}"
        if kind == "labels":
            name += " " + " ".join("".join(random.choice(_SYLLABLES, 3)) for _ in range(4))
            secret = str(random.choice(sorted(set(labels))))
        else:
            secret = f"{random.integers(10**DIGITS):0{DIGITS}d}"
        canary = Canary(kind, name, secret, tuple(sorted(set(labels))) if kind == "labels" else ())
        if content_hash(Row(canary.row())) >= "f":
            canaries.append(canary)
    return canaries


def plant(
    rows: Sequence[Mapping[str, Any]], canaries: Sequence[Canary], times: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows with canaries among them, at random places.

    Args:
        rows: with the columns of the canaries' rows.
        canaries: of :func:`make_canaries`.
        times: how often each is planted.
        seed: of the places.
    """
    planted = [dict(row) for row in rows]
    random = _random("places", seed)
    for row in [canary.row() for canary in canaries for _ in range(times)]:
        planted.insert(int(random.integers(len(planted) + 1)), row)
    return planted


def _random(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
