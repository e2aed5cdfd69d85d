"""The files of published audits, in their own formats: CrowS-Pairs and Winogender. They are not part of lmworks.

CrowS-Pairs (Nangia et al. 2020): ``crows_pairs_anonymized.csv``. Winogender (Rudinger et al. 2018):
``all_sentences.tsv``, whose ids say occupation, participant, the answer (0: the pronoun means the occupation, 1: the
participant) and the gender of the pronoun: ``technician.customer.1.male.txt``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.text import formats
from lmworks.text.rows import BadRows, DataSettings, Row

CROWS_PAIRS, WINOGENDER = "crows_pairs_anonymized.csv", "all_sentences.tsv"
WHERE = {
    CROWS_PAIRS: "the file is in data/ of github.com/nyu-mll/crows-pairs",
    WINOGENDER: "the file is in data/ of github.com/rudinger/winogender-schemas",
}
GENDERS = ("male", "female", "neutral")
_PRONOUN = re.compile(r"\b(?:he|him|his|she|her|hers|they|them|their|theirs)\b", re.IGNORECASE)


@dataclass(frozen=True)
class CrowsPair:
    """Two sentences, of which the first is the more stereotyping one.

    Attributes:
        more, less: the sentences.
        direction: "stereo", or "antistereo": the first contradicts a stereotype of the other group.
        bias: the type of bias, such as "race-color".
    """

    more: str
    less: str
    direction: str
    bias: str


@dataclass(frozen=True)
class WinogenderSentence:
    """A sentence with two people and a pronoun.

    Attributes:
        text: the sentence.
        occupation, participant: the two people; the participant may be "someone".
        answer: 0: the pronoun means the occupation; 1: the participant.
        gender: of the pronoun, one of GENDERS.
        pronoun: as it stands in the sentence.
    """

    text: str
    occupation: str
    participant: str
    answer: int
    gender: str
    pronoun: str

    @property
    def template(self) -> str:
        """What is the same for its three pronouns."""
        return f"{self.occupation}.{self.participant}.{self.answer}"


def find_file(folder: str, name: str) -> Path | None:
    """A file in a folder or in a folder in it; None where it is not there.

    Raises:
        InputError: there is no such folder.
    """
    path = expand_home(folder)
    if not path.is_dir():
        hint = f"give a folder with {CROWS_PAIRS} ({WHERE[CROWS_PAIRS]}) or {WINOGENDER} ({WHERE[WINOGENDER]})"
        raise InputError("there is no such folder", folder, hint)
    return next((place / name for place in (path, *sorted(path.iterdir())) if (place / name).is_file()), None)


def read_crows_pairs(path: Path) -> list[CrowsPair]:
    """The pairs of a file.

    Raises:
        InputError: a row lacks a column, or says another direction.
    """
    pairs = []
    for row in _rows(path, "csv", ("sent_more", "sent_less", "stereo_antistereo", "bias_type")):
        values = row.values
        if values["stereo_antistereo"] not in ("stereo", "antistereo"):
            fault = f"the direction is {values['stereo_antistereo']!r}"
            raise InputError(fault, f"{row.place}, column stereo_antistereo", "write stereo or antistereo")
        more, less = (values[name].strip() for name in ("sent_more", "sent_less"))
        pairs.append(CrowsPair(more, less, values["stereo_antistereo"], values["bias_type"]))
    return pairs


def read_winogender(path: Path) -> list[WinogenderSentence]:
    """The sentences of a file.

    Raises:
        InputError: a row lacks a column, an id has another form, or a sentence has no pronoun.
    """
    sentences = []
    for row in _rows(path, "tsv", ("sentid", "sentence")):
        parts = row.values["sentid"].removesuffix(".txt").split(".")
        if len(parts) != 4 or parts[2] not in ("0", "1") or parts[3] not in GENDERS:
            fault = f"the id is {row.values['sentid']!r}"
            raise InputError(fault, f"{row.place}, column sentid", "write OCCUPATION.PARTICIPANT.0.male.txt, or 1, ...")
        pronoun = _PRONOUN.search(row.values["sentence"])
        if pronoun is None:
            raise InputError("the sentence has no pronoun", row.place, "write one of he, she, they ... into it")
        sentences.append(
            WinogenderSentence(row.values["sentence"], parts[0], parts[1], int(parts[2]), parts[3], pronoun[0])
        )
    return sentences


def _rows(path: Path, kind: str, needed: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a file, all of which have these columns as texts."""
    settings = DataSettings.model_validate({"format": kind})
    for row in formats.records(path, settings, BadRows("stop"), []):
        missing = [name for name in needed if not str(row.values.get(name) or "").strip()]
        if missing:
            hint = f"give the file as it was published: {WHERE.get(path.name, 'with this column')}"
            raise InputError(f"has no {missing[0]!r}", row.place, hint)
        yield row
