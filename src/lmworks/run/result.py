"""A run that has ended, as Python calls give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmworks.reports import card, page
from lmworks.run.load import load

Say = Callable[[str], None]


def silent(line: str) -> None:
    """A ``say`` that prints nothing."""


@dataclass
class Run:
    """A run that has ended.

    Attributes:
        folder: the run's folder.
        stopped: why training ended: "finished", "early", "time" (train.max_time) or "interrupted".
    """

    folder: Path
    stopped: str

    @cached_property
    def model(self) -> Any:
        """The trained model; for an interrupted run, its best checkpoint."""
        return load(self.folder)

    @property
    def card(self) -> dict[str, Any]:
        """The report card, as in report.json."""
        return card.build(self.folder)

    def _repr_html_(self) -> str:
        """The report card, for notebooks."""
        return page.notebook_html(self.card)
