"""Rows with their places, tables of them, and the settings of reading them. Reads nothing itself."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lmworks.base.errors import InputError
from lmworks.base.notation import write_yaml
from lmworks.base.settings import Settings

Kind = Literal[
    "text",
    "labels",
    "multi_labels",
    "pair_labels",
    "values",
    "pair_values",
    "text_pairs",
    "completion",
    "pairs",
    "chat",
    "questions",
    "tags",
]
Format = Literal["txt", "csv", "tsv", "json", "jsonl", "parquet", "conll"]


class DataSettings(Settings):
    """How a data file is read, shown to the model and divided."""

    hints: ClassVar[dict[str, str]] = {
        "label": "--data.columns '{text: COLUMN, label: COLUMN}'",
        "messages": "--data.columns '{messages: COLUMN}'",
        "source": "--data.columns '{source: COLUMN, target: COLUMN}'",
        "target": "--data.columns '{source: COLUMN, target: COLUMN}'",
        "tags": "--data.columns '{tokens: COLUMN, tags: COLUMN}'",
    }

    kind: Kind | None = Field(None, description="What a row is; default: recognised by the columns.")
    format: Format | None = Field(None, description="Format of the file; default: by its name.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Which column is what, e.g. {prompt: question, completion: answer}; without header: numbers.",
    )
    text: str | None = Field(None, description='Text made of columns, e.g. "{title}\\n{body}".')
    prompt: str | None = Field(None, description='Prompt made of columns, e.g. "Question: {question}\\nAnswer:".')
    completion: str | None = Field(None, description='Completion made of columns, e.g. " {answer}".')
    label_separator: str | None = Field(
        None, min_length=1, description="Between several labels in one field, e.g. |: texts have any number of labels."
    )
    value_range: tuple[float, float] | None = Field(
        None, description="Smallest and largest value of a regression, e.g. [0, 5]: others are bad rows."
    )
    label_names: dict[str, str] = Field(default_factory=dict, description="Names of labels, e.g. {'0': no, '1': yes}.")
    header: bool = Field(True, description="Whether the first line of a CSV or TSV names the columns.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="Default: comma for CSV, tab for TSV.")
    quotes: bool | None = Field(None, description="Whether fields may stand in quotes; default: in CSV, not in TSV.")
    document: Literal["file", "paragraph", "line"] = Field("file", description="What one document of a txt file is.")
    subset: str | None = Field(None, description="Configuration of a hub data set.")
    split: str = Field("train", description="Split of a hub data set.")
    limit: int | None = Field(None, gt=0, description="Only the first so many rows.")
    on_bad_row: Literal["stop", "skip"] = Field("stop", description="Stop at a row that cannot be used, or count it.")

    template: Literal["auto", "on", "off"] = Field("auto", description="The model's chat template, where it has one.")
    system: str | None = Field(None, description="System message put before conversations that have none.")
    turns: Literal["all", "last"] = Field("all", description="Which assistant turns of a chat carry loss.")
    max_tokens: int | None = Field(None, gt=1, description="Longest example in tokens; default: the model's context.")
    on_long: Literal["cut", "skip", "stop"] = Field(
        "cut", description="What becomes of longer rows (texts are chunked)."
    )
    allow_no_loss: bool = Field(False, description="Go on when some rows have no token to learn; they are left out.")
    allow_no_end: bool = Field(False, description="Go on when the end-of-turn token carries no loss in some rows.")

    held_out: float = Field(0.1, ge=0, description="Share of the rows held out, or, from 1 on, their number.")
    held_out_max: int = Field(200, gt=0, description="At most so many rows are held out.")
    max_contamination: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Refuse a run if more of its held-out rows occur among the rows to train on; 1: allow all.",
    )
    validation: float = Field(
        0.0,
        ge=0,
        description="Leave the held-out rows out altogether, and hold out so large a share of the others instead (from "
        "1 on: their number): to choose settings without a look at the rows that the result is measured on.",
    )
    additional: list[str] = Field(
        default_factory=list,
        description="Files of further rows of the same kind to train on, none of which is held out: rows of other "
        "tasks against forgetting (replay), or planted ones.",
    )

    @field_validator("additional", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else [] if value is None else value

    @field_validator("text", "prompt", "completion")
    @classmethod
    def _lines_and_tabs(cls, pattern: str | None) -> str | None:
        """A shell hands on a backslash and an n where the person meant a new line."""
        return pattern.replace("\\n", "\n").replace("\\t", "\t") if pattern is not None else None


@dataclass(frozen=True)
class Row:
    """One row: its fields under our names, its place, and the key of the group that it is split with.

    Attributes:
        values: ``text``; ``text``, ``label`` (and ``prompt`` where the settings have one); ``text``, ``labels`` (a
            list); ``text``, ``value`` (a number); with ``text_pair`` where a row has two texts; ``prompt``,
            ``completion``; ``source``, ``target`` (and ``references``, where the row has several targets, and
            ``negatives``, where it has texts that do not belong to the source); ``messages``; ``question``,
            ``context``, ``answers`` (text/questions); ``tokens``, ``tags``, ``text``, ``starts`` (text/tagged_rows).
        place: ``file:line``, ``file: row n`` or, of rows given in Python, ``row n``.
        key: rows of one key fall on the same side of a split; empty: the content is the key.
        has_header: a raw row of a table whose header names the columns.
    """

    values: dict[str, Any]
    place: str = ""
    key: str = ""
    has_header: bool = False

    @property
    def texts(self) -> list[str]:
        """The text of a row of labels or values, or its two texts."""
        return [self.values[name] for name in ("text", "text_pair") if name in self.values]


@dataclass
class Table:
    """Rows of one kind, and what a person should know of them.

    Attributes:
        name: the source.
        kind: one of Kind.
        rows: the usable rows.
        columns: our field -> the column or pattern it is built from.
        notes: how the kind was recognised, unused columns ...
        skipped: place and reason of each row left out.
        labels: of kinds with labels: every label of the source, sorted; both sides of a split know them all.
    """

    name: str
    kind: Kind
    rows: list[Row]
    columns: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)


def refuse_duplicate_columns(names: Iterable[object], place: str) -> None:
    """Refuse a table that has two columns of one name, of which rows as dictionaries would keep the last alone.

    Raises:
        InputError: it has.
    """
    counts = Counter(map(str, names))
    double = next((name for name, count in counts.items() if count > 1), None)
    if double is not None:
        raise InputError(f"two columns are called {double!r}", place, "rename or drop one of them")


class BadRows:
    """Rows that cannot be used: the first one stops the run, or all are counted.

    Args:
        on_bad_row: ``stop`` or ``skip``.
        may_skip: whether who reads them offers to skip bad rows, so that the hint may say it.
    """

    def __init__(self, on_bad_row: str, may_skip: bool = True) -> None:
        self.skip, self.may_skip = on_bad_row == "skip", may_skip
        self.reasons: list[str] = []

    def add(self, fault: str, place: str, hint: str) -> None:
        """Count a bad row, or raise it as an InputError."""
        if not self.skip:
            more = "; or leave such rows out with --data.on_bad_row skip" if self.may_skip else ""
            raise InputError(fault, place, f"{hint}{more}")
        self.reasons.append(f"{place}: {fault}")


def option(name: str, value: Any) -> str:
    """A data setting as an option of a command, quoted for the shell: ``--data.columns '{text: 1, label: 2}'``."""
    text = value if isinstance(value, str) else write_yaml(value, flow=True).strip()
    return f"--data.{name} {shlex.quote(text)}"
