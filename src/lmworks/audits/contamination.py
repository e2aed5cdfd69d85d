"""Contamination: how much of the held-out rows, of your rows and of suites occurs in training rows (text/overlap)."""

from __future__ import annotations

from collections.abc import Sequence

from lmworks.audits.figure import share, sign
from lmworks.audits.part import Given, Part, text_of
from lmworks.audits.suite_files import CROWS_PAIRS, WINOGENDER, find_file, read_crows_pairs, read_winogender
from lmworks.base.figures import shorten
from lmworks.text.overlap import SHARE, N, overlap

HIDES = (
    "Not contamination of the base: only rows of this run are known, not what a published model was trained on. A row "
    "that was paraphrased or translated shares no n-gram."
)
SHOWN = 3


def measure_data(given: Given) -> Part:
    """What occurs in the training rows."""
    part = Part()
    if given.train is None or given.held_out is None:
        part.missing.append(f"contamination: {given.no_rows}")
        return part
    training = [text_of(row) for row in given.train.rows]
    _figure("held_out", "held-out rows", [text_of(row) for row in given.held_out.rows], training, part)
    if given.table is not None and given.table is not given.held_out:
        _figure("rows", f"rows of {given.table.name}", [text_of(row) for row in given.table.rows], training, part)
    if given.settings.suite_data is not None:
        for name, sentences in suite_sentences(given.settings.suite_data).items():
            _figure(name, f"sentences of {name}", sentences, training, part)
    return part


def suite_sentences(folder: str) -> dict[str, list[str]]:
    """The sentences of the suites in a folder, by the names of their files.

    Raises:
        InputError: there is no such folder, or a file has another form.
    """
    listed = {}
    if (path := find_file(folder, CROWS_PAIRS)) is not None:
        listed[CROWS_PAIRS] = [text for pair in read_crows_pairs(path) for text in (pair.more, pair.less)]
    if (path := find_file(folder, WINOGENDER)) is not None:
        listed[WINOGENDER] = [sentence.text for sentence in read_winogender(path)]
    return listed


def _figure(name: str, title: str, texts: Sequence[str], training: Sequence[str], part: Part) -> None:
    if not texts:
        part.missing.append(f"contamination of {title}: there are none")
        return
    measured = overlap(texts, training)
    hits = [number >= SHARE for number in measured.shares]
    signature = sign("contamination", grams=f"{N} words", least=SHARE, rows=len(texts))
    full = f"{title} that occur in training rows"
    part.figures.append(share(f"contamination.{name}", full, hits, signature, HIDES, neutral=0.0))
    part.examples += [f"{title}: {shorten(texts[number], 100)}" for number in measured.contaminated[:SHOWN]]
