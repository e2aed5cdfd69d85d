"""The comparison that chose a run's settings, as its recipe, journal and card name it. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lmworks.base.settings import Settings


class ComparisonOrigin(Settings):
    """The comparison that chose the settings of a run, and what it measured of them."""

    folder: str = Field(description="Of the comparison.")
    contender: str = Field(description="Title of the contender whose settings these are.")
    figure: str = Field(description="What was measured: accuracy ...")
    value: float = Field(description="Its value on the test part of the comparison.")
    interval: list[float] | None = Field(None, description="The ends of its 95 % interval.")
    rows: int = Field(description="Rows of that test part.")


def start_entries(origin: ComparisonOrigin | None) -> dict[str, Any]:
    """What the first event of a run's journal says of it; nothing of a run that no comparison chose."""
    return {} if origin is None else {"comparison": origin.model_dump()}
