"""Canaries have the form of the rows among which they are planted, and are trained on, not held out."""

from __future__ import annotations

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.canaries import DIGITS, KINDS, make_canaries, plant
from lmworks.text.rows import DataSettings

ROWS = {
    "text": [{"text": f"A text of number {n} and more."} for n in range(60)],
    "completion": [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(60)],
    "pairs": [{"source": f"one {n}", "target": f"two {n}"} for n in range(60)],
    "labels": [{"text": f"text {n}", "label": "even" if n % 2 else "odd"} for n in range(60)],
    "chat": [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]}
        for n in range(60)
    ],
}


def canaries_of(kind: str, count: int = 12, seed: int = 0):
    return make_canaries(kind, count, seed, ["even", "odd"] if kind == "labels" else ())


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_rows_of_the_kind_and_never_held_out(kind):
    canaries = canaries_of(kind)
    rows = plant(ROWS[kind], canaries, times=2)
    assert len(rows) == 60 + 24
    table = corpus.read(rows, DataSettings())
    assert table.kind == kind
    train, held_out = corpus.split(table, DataSettings(held_out=0.4))
    assert len(held_out) > 20
    values = [row.values for row in train.rows]
    for canary in canaries:
        assert values.count(canary.row()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_ones_again(kind):
    assert canaries_of(kind) == canaries_of(kind)
    assert canaries_of(kind, seed=1) != canaries_of(kind)
    assert plant(ROWS[kind], canaries_of(kind), seed=3) == plant(ROWS[kind], canaries_of(kind), seed=3)
    names = [canary.name for canary in canaries_of(kind, 40)]
    assert len(set(names)) == len(names)


def test_other_secrets_are_of_the_same_form_and_none_is_the_own():
    (canary,) = make_canaries("text", 1)
    others = canary.other_secrets(500)
    assert len(set(others)) == 500
    assert canary.secret not in others
    assert all(len(secret) == DIGITS and secret.isdigit() for secret in others)
    assert canary.space == 10**DIGITS


def test_labels_are_secrets_all_of_which_are_known():
    (canary,) = make_canaries("labels", 1, labels=["a", "b", "c", "b"])
    assert canary.space == 3
    assert sorted([canary.secret, *canary.other_secrets(100)]) == ["a", "b", "c"]
    secrets = [one.secret for one in make_canaries("labels", 90, labels=["a", "b", "c"])]
    assert all(secrets.count(label) > 15 for label in "abc")


def test_what_has_no_canaries_is_refused():
    with pytest.raises(InputError, match="of kind tags have no canaries"):
        make_canaries("tags", 1)
    with pytest.raises(InputError, match="two labels"):
        make_canaries("labels", 1, labels=["a"])
