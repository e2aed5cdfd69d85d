"""Hard negatives of pairs, mined by the model itself before it is trained, and kept in the run's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.files import atomic_write
from lmworks.data.examples import limit_of
from lmworks.data.hard_negatives import MiningRange, hard_negatives
from lmworks.data.sequences import SIDES
from lmworks.generate.embed import text_ids, vectors_of
from lmworks.generate.text_vectors import pooling_of
from lmworks.language_model.model import LanguageModel
from lmworks.tasks.contrastive import pooling_for
from lmworks.tasks.settings import TaskSettings
from lmworks.text.rows import DataSettings, Row, Table

FILE = "negatives.jsonl"
"""In a run's folder: a line for each row to train on, with its source, target and all negatives."""


def mine(model: LanguageModel, rows: Table, all_rows: Table, task: TaskSettings, data: DataSettings) -> Table:
    """Rows with the documents as negatives that the model confuses with their targets.

    Documents are the targets of the rows to train on. None becomes a negative of a source whose target it is in any
    row, held-out rows included, and none with the text of the source itself.

    Args:
        model: embeds sources and targets alike, before it is trained.
        rows: pairs to train on.
        all_rows: all pairs, the held-out ones among them.
        task: how many, from which ranks, below which scores.
        data: the longest text.

    Raises:
        InputError: the range of ranks is empty, or no row gets a negative.
    """
    if task.mining_range_min >= task.mining_range_max:
        fault = f"no rank is at least {task.mining_range_min} and below {task.mining_range_max}"
        raise InputError(fault, "task.mining_range_max", f"give more than {task.mining_range_min}")
    first, second = SIDES[rows.kind]
    sources = list(dict.fromkeys(row.values[first] for row in rows.rows))
    documents = list(dict.fromkeys(row.values[second] for row in rows.rows))
    number = {text: place for place, text in enumerate(documents)}
    positives = {text: {number[text]} if text in number else set() for text in sources}
    for row in all_rows.rows:
        if row.values[first] in positives and row.values[second] in number:
            positives[row.values[first]].add(number[row.values[second]])
    vectors = _vectors(model, [*sources, *documents], task, limit_of(data, model.config.max_position_embeddings))
    place = {text: line for line, text in enumerate(sources)}
    allowed = MiningRange(
        task.mined_negatives, task.mining_range_min, task.mining_range_max, task.mining_margin, task.mining_max_score
    )
    result = hard_negatives(
        vectors[[place[row.values[first]] for row in rows.rows]],
        vectors[len(sources) :],
        [number[row.values[second]] for row in rows.rows],
        [positives[row.values[first]] for row in rows.rows],
        allowed,
    )
    count = sum(map(len, result.documents))
    if not count:
        hint = "lower task.mining_margin or task.mining_range_min, give more rows, or leave task.mined_negatives out"
        fault = f"no hard negative was found among {count_of(len(documents), 'document')}"
        raise InputError(fault, rows.name, hint)
    texts = [[documents[document] for document in of_row] for of_row in result.documents]
    short = sum(len(of_row) < task.mined_negatives for of_row in texts)
    searched = f"for {count_of(len(rows), 'row')} among {count_of(len(documents), 'document')}"
    notes = [f"hard negatives mined: {count:,} {searched}; left out as likely positives: {result.likely_positives:,}"]
    if short:
        notes.append(f"rows with fewer than {task.mined_negatives} mined negatives: {short:,}")
    return _with_negatives(rows, texts, notes)


def _vectors(model: LanguageModel, texts: list[str], task: TaskSettings, limit: int) -> Any:
    """(n, E) float32 vectors of length 1, made of texts as the task makes them."""
    sentence_pooling = pooling_of(pooling_for(task, model.config), True)
    ids, _ = text_ids(model.network, model.tokenizer, texts, sentence_pooling, limit)
    return vectors_of(model.network, ids, sentence_pooling)


def _with_negatives(rows: Table, negatives: list[list[str]], notes: list[str]) -> Table:
    """The rows with further negatives beside their own, none twice."""
    listed = [
        replace(row, values={**row.values, "negatives": list(dict.fromkeys([*row.values.get("negatives", []), *more]))})
        if more
        else row
        for row, more in zip(rows.rows, negatives, strict=True)
    ]
    return replace(rows, rows=listed, notes=[*rows.notes, *notes])


def write(rows: Table, folder: Path) -> None:
    """Write the rows' negatives into a run's folder."""
    lines = [json.dumps(_line(row, rows.kind), ensure_ascii=False) + "\n" for row in rows.rows]
    atomic_write(folder / FILE, "".join(lines))


def read(rows: Table, folder: Path) -> Table:
    """Rows with the negatives that a run's folder keeps, so that a resumed run trains on the same.

    Raises:
        InputError: the file is missing or damaged, or is of other rows.
    """
    path = folder / FILE
    hint = "restore the file as the run wrote it, or begin the run anew"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        negatives = [list(map(str, line["negatives"])) for line in lines]
        same = [
            _line(row, rows.kind) | {"negatives": line["negatives"]} == line
            for row, line in zip(rows.rows, lines, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the mined negatives of the run cannot be read: {error}", str(path), hint) from error
    if not all(same):
        fault = "the mined negatives are of other rows: the data has changed"
        raise InputError(fault, f"{path}:{same.index(False) + 1}", hint)
    return _with_negatives(rows, negatives, [])


def _line(row: Row, kind: str) -> dict[str, Any]:
    first, second = SIDES[kind]
    return {"source": row.values[first], "target": row.values[second], "negatives": row.values.get("negatives", [])}
