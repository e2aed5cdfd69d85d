"""n-grams that texts share with training texts."""

from __future__ import annotations

import pytest

from lmworks.text.overlap import MANY, overlap, said_by

LONG = "the quick brown fox jumps over the lazy dog near the old stone bridge"


def test_the_same_text_in_another_case_is_contaminated():
    measured = overlap([LONG, "nothing of it is there at all in any of these texts"], [LONG.upper() + "!"])
    assert measured.shares == [1.0, 0.0]
    assert measured.contaminated == [0]
    assert measured.share == 0.5


def test_a_text_within_a_longer_one_is_contaminated():
    assert overlap([LONG], [f"he said that {LONG} and left"]).shares == [1.0]


def test_half_of_a_text_is_the_share_of_its_grams():
    words = LONG.split()
    half = " ".join(words[:11])  # 4 of the 7 8-grams
    assert overlap([LONG], [half]).shares == [pytest.approx(4 / 7)]
    assert overlap([LONG], [half]).contaminated == []


def test_short_texts_are_compared_whole():
    assert overlap(["Yes, please."], ["yes please", "yes please do it now"]).shares == [1.0]
    assert overlap(["yes please"], ["yes please do it now, will you be so kind"]).shares == [0.0]


def test_boilerplate_does_not_count():
    instruction = "answer the following question in one short sentence please and be kind"
    held_out = f"{instruction} where is the old bridge of our town"
    training = [f"{instruction} what is {n} plus {n} in the end" for n in range(MANY)]
    assert overlap([held_out], training).shares == [0.0]
    assert overlap([held_out], training[:3]).shares[0] > 0.3
    assert overlap([instruction], training).shares == [0.0]


def test_no_text_shares_nothing():
    assert overlap([], ["a"]).share == 0.0
    assert overlap([""], [""]).shares == [0.0]


def test_a_row_is_all_that_it_says():
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    assert said_by({"messages": messages}) == "u\na"
    assert said_by({"prompt": "p", "completion": "c", "label": "l"}) == "p\nc"
