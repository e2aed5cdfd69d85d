"""Tags of words: entities in them, the schemes in which they are written, and words of texts. Knows no file.

IOB2: B-LOC begins an entity, I-LOC continues it, O is outside. IOB1 (Ramshaw and Marcus 1995) writes B only between two
entities of one type that touch; BILOU (Ratinov and Roth 2009) and IOBES mark the last word of an entity (L or E) and
entities of one word (U or S). Tags without such a beginning, as parts of speech, belong to one word each.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
BEGIN, INSIDE = "B-", "I-"
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}
"""First letters of tags, as IOBES has them."""
JOINING = "-'’.&"
"""Between two letters or digits these belong to their word, as in Jean-Paul, don't, U.S and AT&T."""
LEADING = "@#"
"""Before a letter or digit these belong to its word."""

Tags = Sequence[str]


class Span(NamedTuple):
    """Words or characters first:end of one type."""

    kind: str
    first: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """The first letter of a tag, as IOBES has it, and its type; ("O", "") outside, ("", tag) of a tag without one."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, kind = tag.partition("-")
    return (PREFIXES[letter], kind) if dash and kind and letter in PREFIXES else ("", tag)


def have_scheme(tags: Iterable[str]) -> bool:
    """Whether tags are parts of entities: O, or a first letter and a type."""
    return all(split_tag(tag)[0] for tag in tags)


def entities(tags: Tags) -> list[Span]:
    """The entities of a sentence, as the CoNLL shared tasks count them, and ``seqeval`` by default.

    A word continues the entity of the word before it if its tag continues (I, E) one of the same type that has not
    ended; any other tag but O begins one. Each word of tags without a scheme is one.

    Args:
        tags: of each word.
    """
    spans: list[Span] = []
    is_open, previous = False, ""
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        if is_open and prefix in ("I", "E") and kind == previous:
            spans[-1] = Span(kind, spans[-1].first, place + 1)
        elif prefix != OUTSIDE:
            spans.append(Span(kind, place, place + 1))
        is_open, previous = prefix in ("B", "I"), kind
    return spans


def strict_entities(tags: Tags) -> list[Span]:
    """The entities of a sentence as IOB2 defines them, and ``seqeval`` with mode strict: what B does not begin is
    none."""
    spans: list[Span] = []
    open_kind = None
    for place, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        if prefix == "B":
            spans.append(Span(kind, place, place + 1))
            open_kind = kind
        elif prefix == "I" and kind == open_kind:
            spans[-1] = Span(kind, spans[-1].first, place + 1)
        else:
            open_kind = None
    return spans


def written(spans: Iterable[Span], count: int) -> list[str]:
    """IOB2 tags of ``count`` words in which these entities lie."""
    tags = [OUTSIDE] * count
    for kind, first, end in spans:
        tags[first:end] = [BEGIN + kind, *[INSIDE + kind] * (end - first - 1)]
    return tags


class Scheme(NamedTuple):
    """How the tags of a data set are written.

    Attributes:
        name: IOB2, IOB1, BILOU or IOBES; "" of tags without entities.
        repaired: of IOB2: words with an I tag that continues nothing, which begin an entity.
    """

    name: str
    repaired: int = 0


def scheme_of(sentences: Sequence[Tags]) -> Scheme:
    """The scheme of the tags of all sentences.

    IOB1 and IOB2 differ in the words that begin an entity: where every B stands right after an entity of its type, and
    some entity begins with I, it is IOB1.
    """
    every = {tag for tags in sentences for tag in tags}
    if not have_scheme(every):
        return Scheme("")
    letters = {tag[0] for tag in every if tag != OUTSIDE}
    if letters - {"B", "I"}:
        return Scheme("BILOU" if letters & {"L", "U"} else "IOBES")
    orphans = needless = 0
    for tags in sentences:
        before = (OUTSIDE, "")
        for tag in tags:
            prefix, kind = split_tag(tag)
            follows = before[0] in ("B", "I") and before[1] == kind
            orphans += prefix == "I" and not follows
            needless += prefix == "B" and not follows
            before = prefix, kind
    return Scheme("IOB1") if orphans and not needless else Scheme("IOB2", orphans)


def sorted_labels(tags: Iterable[str]) -> list[str]:
    """Different tags: O first, the others sorted."""
    return sorted(set(tags), key=lambda tag: (tag != OUTSIDE, tag))


# Words of texts


def _in_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or unicodedata.category(sign)[0] == "M"


def split_words(text: str, borders: Iterable[int] = ()) -> list[tuple[int, int]]:
    """The words of a text as (first character, end): runs of letters, digits and marks with what joins them (see
    JOINING and LEADING); every other visible character is one of its own.

    Args:
        text: any text.
        borders: characters before which a word is cut too, as those where entities begin and end.
    """
    cuts = set(borders)
    words: list[tuple[int, int]] = []
    joined = False  # whether this character goes on with the word before it
    for place, sign in enumerate(text):
        after = place + 1 < len(text) and _in_word(text[place + 1]) and place + 1 not in cuts
        inside = _in_word(sign)
        if joined and place not in cuts and (inside or (sign in JOINING and after and _in_word(text[place - 1]))):
            words[-1] = (words[-1][0], place + 1)
        elif not sign.isspace():
            words.append((place, place + 1))
            joined = inside or (sign in LEADING and after)
        else:
            joined = False
    return words
