"""The ratings of a blind test as preference pairs, from which a model learns what people prefer (DPO and its like)."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

from lmworks.ratings.blind_test import BlindTest
from lmworks.ratings.rating import Rating
from lmworks.text.row_files import write_rows


def preference_pairs(test: BlindTest) -> list[dict[str, Any]]:
    """Rows of ``prompt``, ``chosen``, ``rejected``.

    There is a row for every two answers of which more raters preferred the one than the other. A prompt that is one
    message is a text, and so are its answers; one of several messages is a list of them, and its answers lists of one,
    as TRL has them.
    """
    by_prompt: dict[int, list[Rating]] = defaultdict(list)
    for rating in test.ratings():
        by_prompt[rating.prompt].append(rating)
    texts, rows = test.answers.texts(), []
    for prompt in sorted(by_prompt):
        answers = texts[prompt]
        for better, worse in permutations(answers, 2):
            if net_preference(by_prompt[prompt], better, worse) > 0:
                rows.append(_row(test.prompts[prompt], answers[better], answers[worse]))
    return rows


def net_preference(ratings: list[Rating], first: str, second: str) -> int:
    """How many of these raters, to whom both answers were shown, prefer the first to the second, less those who prefer
    the second to the first."""
    return sum(rating.preference(first, second) for rating in ratings if {first, second} <= set(rating.order))


def write_preference_pairs(test: BlindTest, path: str | Path) -> int:
    """Write them to a file.

    Args:
        test: the test.
        path: .jsonl, .json or .parquet; .csv or .tsv where all prompts are texts.

    Returns:
        How many there are.

    Raises:
        InputError: the place cannot be written, or its name says no format.
    """
    rows = preference_pairs(test)
    write_rows(path, rows)
    return len(rows)


def _row(prompt: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return {"prompt": prompt[0]["content"], "chosen": chosen, "rejected": rejected}
    replies = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    return {"prompt": prompt, **dict(zip(("chosen", "rejected"), replies, strict=True))}
