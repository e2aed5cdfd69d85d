"""Keeps a comparison that `lmworks compare` made in benchmarks/results: its figures, without the texts that it quotes.

python benchmarks/keep_comparison.py FOLDER NAME
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import arms

from lmworks.comparisons.comparison_state import STATE


def without_texts(values: dict[str, Any]) -> dict[str, Any]:
    """A comparison's values without the answers, which quote the data."""
    return {**values, "results": [{**result, "answers": []} for result in values["results"]]}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a comparison")
    parser.add_argument("name", help="in the file's name, such as movie-reviews")
    arguments = parser.parse_args()
    values = json.loads((arguments.folder / STATE).read_text(encoding="utf-8"))
    arms.keep(f"compare-{arguments.name}", without_texts(values))


if __name__ == "__main__":
    main()
