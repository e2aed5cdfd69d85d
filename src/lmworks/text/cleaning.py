"""Cleaning of texts as a pipeline of named steps, in the order in which they are named.

Cleaning was what made texts countable before tokenizers of sub-words; networks need none of it. Each step is a pure
function of one text, so its effect can be shown and measured. Knows no file.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from html.parser import HTMLParser
from typing import NamedTuple

from lmworks.base.errors import InputError
from lmworks.base.settings import nearest, spelled
from lmworks.text import contractions, personal_data

NUMBER = "NUM"
"""What the step ``numbers`` writes for a number."""
LEMMAS_HINT = "pip install 'lmworks[lemmas]'"


class Step(NamedTuple):
    """One step of cleaning.

    Attributes:
        name: of the step.
        about: what it does, in one line.
        apply: text -> text.
        is_idempotent: whether a second time changes nothing more.
    """

    name: str
    about: str
    apply: Callable[[str], str]
    is_idempotent: bool = True


_BLOCKS = "address article br dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p pre section table td th tr ul"


class _Text(HTMLParser):
    """The text of a document: without tags, comments, scripts and style sheets; entities are the signs they name."""

    BLOCKS = frozenset(_BLOCKS.split())
    UNSEEN = frozenset(("script", "style"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen += tag in self.UNSEEN
        if tag in self.BLOCKS:  # words on both sides of it are two words
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.unseen = max(0, self.unseen - (tag in self.UNSEEN))
        if tag in self.BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.parts.append(data)


def _html(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    parser = _Text()
    parser.feed(text)
    rest = parser.rawdata  # a tag that is never closed: the parser waits for its end, a reader sees the letters
    parser.close()
    return "".join(parser.parts) if parser.parts or not rest else rest


_ODD_SPACES = re.compile(r"[^\S\n\r\t ]")
_FORMAT = {"Cf"}  # signs that are not seen: zero-width spaces and joiners, soft hyphens, byte order marks


def _unicode(text: str) -> str:
    """NFKC; odd spaces are spaces; signs that are not seen go. Removed signs may leave letters and accents side by side
    that compose, so that it is repeated until nothing changes."""
    while True:
        seen = "".join(
            sign for sign in unicodedata.normalize("NFKC", text) if unicodedata.category(sign) not in _FORMAT
        )
        cleaned = _ODD_SPACES.sub(" ", seen)
        if cleaned == text:
            return cleaned
        text = cleaned


_TOKEN = re.compile(r"\w+(?:['’]\w+)*")


@functools.cache
def _stop_set() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def _stop_words(text: str) -> str:
    stop = _stop_set()
    return _TOKEN.sub(lambda match: "" if match[0].lower() in stop else match[0], text)


@functools.cache
def _lemmatizer() -> Callable[[str], str]:
    try:
        from simplemma import lemmatize
    except ImportError as error:
        raise InputError("lemmas need the library simplemma", "step lemmas", LEMMAS_HINT) from error
    return functools.lru_cache(maxsize=200_000)(functools.partial(lemmatize, lang="en"))


def _lemmas(text: str) -> str:
    lemma = _lemmatizer()
    return re.sub(r"[^\W\d_]+", lambda match: lemma(match[0]), text)


_NUMBERS = re.compile(r"(?<!\w)[-+]?\d+(?:[.,:/]\d+)*(?!\w)")


def _numbers(text: str) -> str:
    return _NUMBERS.sub(NUMBER, text)


def _punctuation(text: str) -> str:
    """Signs of Unicode's categories P and S are spaces, so that no two words become one."""
    return "".join(" " if unicodedata.category(sign)[0] in "PS" else sign for sign in text)


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        # A text about HTML (&amp;lt;) loses one level of it each time, as in a browser.
        Step("html", "tags, comments and scripts go; entities become the signs they name", _html, False),
        Step("unicode", "NFKC, odd spaces, zero-width signs", _unicode),
        Step(
            "personal_data",
            "e-mail addresses, phone numbers, IBANs, cards ... become [EMAIL], [PHONE] ...",
            lambda text: personal_data.mask(text)[0],
        ),
        Step("contractions", "English contractions are written out: don't -> do not", contractions.write_out),
        Step("stop_words", "English words without content go (scikit-learn's list of 318)", _stop_words),
        # The lemma of a lemma may be another word: saw -> see, found -> find, but also left -> leave, leaves -> leaf.
        Step("lemmas", "English words in their dictionary form (simplemma): mice -> mouse", _lemmas, False),
        Step("numbers", f"numbers become the word {NUMBER}", _numbers),
        Step("case", "lower case", str.lower),
        Step("punctuation", "punctuation and symbols become spaces", _punctuation),
        Step("spaces", "one space between words, none at the ends", lambda text: " ".join(text.split())),
    )
}
"""All steps, in an order that suits most texts."""


def steps_of(names: Iterable[str]) -> list[Step]:
    """Steps by their names, in which hyphens count as underscores.

    Raises:
        InputError: there is no such step (the nearest is named), it is named twice, or its library is missing.
    """
    steps: list[Step] = []
    for name in names:
        known = spelled(name, STEPS)
        if known not in STEPS:
            near = nearest(name, list(STEPS))
            hint = f"did you mean {near[0]}?" if near else f"steps are {', '.join(STEPS)}"
            raise InputError(f"there is no step {name!r}", "cleaning", hint)
        if STEPS[known] in steps:
            raise InputError(f"step {known} is named twice", "cleaning", "leave one of them out")
        steps.append(STEPS[known])
    if any(step.name == "lemmas" for step in steps):
        _lemmatizer()
    return steps


def clean(text: str, steps: Sequence[Step]) -> str:
    """The text after all steps."""
    for step in steps:
        text = step.apply(text)
    return text


class Cleaned(NamedTuple):
    """What cleaning made of texts.

    Attributes:
        texts: in their order.
        changed: step -> how many texts it changed.
        characters: step -> how many characters it took away; negative where it added some.
    """

    texts: list[str]
    changed: dict[str, int]
    characters: dict[str, int]


def clean_all(texts: Sequence[str], steps: Sequence[Step]) -> Cleaned:
    """All texts, one step after another, and what each step changed."""
    current = list(texts)
    changed, characters = {}, {}
    for step in steps:
        after = [step.apply(text) for text in current]
        changed[step.name] = sum(new != old for new, old in zip(after, current, strict=True))
        characters[step.name] = sum(map(len, current)) - sum(map(len, after))
        current = after
    return Cleaned(current, changed, characters)
