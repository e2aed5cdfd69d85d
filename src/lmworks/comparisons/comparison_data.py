"""The rows of a comparison: how they are divided, and what is refused or advised because of their number."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.contender_recipes import WRITTEN_KINDS, measured_rows
from lmworks.comparisons.planting import CANARY_KINDS
from lmworks.run import contamination
from lmworks.text import corpus, formats
from lmworks.text.rows import DataSettings, Table, option

FEWEST_TEST_ROWS = 20
FEWEST_ROWS = 10 * FEWEST_TEST_ROWS
"""Rows of the data that a comparison keeps at least where it is advised to take fewer."""


def divided(settings: CompareSettings) -> tuple[Table, Table, Table]:
    """The training rows, those of validation included; the validation part; the test part."""
    table = corpus.read(settings.source, settings.data)
    with_validation = settings.data.model_copy(update={"validation": settings.validation})
    train, test = corpus.split(table, settings.data)
    contamination.check(train, test, settings.data)  # before any contender is trained; each run says what was found
    if settings.validation >= max(1, len(train)):
        fault = f"{settings.validation:g} rows are to be held out of {count_of(len(train), 'row')}"
        raise InputError(fault, "validation", "--validation 0.1")
    return train, corpus.split(table, with_validation)[1], test


def digest(train: Table, test: Table) -> str:
    """A short hash of the rows on both sides."""
    values = [[row.values for row in part.rows] for part in (train, test)]
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def refuse_few(settings: CompareSettings, kind: str, test: int) -> None:
    """Refuse a comparison by too few rows.

    Args:
        settings: of the comparison.
        kind: of the rows.
        test: rows of the test part.

    Raises:
        InputError: so few of them are measured that they tell nothing apart.
    """
    measured_count, wanted = measured_rows(settings, kind, test), 5 * FEWEST_TEST_ROWS
    if measured_count >= FEWEST_TEST_ROWS:
        return
    fault, tells = f"the test part has {count_of(test, 'row')}", f"some {wanted} tell large differences apart"
    if test >= FEWEST_TEST_ROWS:
        fault = f"of the test part {count_of(measured_count, 'row')} are measured"
        more = f"--evaluate.{'task_rows' if kind in WRITTEN_KINDS else 'measured'} {min(wanted, test)}"
    else:
        more = _more_rows(corpus.read(settings.source, settings.data), settings.data, wanted)
    raise InputError(f"{fault}, too few to tell anything apart", settings.source, f"{more}: {tells}")


def _more_rows(table: Table, settings: DataSettings, wanted: int) -> str:
    """How more rows can be held out."""
    if corpus.is_divided_inside(table):
        file = Path(table.rows[0].place.rpartition(":")[0].removesuffix(".gz"))
        is_plain = "txt" in (settings.format, formats.SUFFIXES.get(file.suffix.lower()))
        if is_plain and settings.document == "file":
            return f"read paragraphs as rows, {option('document', 'paragraph')}"
        return "give more texts"
    if len(table) <= wanted:
        return "give more rows"
    most = "" if settings.held_out_max >= wanted else f" {option('held_out_max', str(wanted))}"
    return f"hold out more, {option('held_out', str(wanted))}{most}, or give more rows"


def refuse_one_label(train: Table, test: Table) -> None:
    """Refuse rows to train on, or to test with, that have one label alone.

    Raises:
        InputError: they have.
    """
    if train.kind not in ("labels", "pair_labels"):
        return
    sorted_hint = "a file that is sorted by label is to be shuffled first, as --data.limit reads its first rows"
    for rows, use, fault, hint in (
        (train, "to train on", "there is nothing to learn", f"add rows with other labels; {sorted_hint}"),
        (test, "to test with", "they tell no contender from another", sorted_hint),
    ):
        labels = {row.values.get("label") for row in rows.rows}
        if len(labels) == 1:
            raise InputError(f"every row {use} has the label {labels.pop()!r}: {fault}", rows.name, hint)


def cheaper_options(settings: CompareSettings, row_counts: dict[str, Any]) -> list[str]:
    """Options with which the same contenders need less time besides their training: half of the rows, as far as enough
    are left to compare by.

    Args:
        settings: of the comparison.
        row_counts: as of a comparison's state.
    """
    kind, test, share = row_counts["kind"], row_counts["test"], settings.data.held_out
    measured_count, options = measured_rows(settings, kind, test), []
    if (half := max(FEWEST_TEST_ROWS, measured_count // 2)) < measured_count:
        setting = {"text": "evaluate.measured", **dict.fromkeys(WRITTEN_KINDS, "evaluate.task_rows")}
        options.append(f"--{setting.get(kind, 'data.held_out')} {half}")
    limit = (row_counts["training"] + test) // 2
    if limit >= FEWEST_ROWS and (share < limit if share >= 1 else share * limit >= FEWEST_TEST_ROWS):
        options.append(option("limit", str(limit)))
    if settings.canaries and kind in CANARY_KINDS:
        options.append("--canaries 0")
    return options
