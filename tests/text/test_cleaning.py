"""Each step of cleaning does what it says, and a second time nothing more where that is claimed."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmworks.base.errors import InputError
from lmworks.text import cleaning
from lmworks.text.cleaning import STEPS, clean, clean_all, steps_of

WORDS = "don't DON’T can't it's the and of a'b 'tis x's 3 3.5 -7 1,000 1:2x 12th x86 é e"
WORDS += "\u0301 \u200b <b> &amp; &lt; end. 'the' ﬁne Ⅳ İ ΑΣ he'd've ' ’ . -"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.lists(
    st.sampled_from([*WORDS.split(), " ", "", "\n", "\u00a0"]), max_size=12
).map("".join)


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.is_idempotent])
@given(text=TEXTS)
@example(text="e\u200b\u0301")  # composes once the sign between them is gone
@example(text="cannot can't've shan't")
@example(text="the'the the' the")
def test_a_second_time_changes_nothing(name: str, text: str) -> None:
    once = STEPS[name].apply(text)
    assert STEPS[name].apply(once) == once


@given(text=TEXTS)
def test_steps_one_by_one_are_the_pipeline(text: str) -> None:
    steps = steps_of(["html", "unicode", "contractions", "numbers", "case", "punctuation", "spaces"])
    assert clean_all([text], steps).texts == [clean(text, steps)]


@pytest.mark.parametrize(
    ("name", "text", "cleaned"),
    [
        ("html", "A<br>b &amp; <b>c</b>d<script>x < 1</script><!-- no -->", "A b & cd"),
        ("html", "1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
        ("html", "a &amp;lt;b&amp;gt;", "a &lt;b&gt;"),
        ("html", "never closed <b", "never closed <b"),
        ("html", "<b", "<b"),
        ("unicode", "ﬁne\u00a0Ⅳ zero\u200bwidth soft\u00adhyphen", "fine IV zerowidth softhyphen"),
        ("contractions", "Don't say it's what they'd've; WON'T", "Do not say it is what they'd've; WILL NOT"),
        ("contractions", "Anna's dog isn’t here", "Anna's dog is not here"),
        ("stop_words", "The cat is on the mat", " cat    mat"),
        ("lemmas", "The mice were running", "the mouse be run"),
        ("numbers", "3.5 of 1,000 at 12:30, the 3rd x86 -7", "NUM of NUM at NUM, the 3rd x86 NUM"),
        ("case", "ÄB Σ", "äb σ"),
        ("punctuation", "end.Begin (a$b)", "end Begin  a b "),
        ("spaces", " a \n\t b ", "a b"),
    ],
)
def test_what_a_step_does(name: str, text: str, cleaned: str) -> None:
    assert STEPS[name].apply(text) == cleaned


def test_changes_are_counted_by_step() -> None:
    cleaned = clean_all(["a <b>B</b>", "c", "D"], steps_of(["html", "case"]))
    assert cleaned.texts == ["a b", "c", "d"]
    assert cleaned.changed == {"html": 1, "case": 2}
    assert cleaned.characters == {"html": 7, "case": 0}


def test_names_are_checked() -> None:
    assert [step.name for step in steps_of(["stop-words", "case"])] == ["stop_words", "case"]
    with pytest.raises(InputError, match="did you mean punctuation"):
        steps_of(["punctation"])
    with pytest.raises(InputError, match="named twice"):
        steps_of(["case", "html", "case"])


def test_without_simplemma_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplemma", None)
    cleaning._lemmatizer.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'lmworks\[lemmas\]'"):
        steps_of(["lemmas"])
    cleaning._lemmatizer.cache_clear()


def test_every_step_says_what_it_does() -> None:
    assert f"list of {len(cleaning._stop_set())}" in STEPS["stop_words"].about
