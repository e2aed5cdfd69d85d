"""Raw rows -> words with tags: lists of tokens and tags, or texts with entities by their characters.

Tags of all schemes become IOB2. Knows no file; errors have no place, which whoever reads the row knows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.text.rows import Row, option
from lmworks.text.tags import OUTSIDE, Span, entities, scheme_of, sorted_labels, split_tag, split_words, written

START, END = ("start", "start_offset", "begin"), ("end", "end_offset")
LABEL = ("label", "type", "tag", "entity_group", "entity")
SPAN_HINT = 'write spans as [{"start": 0, "end": 5, "label": "person"}], end exclusive, in characters'


def join_tokens(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """Tokens with spaces between them, and the character at which each begins."""
    starts, end = [], 0
    for token in tokens:
        starts.append(end)
        end += len(token) + 1
    return " ".join(tokens), starts


def of_tokens(tokens: Any, tags: Any = None, *, names: Mapping[str, str]) -> dict[str, Any]:
    """A row of lists: ``tokens``, ``tags``, ``text`` and ``starts``, the character at which each token begins.

    Args:
        tokens, tags: lists of one length; without tags, the row has none.
        names: of tags, where the settings give some.

    Raises:
        InputError: they are none, or a token is empty.
    """
    for name, value in (("tokens", tokens), ("tags", tags)):
        if not isinstance(value, list) and not (name == "tags" and value is None):
            raise InputError(f"the {name} are a {type(value).__name__}, not a list", "", f"write a list of {name}")
    if not tokens:
        raise InputError("there is no token", "", "give every row a token")
    if tags is not None and len(tokens) != len(tags):
        raise InputError(
            f"{count_of(len(tokens), 'token')} and {count_of(len(tags), 'tag')}", "", "give each token one"
        )
    bad = [token for token in tokens if not isinstance(token, str) or not token.strip()]
    if bad:  # null is one of them
        raise InputError(f"{bad[0]!r} is no token", "", "write every token as text, and leave empty ones out")
    text, starts = join_tokens(tokens)
    row = {"tokens": list(tokens), "text": text, "starts": starts}
    if tags is None:
        return row
    named = [names.get(str(tag), tag) for tag in tags]
    unnamed = [tag for tag in named if not isinstance(tag, str) or not tag.strip()]
    if unnamed and isinstance(unnamed[0], int):
        hint = f"name the tags, as {option('label_names', {'0': 'O', '1': 'B-person'})}"
        raise InputError(f"{unnamed[0]!r} is no tag", "", hint)
    if unnamed:
        raise InputError(f"{unnamed[0]!r} is no tag", "", "write a tag for every token, O where it has none")
    return {**row, "tags": [tag.strip() for tag in named]}


def of_spans(text: Any, spans: Any, *, names: Mapping[str, str]) -> dict[str, Any]:
    """A row of a text with entities by their characters; fields as of :func:`of_tokens`.

    Raises:
        InputError: an entity is none, lies outside the text, or two of them overlap.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("there is no text", "", "give every row a text")
    if not isinstance(spans, list):
        raise InputError(f"the spans are a {type(spans).__name__}, not a list", "", SPAN_HINT)
    found = sorted((_span(span, text, names) for span in spans), key=lambda span: span.first)
    for before, after in itertools.pairwise(found):
        if after.first < before.end:
            said = " and ".join(f"{text[span.first : span.end]!r}" for span in (before, after))
            raise InputError(f"the spans {said} overlap", "", "keep one of them: a word has one tag")
    words = split_words(text, [border for span in found for border in (span.first, span.end)])
    tags = written((_of_words(span, words) for span in found), len(words))
    return {
        "tokens": [text[begin:end] for begin, end in words],
        "tags": tags,
        "text": text,
        "starts": [begin for begin, _ in words],
    }


def _span(value: Any, text: str, names: Mapping[str, str]) -> Span:
    """An entity of a row, without white space at its ends."""
    if isinstance(value, Mapping):
        value = [next((value[key] for key in keys if key in value), None) for keys in (START, END, LABEL)]
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise InputError(f"{value!r} is no span", "", SPAN_HINT)
    begin, end, label = value
    if isinstance(begin, bool) or not isinstance(begin, int) or not isinstance(end, int) or label in (None, ""):
        raise InputError(f"a span of start {begin!r}, end {end!r} and label {label!r}", "", SPAN_HINT)
    if not 0 <= begin < end <= len(text):
        fault = f"a span from {begin} to {end} lies outside of its text of {count_of(len(text), 'character')}"
        raise InputError(fault, "", SPAN_HINT)
    part = text[begin:end]
    if not part.strip():
        raise InputError(f"the span from {begin} to {end} holds no word", "", SPAN_HINT)
    first = begin + len(part) - len(part.lstrip())
    return Span(names.get(str(label), str(label)), first, first + len(part.strip()))


def _of_words(span: Span, words: Sequence[tuple[int, int]]) -> Span:
    inside = [number for number, (begin, end) in enumerate(words) if span.first <= begin and end <= span.end]
    return Span(span.kind, inside[0], inside[-1] + 1)


def with_labels(rows: list[Row], notes: list[str]) -> tuple[list[Row], list[str]]:
    """Rows with IOB2 tags, and all tags: O first, the others sorted. What was changed is noted."""
    if not all("tags" in row.values for row in rows):
        return rows, []
    _refuse_mixed(rows)
    scheme = scheme_of([row.values["tags"] for row in rows])
    if scheme.name:
        rows = [replace(row, values={**row.values, "tags": _iob2(row.values["tags"])}) for row in rows]
    labels = sorted_labels(tag for row in rows for tag in row.values["tags"])
    if not scheme.name:
        notes.append(f"tags of single words: {count_of(len(labels), 'tag')}: {list_names(labels)}")
        return rows, labels
    kinds = sorted({split_tag(label)[1] for label in labels} - {""})
    count = sum(len(entities(row.values["tags"])) for row in rows)
    notes.append(f"entities: {count:,}, of {count_of(len(kinds), 'type')}: {list_names(kinds)}")
    if scheme.name != "IOB2":
        notes.append(f"tags are written as {scheme.name}, and read as IOB2")
    if scheme.repaired:
        words = count_of(scheme.repaired, "word")
        notes.append(f"{words} with an I tag that continues no entity of its type: they begin one, as seqeval counts")
    if not kinds:
        notes.append("no word has a tag but O, so that there is nothing to learn: add rows with entities")
    return rows, labels


def _refuse_mixed(rows: Sequence[Row]) -> None:
    """Refuse tags of which some are parts of entities and others are not.

    Raises:
        InputError: some are; names the first row with one of the rarer kind.
    """
    count = Counter(tag for row in rows for tag in row.values["tags"] if tag != OUTSIDE)
    sides: dict[bool, list[str]] = {True: [], False: []}
    for tag, _ in count.most_common():
        sides[split_tag(tag)[0] != ""].append(tag)
    if not all(sides.values()):
        return
    rarer = min(sides.values(), key=lambda side: sum(count[tag] for tag in side))
    row = next(row for row in rows if not set(rarer).isdisjoint(row.values["tags"]))
    tag = next(tag for tag in row.values["tags"] if tag in rarer)
    usual = next(side for side in sides.values() if side is not rarer)[0]
    fault = f"tag {tag!r} is written otherwise than {usual!r}, as most tags are"
    raise InputError(fault, row.place, "write all tags in one scheme: O outside, B-person or I-person in an entity")


def _iob2(tags: Sequence[str]) -> list[str]:
    return written(entities(tags), len(tags))
