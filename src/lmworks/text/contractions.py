"""English contractions and what they stand for. 's is written out only where it can be no possessive."""

from __future__ import annotations

import re

_IRREGULAR = {
    "ain't": "is not",
    "can't": "can not",
    "cannot": "can not",
    "shan't": "shall not",
    "won't": "will not",
    "let's": "let us",
    "y'all": "you all",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "gonna": "going to",
    "gotta": "got to",
    "wanna": "want to",
    "'tis": "it is",
    "'twas": "it was",
}
_NEGATED = "are could dare did does do had has have is might must need ought should was were would"
_BEFORE_IS = "he she it that this there here what where when who why how everything something nothing"
_ENDINGS = {"'re": " are", "'ve": " have", "'ll": " will", "'d": " would", "'m": " am"}
"""'d may be "had" as well: "would" is the more frequent of the two."""
_PRONOUNS = "i you he she it we they that this there these those who what where how"
_MODALS = "could should would might must may"


def _table() -> dict[str, str]:
    table = dict(_IRREGULAR)
    table |= {f"{word}n't": f"{word} not" for word in _NEGATED.split()}
    table |= {f"{word}'s": f"{word} is" for word in _BEFORE_IS.split()}
    table |= {f"{word}{ending}": word + rest for word in _PRONOUNS.split() for ending, rest in _ENDINGS.items()}
    table |= {f"{word}'ve": f"{word} have" for word in _MODALS.split()}
    return table | {f"{word}n't've": f"{word} not have" for word in _MODALS.split()}


CONTRACTIONS = _table()
"""Contraction in lower case, with a straight apostrophe -> the words."""
_WORDS = re.compile(
    r"(?<![\w'’])(?:"
    + "|".join(re.escape(word).replace("'", "['’]") for word in sorted(CONTRACTIONS, key=len, reverse=True))
    + r")(?![\w'’])",
    re.IGNORECASE,
)


def write_out(text: str) -> str:
    """The text with its contractions written out; a capital at the beginning stays."""
    return _WORDS.sub(_words, text)


def _words(match: re.Match[str]) -> str:
    written = match[0]
    words = CONTRACTIONS[written.lower().replace("’", "'")]
    if written.isupper() and len(written) > 2:
        return words.upper()
    letter = written.lstrip("'’")[:1]
    return words[:1].upper() + words[1:] if letter.isupper() else words
