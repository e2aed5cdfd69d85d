"""Files in the CoNLL formats -> raw rows: a word a line in columns, an empty line after each sentence.

Columns stand between tabs, or else between spaces. The first is the word, the last its tag (a file of words alone has
one column); CoNLL-U (ten columns) has its own names. Knows no file: lines come with their numbers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmworks.text.rows import BadRows, DataSettings, Row
from lmworks.text.tags import OUTSIDE, split_tag

Line = tuple[int, str]
TOKENS, TAGS, PREDICTION = "tokens", "tags", "prediction"
TOKEN_NAMES, TAG_NAMES = ("tokens", "token"), ("tags", "tag")  # in data.columns
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
RANGE = re.compile(r"\d+[-.]\d+")
"""Number of a line of CoNLL-U that is no word: several words in one, or one that is not written."""
DOCUMENT = "-DOCSTART-"
LOOKED_AT = 200  # lines from which a format is recognised


def is_tagged(lines: Iterable[str]) -> bool:
    """Whether the first lines of a file are words with tags of entities: two columns or more, as many in each, the
    last O or a first letter and a type."""
    counts = set()
    seen = 0
    for line in itertools.islice(lines, LOOKED_AT):
        fields = split_fields(line)
        if not fields or (line.startswith("#") and not _is_tag(fields[-1])):
            continue
        if len(fields) < 2 or not _is_tag(fields[-1]):
            return False
        counts.add(len(fields))
        seen += 1
    return seen > 1 and len(counts) == 1


def _is_tag(field: str) -> bool:
    return field == OUTSIDE or (field[1:2] == "-" and split_tag(field)[0] != "")


def split_fields(line: str) -> list[str]:
    """The fields of a line; none of an empty one."""
    if not line.strip():
        return []
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line.strip(" ") else line.split()


def sentences(path: Path, lines: Iterator[Line], settings: DataSettings, bad: BadRows) -> Iterator[Row]:
    """The sentences of a file: column -> its fields, word by word. A line that cannot be used spoils its sentence.

    The columns of words and tags are called ``tokens`` and ``tags``, unless the settings name others; the rest by
    numbers from 1, or as CoNLL-U has them.
    """
    names: list[str] | None = None
    words: list[list[str]] = []
    begin = before = 0
    spoiled = False
    for number, line in itertools.chain(lines, [(0, "")]):
        fields = split_fields(line)
        spoiled = spoiled or bool(words and number and number != before + 1)  # a line between them was no UTF-8
        before = number
        if not fields or fields[0].startswith(DOCUMENT):
            if words and names and not spoiled:
                yield Row(dict(zip(names, map(list, zip(*words, strict=True)), strict=True)), f"{path}:{begin}")
            words, spoiled = [], False
            continue
        if _is_comment(line, fields, names, not words):
            continue
        names = names or _names(fields, path, settings)
        if fault := _fault(fields, names):
            bad.add(fault, f"{path}:{number}", "write each word with all its columns on one line")
            spoiled, begin = True, begin if words else number
            words = words or [[""] * len(names)]
        elif not (_is_conllu(names) and RANGE.fullmatch(fields[0])):
            begin = begin if words else number
            words.append(fields)


def _is_comment(line: str, fields: Sequence[str], names: Sequence[str] | None, is_first: bool) -> bool:
    """Whether a line beginning with # is no word: it has other columns than words have, or stands before a sentence
    (``is_first``) and ends in no tag."""
    if not line.startswith("#"):
        return False
    if names and len(fields) != len(names):
        return True
    before = is_first and (not names or line.startswith("# "))
    return before and len(fields) != len(CONLLU) and not _is_tag(fields[-1])


def _fault(fields: Sequence[str], names: Sequence[str]) -> str:
    if len(fields) != len(names):
        return f"{len(fields)} columns where {len(names)} are expected"
    empty = next((name for name, field in zip(names, fields, strict=True) if not field.strip()), None)
    return f"column {empty!r} is empty" if empty in (TOKENS, TAGS) else ""


def _is_conllu(names: Sequence[str]) -> bool:
    return names[0] == CONLLU[0]


def _names(fields: Sequence[str], path: Path, settings: DataSettings) -> list[str]:
    """The names of the columns."""
    endings = [suffix.lower() for suffix in path.suffixes]
    if ".conllu" in endings and len(fields) == len(CONLLU):
        names, word, tag = list(CONLLU), CONLLU.index("FORM"), CONLLU.index("UPOS")
    else:
        names, word, tag = [str(number) for number in range(1, len(fields) + 1)], 0, len(fields) - 1
    for place, name, known in ((word, TOKENS, TOKEN_NAMES), (tag, TAGS, TAG_NAMES)):
        if (
            (len(fields) > 1 or name == TOKENS)
            and not set(known) & set(settings.columns)
            and names[place] not in settings.columns.values()
        ):
            names[place] = name
    numbered = {str(number): place for place, number in enumerate(range(1, len(fields) + 1))}
    for column in settings.columns.values():  # numbers count in CoNLL-U too
        if column not in names and column in numbered:
            names[numbered[column]] = column
    return names


def lines_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Rows with ``tokens`` as lines of a file, each with its end; the other columns with a value for each token follow,
    those that are called ``tags`` and ``prediction`` last."""
    last = [TOKENS, TAGS, PREDICTION]
    for row in rows:
        count = len(row[TOKENS])
        whole = [name for name, value in row.items() if isinstance(value, list) and len(value) == count]
        others = [name for name in whole if name not in last and all(isinstance(cell, str) for cell in row[name])]
        names = [TOKENS, *others, *(name for name in last[1:] if name in whole)]
        yield from ("\t".join(cells) + "\n" for cells in zip(*(row[name] for name in names), strict=True))
        yield "\n"
