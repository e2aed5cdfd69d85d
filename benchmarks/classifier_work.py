"""What every arm of the comparison of classifiers is given: the same rows, the same split, the same recipe.

Each workload is a folder with ``train.jsonl``, ``held_out.json`` and ``recipe.json``, written once and read by every
arm. Nothing is longer than the recipe's ``max_tokens`` in the data sets that are compared, so that nobody cuts a text.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MODEL = "minilm-l6"
BATCH, MAX_TOKENS = 16, 256
RANK, ALPHA = 16, 32
RATES = {"full": 1e-4, "lora": 1e-3}
SCHEDULE, WARMUP = "cosine", 0.05
HELD_OUT, MOST_HELD_OUT = 0.2, 2000
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Workload:
    """A data set that is compared.

    Attributes:
        source: a data set's name; None: it is a file that the caller gives.
        columns: of :class:`lmworks.text.rows.DataSettings`, where the file does not name them.
        header: whether the file's first line does.
        limit: only the first so many rows.
        epochs: passes over the rows; names among words are learned only in a few.
        rates: learning rate by method.
    """

    source: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    header: bool = True
    limit: int | None = None
    epochs: int = 1
    rates: dict[str, float] = field(default_factory=lambda: dict(RATES))


WORKLOADS = {
    "movie-reviews": Workload("movie-reviews"),
    "sms-spam": Workload(columns={"label": "1", "text": "2"}, header=False),
    "wnut-17": Workload(epochs=3, rates={"full": 2e-4, "lora": 2e-3}),
    "snli": Workload(limit=5000),
}


@dataclass(frozen=True)
class Recipe:
    """How all arms of a workload train.

    Attributes:
        kind: of the rows (lmworks.text.rows.Kind).
        labels: of all rows, in the order of the head's outputs.
        epochs, batch_size, max_tokens, schedule, warmup, rank, alpha, targets: as lmworks' settings call them.
        rates: learning rate by method.
        rows: to train on.
    """

    kind: str
    labels: list[str]
    epochs: float
    rates: dict[str, float]
    rows: int
    batch_size: int = BATCH
    max_tokens: int = MAX_TOKENS
    schedule: str = SCHEDULE
    warmup: float = WARMUP
    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[str, ...] = TARGETS

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return max(1, round(self.epochs * math.ceil(self.rows / self.batch_size)))

    @property
    def is_tagging(self) -> bool:
        """Whether each word has a tag, else each text a label."""
        return self.kind == "tags"


def prepare(name: str, file: str | None, folder: Path, rows: int | None = None, epochs: float | None = None) -> Recipe:
    """Write a workload's rows and recipe.

    Args:
        name: of the workload.
        file: its data; None: those that lmworks has.
        folder: to write to; is made.
        rows: at most so many, held-out ones among them.
        epochs: instead of the workload's.
    """
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings

    work = WORKLOADS[name]
    settings = DataSettings(
        columns=work.columns, header=work.header, limit=work.limit, held_out=HELD_OUT, held_out_max=MOST_HELD_OUT
    )
    table = corpus.read(file or work.source, settings)
    if rows and rows < len(table):  # spread over the file, which may be sorted by label
        table.rows = [table.rows[place * len(table) // rows] for place in range(rows)]
    train, held_out = (list(map(_plain, part.rows)) for part in corpus.split(table, settings))
    recipe = Recipe(table.kind, table.labels, epochs or work.epochs, work.rates, len(train))
    folder.mkdir(parents=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in train]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "held_out.json").write_text(json.dumps(held_out), encoding="utf-8")
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe)), encoding="utf-8")
    return recipe


def _plain(row: Any) -> dict[str, Any]:
    names = ("tokens", "tags") if "tags" in row.values else ("text", "text_pair", "label")
    return {name: row.values[name] for name in names if name in row.values}


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a prepared workload."""
    values = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    return Recipe(**{**values, "targets": tuple(values["targets"])})


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows to train on."""
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").split("\n") if line]


def held_out_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that predictions are compared on."""
    rows: list[dict[str, Any]] = json.loads((folder / "held_out.json").read_text(encoding="utf-8"))
    return rows


def scored(rows: list[dict[str, Any]], predicted: list[Any]) -> dict[str, list[float]]:
    """What each held-out row adds to the figure: numerators and denominators, whose sums' quotient it is.

    Args:
        rows: held out.
        predicted: the label of each, or the tags of its words.

    Returns:
        ``right`` and ``of``: accuracy's, or entity F1's: twice the entities found, and those expected and predicted.
    """
    from lmworks.evaluate.entities import entity_figures

    if rows and "tags" in rows[0]:
        figures = entity_figures([row["tags"] for row in rows], predicted)
        return {"right": figures["row_right"], "of": figures["row_entities"]}
    pairs = zip(rows, predicted, strict=True)
    return {"right": [float(row["label"] == label) for row, label in pairs], "of": [1.0] * len(rows)}
