"""The card's part about a model that tags words: the types of entities, and mistakes.

It is made from the part ``entities`` of an ``evaluation`` event (evaluate/entities). The figures over all types stand
in the card's table (reports/measures). Computes nothing anew; terminal and page draw it.
"""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]
MOST_TYPES = 40
"""Types that are listed; of more, the most frequent."""


def card_part(event: Event) -> dict[str, Any] | None:
    """The part of a card; None where the evaluation is not that of a model that tags words."""
    figures = event.get("entities")
    if not figures:
        return None
    types = figures.get("types") or {}
    frequent = sorted(types, key=lambda kind: -types[kind]["expected"])[:MOST_TYPES]
    return {
        "title": "Types of entities" if figures.get("scheme") else "Tags",
        "rows": figures["rows"],
        "types": {kind: dict(types[kind]) for kind in types if kind in frequent},
        "left_out": len(types) - len(frequent),
        "mistakes": [mistake for mistake in figures.get("mistakes") or [] if isinstance(mistake, dict)],
    }
