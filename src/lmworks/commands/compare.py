"""lmworks compare: which way to adapt a model is worth it, measured on one's own data."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.settings import build, merge, parse_overrides, spelled
from lmworks.commands import show
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import STATE, is_comparison
from lmworks.comparisons.contenders import CONTENDERS, RECOMMENDED
from lmworks.run.recipe import COMMAND_LINE

if TYPE_CHECKING:
    from lmworks.comparisons.comparison_state import State

ABOUT = """Compare ways to adapt a model to your data, the classical ones among them: the same rows, seeds and
evaluation for all, each searched and trained within its share of a budget, each run in a process of its own. Ends with
a table, a page and a recommendation. A comparison that was killed goes on: lmworks compare --out FOLDER. Then: lmworks
tune --like FOLDER trains the recommended one on all the data. Settings: --rates 1 (no search),
--validation 0.1, --canaries 0, --data.held_out 0.3, --train.batch_size 16,
--contender.small.method lora --contender.small.lora.rank 2."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL DATA, the contenders, the budget."""
    parser.description = ABOUT
    parser.add_argument("model", nargs="?", help="any source of a model")
    parser.add_argument("data", nargs="?", help="a file, a named data set (lmworks data list) or hub:owner/name")
    names = ", ".join(CONTENDERS)
    parser.add_argument("--methods", metavar="NAMES", help=f"all (default), or with commas between them: {names}")
    parser.add_argument("--budget", metavar="TIME", help="of the whole comparison: 90s, 20m, 1h (default 20m)")
    parser.add_argument("--seeds", type=int, help="final trainings of each contender (default 1)")
    parser.add_argument("--task", metavar="NAME", help="what is learned; default: what suits rows and model")
    parser.add_argument("--out", metavar="FOLDER", help="default: comparisons/<time>-<model>")
    parser.add_argument("--add", metavar="NAME", help="add a contender to a comparison: --add NAME FOLDER")
    parser.add_argument("--json", action="store_true", help="print comparison.json instead of the table")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run the contenders, then show the table."""
    from lmworks.comparisons import comparison
    from lmworks.comparisons.comparison_api import default_folder

    say = _quiet if args.json else show.line
    goes_on = args.out is not None and is_comparison(args.out)
    if args.add and not goes_on and args.model and is_comparison(args.model):  # --add NAME FOLDER
        args.out, args.model, goes_on = args.model, None, True
    if goes_on and not args.add and (rest or args.model or args.budget or args.methods or args.seeds or args.task):
        fault = "is a comparison that was begun, which keeps its settings"
        raise InputError(fault, args.out, f"lmworks compare --out {args.out}, or choose another --out")
    if args.add and not goes_on:
        raise InputError("is the folder of no comparison", args.out or args.model or "--add", "--add NAME FOLDER")
    if args.add and (args.model or args.data):
        word = args.model or args.data
        raise InputError("is no part of adding a contender", word, f"lmworks compare --add {args.add} {args.out}")
    if not goes_on and (args.model is None or args.data is None):
        hint = "lmworks compare MODEL DATA; lmworks compare --out FOLDER goes on with one; --add NAME FOLDER adds to it"
        raise InputError("no model and data are named", "MODEL DATA", hint)
    out = args.out or default_folder(args.model)
    try:
        if not goes_on:
            state = comparison.run_comparison(_settings(args, rest), out, say)
        elif args.add:
            given = parse_overrides(rest)
            changes = given.pop("contender", {})
            if given or args.budget or args.methods or args.seeds or args.task:
                fault = "is a comparison that was begun, which keeps its settings"
                raise InputError(
                    fault, out, f"lmworks compare --add {args.add} {out} [--contender.{args.add}.SETTING VALUE]"
                )
            own = changes.pop(spelled(args.add, changes), {})
            if changes:
                hint = f"--contender.{args.add}.SETTING VALUE, or add that one too: --add {next(iter(changes))} {out}"
                raise InputError("is another contender than the one to add", f"--contender.{next(iter(changes))}", hint)
            state = comparison.add(out, args.add, say, **own)
        else:
            state = comparison.resume(out, say)
    except KeyboardInterrupt:
        show.line(f"stopped; go on with: lmworks compare --out {out}")
        raise
    return finish(state, Path(out), args.json)


def _quiet(line: str) -> None:
    """Progress is not printed beside JSON."""


def _settings(args: argparse.Namespace, rest: list[str]) -> CompareSettings:
    values: dict[str, Any] = parse_overrides(rest)
    given = {
        "model": args.model,
        "source": args.data,
        "methods": args.methods,
        "budget": args.budget,
        "seeds": args.seeds,
        "task": args.task,
    }
    return build(CompareSettings, merge(values, {k: v for k, v in given.items() if v is not None}), COMMAND_LINE)


def finish(state: State, folder: Path, as_json: bool = False) -> int:
    """Print a comparison."""
    from lmworks.comparisons import comparison_page, comparison_table
    from lmworks.comparisons.terminal_chart import terminal_chart

    if as_json:
        print(json.dumps(json.loads((folder / STATE).read_text(encoding="utf-8")), ensure_ascii=False, indent=1))
        return 0
    print()
    heading = comparison_table.heading(state)
    show.table(
        comparison_table.heads(state), comparison_table.table_cells(state), heading, spare=comparison_table.SPARE
    )
    if about := comparison_table.about_intervals(state):
        show.line(about)
    chart = terminal_chart(state, shutil.get_terminal_size().columns)
    for line in ("", *chart, "") if chart else ("",):
        print(line)
    for line in (*comparison_table.recommendation(state), "", *comparison_table.remarks(state)):
        show.line(line)
    if (folder / RECOMMENDED).exists():
        print(f"model: {folder / RECOMMENDED}")
    print(f"page:  {folder / comparison_page.HTML}")
    return 0
