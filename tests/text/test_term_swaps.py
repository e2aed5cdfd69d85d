"""Terms are exchanged as whole words, in their case; nothing else of a text changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmworks.text.term_swaps import GENDER, swap_terms


def test_each_text_is_written_both_ways():
    texts = ["He saw the man.", "SHE is a queen.", "the heist", "Mr. X and his son"]
    swapped, ambiguous = swap_terms(texts)
    assert [(swap.number, swap.first, swap.second) for swap in swapped] == [
        (0, "He saw the man.", "She saw the woman."),
        (1, "HE is a king.", "SHE is a queen."),
        (3, "Mr. X and his son", "Mrs. X and her daughter"),
    ]
    assert ambiguous == 0


def test_a_term_of_two_pairs_is_not_exchanged_back():
    assert swap_terms(["her book", "he reads"])[1] == 1
    assert [swap.number for swap in swap_terms(["her book", "he reads"])[0]] == [1]


def test_names_with_signs_are_terms_too():
    swapped, _ = swap_terms(["C++ and Dr. Who"], [("c++", "rust"), ("Dr. Who", "Ms. When")])
    assert swapped[0].second == "Rust and Ms. When"


@given(st.lists(st.sampled_from(["he", "she", "the", "Man", "woman", "sees", ",", "BOY"]), min_size=1))
def test_both_versions_differ_and_exchange_into_each_other(words):
    text = " ".join(words)
    swapped, _ = swap_terms([text], GENDER)
    for swap in swapped:
        assert swap.first != swap.second
        assert text in (swap.first, swap.second) or {"he", "man", "boy"} & set(text.lower().split())
        again, _ = swap_terms([swap.first, swap.second])
        assert {(one.first, one.second) for one in again} == {(swap.first, swap.second)}
