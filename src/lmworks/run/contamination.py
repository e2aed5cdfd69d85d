"""Whether rows that a run is measured on occur among the rows that it trains on: counted, said, and refused above a
limit (text/overlap)."""

from __future__ import annotations

from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, percent
from lmworks.text.corpus import is_divided_inside
from lmworks.text.overlap import SHARE, N, overlap, said_by
from lmworks.text.rows import DataSettings, Table, option

FEWEST = 10  # held-out rows from which on a share is refused: of fewer, one row is more than a tenth


def measure(train: Table, held_out: Table) -> dict[str, Any]:
    """The part ``contamination`` of a run's data: how many held-out rows occur among the rows to train on.

    Returns:
        ``rows``, ``contaminated``, ``share``, ``n`` and ``examples``: places of some contaminated rows.
    """
    texts = [said_by(row.values) for row in held_out.rows]
    measured = overlap(texts, (said_by(row.values) for row in train.rows))
    places = [held_out.rows[number].place for number in measured.contaminated]
    counts = {"rows": len(texts), "contaminated": len(places), "share": measured.share, "n": measured.n}
    return {**counts, "examples": places[:3]}


def check(train: Table, held_out: Table, settings: DataSettings) -> list[str]:
    """A note where held-out rows occur among the rows to train on.

    Args:
        train, held_out: both sides.
        settings: ``max_contamination`` says how many may.

    Raises:
        InputError: more than these do.
    """
    if not len(held_out) or is_divided_inside(train):
        return []
    found = measure(train, held_out)
    if not found["contaminated"]:
        return []
    rows = f"{found['contaminated']} of {count_of(found['rows'], 'held-out row')} ({percent(found['share'])})"
    fault = f"{rows} occur among the rows to train on, in {percent(SHARE)} or more of their {N}-grams of words"
    if found["rows"] >= FEWEST and found["share"] > settings.max_contamination:
        places = f"the first: {found['examples'][0]}" if found["examples"][0] else ""
        hint = f"take such rows out, or allow them: {option('max_contamination', 1)}"
        raise InputError(f"{fault}; what is measured on them is no proof of learning", places or train.name, hint)
    return [f"{fault} (first: {found['examples'][0]}): figures of the held-out rows are flattered by them"]
