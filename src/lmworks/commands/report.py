"""lmworks report: the card of a run, on the terminal, as report.json and as one HTML file."""

from __future__ import annotations

import argparse
import json
import sys
import webbrowser

ABOUT = """What a run was worth: quality before and after with intervals, what was forgotten, what it cost beside what
was planned, sample answers. Writes report.json and report.html (one file, no network) into the run's folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, and how to show it."""
    parser.description = ABOUT
    parser.add_argument("run", help="the folder of a run, finished or not")
    parser.add_argument("--json", action="store_true", help="print what report.json holds instead of the card")
    parser.add_argument("--open", action="store_true", help="open report.html in the browser")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write both files and print the card."""
    from lmworks.reports import card, page, terminal

    built = card.build(args.run)
    path = page.write(args.run, built).resolve()
    if args.json:
        json.dump(built, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        terminal.show(built)
        print(f"report: {path}")
    if args.open:
        webbrowser.open(path.as_uri())
    return 0
