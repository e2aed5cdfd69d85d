"""What a kind of audit is given, and what it gives: figures, telling rows, and what was not measured and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lmworks.audits.figure import Figure
from lmworks.audits.settings import AuditSettings
from lmworks.text.messages import Message
from lmworks.text.overlap import said_by
from lmworks.text.rows import Row, Table

Item = TypeVar("Item")


@dataclass(frozen=True)
class Given:
    """What is measured on, besides the model.

    Attributes:
        settings: of the audit.
        table: the user's rows: those of the file that was given, else the held-out rows of the run; None: neither.
        run: the folder of the run whose rows are meant; None: no model is a run.
        train, held_out: the rows that this run trained on and those that it held out; None without a run.
        no_rows: why there are no training rows.
    """

    settings: AuditSettings
    table: Table | None = None
    run: Path | None = None
    train: Table | None = None
    held_out: Table | None = None
    no_rows: str = "no model is a run, so its training rows are not known"

    def draw(self, items: Sequence[Item], most: int | None = None) -> list[Item]:
        """At most so many of these, drawn at random, in their order; by default the rows of the settings."""
        most = self.settings.rows if most is None else most
        if len(items) <= most:
            return list(items)
        places = np.random.default_rng(self.settings.seed).choice(len(items), most, replace=False)
        return [items[place] for place in sorted(places.tolist())]


@dataclass
class Part:
    """What one kind of audit gave.

    Attributes:
        figures: in their order.
        examples: rows that show what was found, each one a line.
        missing: what was not measured, each with the reason.
        notes: what a person should know of the rows.
    """

    figures: list[Figure] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        listed = {"examples": self.examples, "not_measured": self.missing, "notes": self.notes}
        return {"figures": [figure.as_dict() for figure in self.figures], **listed}


def text_of(row: Row) -> str:
    """All that a row says, as one text."""
    return said_by(row.values)


def prompt_of(row: Row) -> list[Message] | None:
    """What a row asks, as a conversation; None where it asks nothing."""
    values = row.values
    if "messages" in values:
        asked = [dict(message) for message in values["messages"]]
        end = max((number for number, turn in enumerate(asked, 1) if turn["role"] == "user"), default=0)
        return asked[:end] or None
    asked_of = next((values[name] for name in ("prompt", "source", "question") if name in values), None)
    return [{"role": "user", "content": str(asked_of)}] if asked_of else None


def with_answer(row: Row) -> tuple[list[Message], str] | None:
    """What a row asks, with its own answer; None where it has none."""
    prompt = prompt_of(row)
    if prompt is None:
        return None
    if "messages" in row.values:
        turns = row.values["messages"]
        answer = str(turns[len(prompt)].get("content") or "") if len(turns) > len(prompt) else ""
    else:
        answer = str(row.values.get("completion") or row.values.get("target") or "")
    return (prompt, answer) if answer.strip() else None
