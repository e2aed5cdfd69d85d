"""lmworks ladder: what each step in the history of language models is worth on one's own text."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.settings import build, merge, parse_overrides
from lmworks.commands import show
from lmworks.comparisons.ladder_settings import LadderSettings, is_ladder
from lmworks.run.recipe import COMMAND_LINE

if TYPE_CHECKING:
    from lmworks.comparisons.ladder_settings import LadderState

SHOWN = 70
"""Characters of a sample that a line of the terminal shows."""
ABOUT = """Train models from the simplest to the newest on the same rows, within a budget of time: language models
(uniform, unigram, trigram, 5-gram, RNN, LSTM, transformers), compared in bits per byte on the same held-out bytes; with
--task classify classifiers (majority, TF-IDF, word vectors, CNN, LSTM, a fine-tuned encoder, a prompted decoder). Every
rung is a run in a folder of its own. A ladder that was killed goes on: lmworks ladder --out FOLDER. Settings:
--data.held_out 0.2, --rung.lstm.train.learning_rate 0.01, --tokenizer.vocab_size 4000."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the budget, the folder, the task."""
    parser.description = ABOUT
    parser.add_argument("file", nargs="?", help="a file, a named data set (lmworks data list) or hub:owner/name")
    parser.add_argument("--budget", metavar="TIME", help="of all rungs together: 90s, 10m, 1h (default 10m)")
    parser.add_argument("--out", metavar="FOLDER", help="the ladder's folder; default: runs/<time>-ladder")
    parser.add_argument("--task", choices=("language", "classify"), help="default: rows with labels are classified")
    parser.add_argument("--only", metavar="NAMES", help="rungs to run, with commas between their names; default: all")
    parser.add_argument("--json", action="store_true", help="print ladder.json instead of the table")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run the rungs, then show the table."""
    from lmworks.comparisons import ladder

    say = _quiet if args.json else show.line
    goes_on = args.out is not None and is_ladder(args.out)
    if goes_on and (rest or args.budget or args.task or args.only):
        fault = "is a ladder that was begun, which keeps its settings"
        raise InputError(fault, args.out, f"lmworks ladder --out {args.out}, or choose another --out")
    if not goes_on and args.file is None:
        hint = "lmworks ladder FILE; lmworks data list names some; lmworks ladder --out FOLDER goes on with one"
        raise InputError("no data set is named", "FILE", hint)
    out = args.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-ladder"
    settings = None if goes_on else _settings(args, rest)
    try:
        state = ladder.resume(out, say) if settings is None else ladder.run_ladder(settings, out, say)
    except KeyboardInterrupt:
        show.line(f"stopped; go on with: lmworks ladder --out {out}")
        raise
    return finish(state, Path(out), args.json)


def _quiet(line: str) -> None:
    """Progress is not printed beside JSON."""


def _settings(args: argparse.Namespace, rest: list[str]) -> LadderSettings:
    values: dict[str, Any] = parse_overrides(rest)
    given = {"source": args.file, "task": args.task, "only": args.only, "budget": args.budget}
    return build(LadderSettings, merge(values, {k: v for k, v in given.items() if v is not None}), COMMAND_LINE)


def finish(state: LadderState, folder: Path, as_json: bool = False) -> int:
    """Print a ladder."""
    from lmworks.comparisons import ladder_page, ladder_report, ladder_settings

    if as_json:
        print(json.dumps(ladder_settings.read_object(folder / ladder_settings.STATE), ensure_ascii=False, indent=1))
        return 0
    print()
    show.table(ladder_report.HEADS[state.settings.task], ladder_report.rows(state), ladder_report.heading(state))
    samples = [(step.title, _line(step.sample)) for step in state.steps if step.sample is not None]
    if samples:
        print()
        show.table(("", ""), samples, f"How each goes on after {state.prompt!r}")
    print()
    for remark in ladder_report.remarks(state):
        show.line(remark)
    print(f"page: {folder / ladder_page.HTML}")
    return 0


def _line(sample: str) -> str:
    """A sample in one line."""
    line = "".join(letter if letter.isprintable() else " " for letter in sample)
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
