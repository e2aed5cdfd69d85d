"""lmworks runs: the runs in a folder, newest first."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

ABOUT = """The runs in a folder, newest first: model, data, method and task, how far each came, its headline figure
before and after, its size. Resumable: stopped with a checkpoint, from which lmworks resume goes on. Interrupted:
stopped before anything was saved, so that lmworks resume begins again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FOLDER, and how to show it."""
    parser.description = ABOUT
    parser.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="holds the runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="a list of runs and a list of faults")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print a table of them; folders that cannot be read on standard error."""
    from lmworks.reports import runs

    rows, faults = runs.overview(args.folder)
    if args.json:
        json.dump({"runs": rows, "faults": faults}, sys.stdout, ensure_ascii=False, indent=1)
        print()
        return 0
    if rows:
        _print(rows)
    else:
        print(f"no runs in {args.folder}")
    for fault in faults:
        print(f"cannot be read: {fault}", file=sys.stderr)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    from lmworks.base import figures
    from lmworks.commands import show
    from lmworks.reports import facts

    cells = [
        (
            row["name"],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"])) if row["started"] else figures.UNKNOWN,
            facts.title(row["model"]),
            facts.title(row["data"]),
            ", ".join(part for part in (row["method"], row["task"]) if part),
            ", ".join(part for part in (row["state"], row["progress"]) if part),
            _headline(row["headline"]),
            figures.byte_size(row["bytes"]),
        )
        for row in rows
    ]
    headers = ("run", "started", "model", "data", "method, task", "state", "before → after", "size")
    show.table(headers, cells, spare=("size", "method, task", "started", "data", "model"))


def _headline(headline: dict[str, Any] | None) -> str:
    from lmworks.base import figures

    if headline is None:
        return figures.UNKNOWN
    before, after = figures.number(headline["before"]), figures.number(headline["after"])
    return f"{headline['name']} {before} → {after}"
