"""What lmworks predict prints of the tags of a file's words: the first texts with their entities, F1 by type."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from lmworks.base import figures

if TYPE_CHECKING:
    from lmworks.run.predict_tags import TaggedRows


def show_tags(tagged: TaggedRows, count: int) -> None:
    """The first rows, how often each label was predicted, and the figures."""
    from rich.console import Console

    from lmworks.evaluate.metrics import bootstrap_interval
    from lmworks.evaluate.tagging import mark_entities
    from lmworks.reports import entities, entity_tables, terminal

    for row, found in list(zip(tagged.table.rows, tagged.predicted, strict=True))[:count]:
        print(f"{row.place}: {mark_entities(found.words, found.tags)}")
        for entity in found.entities:
            place = f"characters {entity.start} to {entity.end}"
            print(f"  {entity.label}: {entity.text!r}, {place}, probability {entity.probability:.3f}")
    counts = Counter(entity.label for found in tagged.predicted for entity in found.entities)
    total = figures.count_of(len(tagged.predicted), "row")
    print(f"{total}: {', '.join(f'{label} {times:,}' for label, times in counts.most_common()) or 'no entity'}")
    part = tagged.figures
    if part is None:
        return
    ends = bootstrap_interval(part["row_right"], weights=part["row_entities"])
    print(f"entity F1 {figures.number(part['f1'])} (95 % interval {figures.interval(ends.low, ends.high)})")
    for name in ("precision", "recall", "strict_f1", "accuracy"):
        title = {"strict_f1": "F1, strict IOB2", "accuracy": "words with the right tag, share"}.get(name, name)
        print(f"{title} {figures.number(part[name])}")
    to = Console(highlight=False, width=None if sys.stdout.isatty() else terminal.PLAIN_WIDTH)
    for line in entity_tables.render(entities.card_part({"entities": part})):
        to.print(line)
