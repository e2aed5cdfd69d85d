"""lmworks data clean: what each step of cleaning changes in a file, before and after, and the cleaned file."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.commands import show

if TYPE_CHECKING:
    from lmworks.text.clean_file import CleanedFile
    from lmworks.text.rows import DataSettings

LONGEST = 600  # characters of a text that is shown
SHOWN = 3  # rows
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def add_arguments(parser: argparse.ArgumentParser, steps: dict[str, str]) -> None:
    """FILE --steps html,case [--out FILE]; ``steps``: name -> what it does."""
    parser.description = (
        "Clean the texts of a file in named steps, in their order; print a few rows before (-) and after (+), and how "
        "many each step changed. Steps: " + "; ".join(f"{name}: {about}" for name, about in steps.items()) + "."
    )
    parser.add_argument("data", help="a file: CSV, TSV, JSON, JSONL, Parquet or txt")
    parser.add_argument("--steps", required=True, metavar="STEP,STEP", help=", ".join(steps))
    parser.add_argument("--out", metavar="FILE", help="write the rows in the same format, other columns as they were")
    parser.add_argument("--rows", type=int, default=SHOWN, metavar="N", help=f"how many to print (default {SHOWN})")
    parser.add_argument(
        "--measure",
        nargs="?",
        const="tfidf-logreg",
        metavar="PRESET",
        help="of rows with labels: what each step is worth to a classifier by counts of words (default tfidf-logreg)",
    )


def run(args: argparse.Namespace, settings_words: dict) -> int:
    """Clean, print, write."""
    from lmworks.base.settings import build
    from lmworks.text.clean_file import check_format, clean_file
    from lmworks.text.cleaning import steps_of
    from lmworks.text.rows import DataSettings

    names = [name.strip() for name in args.steps.split(",") if name.strip()]
    if not names:
        raise InputError("names no step", "--steps", "lmworks data clean --help lists them")
    steps = steps_of(names)
    settings = build(DataSettings, settings_words, "the command line")
    if args.out:
        check_format(Path(args.out), Path(args.data), settings)
    cleaned = clean_file(args.data, steps, settings)
    for reason in cleaned.skipped[:1]:
        print(f"note: {count_of(len(cleaned.skipped), 'bad row')} left out (first: {reason})", file=sys.stderr)
    _print_rows(cleaned, args.rows)
    _print_counts(cleaned)
    if args.out:
        print(f"written: {cleaned.write(args.out)}")
    if args.measure:
        _measure(args, [step.name for step in steps], settings)
    return 0


def _measure(args: argparse.Namespace, steps: list[str], settings: DataSettings) -> None:
    """Accuracy of a classifier with each step alone and with all, beside the one without cleaning."""
    from lmworks.base import figures
    from lmworks.run.cleaning_effect import cleaning_effects

    print(f"measuring {args.measure} with each step ...", file=sys.stderr)
    cells = []
    for effect in cleaning_effects(args.data, steps, settings, args.measure):
        change = effect.change
        name = effect.steps[0] if len(effect.steps) == 1 else "all of them" if effect.steps else "no cleaning"
        cells.append(
            (
                name,
                f"{effect.ngrams:,}",
                f"{effect.accuracy:.3f}",
                figures.signed(change.value, 2) if change else "",
                figures.interval(change.low, change.high, True) if change else "",
            )
        )
    print()
    show.table(("step", "n-grams", "accuracy", "change", "95 % interval"), cells)


def _print_rows(cleaned: CleanedFile, count: int) -> None:
    """The first rows that changed, before and after."""
    console = show.console()
    for number in cleaned.changed()[: max(count, 0)]:
        row, column = cleaned.cells[number]
        console.print(Text(f"{cleaned.rows[row].place}, column {column}", style="dim"))
        for line in diff(_cut(cleaned.before[number]), _cut(cleaned.cleaned.texts[number])):
            console.print(line, soft_wrap=True)


def _cut(text: str) -> str:
    line = text.replace("\n", "⏎")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def diff(before: str, after: str) -> tuple[Text, Text]:
    """Both texts as lines, ``-`` and ``+``; on a terminal what differs is coloured."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    minus, plus = Text("- "), Text("+ ")
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        minus.append("".join(old[a:b]), style="" if kind == "equal" else "bold red")
        plus.append("".join(new[c:d]), style="" if kind == "equal" else "bold green")
    return minus, plus


def _print_counts(cleaned: CleanedFile) -> None:
    """How many texts each step changed, and by how many characters."""
    total = len(cleaned.before)
    cells = [
        (name, f"{changed:,}", f"{100 * changed / total:.1f} %" if total else "-", f"{-characters:+,}")
        for (name, changed), characters in zip(
            cleaned.cleaned.changed.items(), cleaned.cleaned.characters.values(), strict=True
        )
    ]
    show.table(("step", "texts changed", "of all", "characters"), cells)
    columns = ", ".join(cleaned.columns)
    print(f"{count_of(total, 'text')} of {count_of(len(cleaned.rows), 'row')}, column {columns}: ", end="")
    print(f"{len(cleaned.changed()):,} changed")
    if empty := cleaned.emptied():
        place = cleaned.rows[cleaned.cells[empty[0]][0]].place
        print(f"note: nothing is left of {count_of(len(empty), 'text')} (first: {place})", file=sys.stderr)
