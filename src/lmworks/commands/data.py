"""lmworks data: what the model sees of a data file, token by token; cleaning it; and the named data sets.

Needs only a model's tokenizer, never its weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.settings import build, parse_overrides
from lmworks.commands import clean, show
from lmworks.commands.opening import add_base

if TYPE_CHECKING:
    from lmworks.data.batch import Example
    from lmworks.data.examples import Examples
    from lmworks.run.data_view import DataView
    from lmworks.text.tokenizer import Tokenizer

LEARNED = "bold green"
GIVEN = "dim"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list; show MODEL DATA; clean DATA."""
    from lmworks.text.cleaning import STEPS

    parser.description = "Show what a model sees of a data file, clean its texts, or list the named data sets."
    verbs = parser.add_subparsers(dest="action", metavar="list | show | clean", required=True)
    cleaning = verbs.add_parser("clean", help="clean texts in named steps", allow_abbrev=False)
    clean.add_arguments(cleaning, {name: step.about for name, step in STEPS.items()})
    listing = verbs.add_parser("list", help="the named data sets", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="as JSON")
    showing = verbs.add_parser("show", help="examples token by token, and counts", allow_abbrev=False)
    showing.description = (
        "Print examples as the model is trained on them: what carries loss is coloured (in plain text it stands in "
        "[brackets], one pair a token). Any data setting is an option: --limit 5 or --data.limit 5. With --task: "
        "examples of another task than the model's own: what is masked, replaced or left, sources and targets ..."
    )
    showing.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    add_base(showing)
    showing.add_argument("data", help="a file, a folder, a named data set or hub:owner/name")
    showing.add_argument("--examples", type=int, default=2, metavar="N", help="how many to print (default 2)")
    showing.add_argument("--tokens", type=int, default=400, metavar="N", help="how many of each (default 400)")
    showing.add_argument(
        "--task",
        metavar="NAME",
        help="default: as rows and model suggest; its settings are options: --task.next_sentence true",
    )
    showing.add_argument("--draws", type=int, default=1, metavar="N", help="how often each is drawn (default 1)")
    showing.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    showing.add_argument("--ids", action="store_true", help="a line a token: id, loss, text")
    showing.add_argument("--json", action="store_true", help="the counts as JSON, and no examples")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print what was asked for."""
    if args.action == "clean":
        return clean.run(args, data_overrides(rest))
    return _list(args, rest) if args.action == "list" else _show(args, rest)


def data_overrides(rest: list[str]) -> dict[str, Any]:
    """Data settings given as ``--limit 5`` or ``--data.limit 5``."""
    values = parse_overrides(rest)
    inner = values.pop("data", {})
    if not isinstance(inner, dict):
        raise InputError("is a group of settings", "--data", "write --data.NAME VALUE")
    return {**values, **inner}


def _list(args: argparse.Namespace, rest: list[str]) -> int:
    from lmworks.text import datasets

    if rest:
        raise InputError(f"unknown option {rest[0]}", "lmworks data list", "lmworks data list --help")
    named_sets = {name: (named, datasets.cached_rows(name)) for name, named in datasets.NAMED.items()}
    if args.json:
        values = [
            {"name": name, "about": named.about, "licence": named.licence, "needs": named.needs, "cached_rows": rows}
            for name, (named, rows) in named_sets.items()
        ]
        print(json.dumps(values, indent=2))
        return 0
    for name, (named, rows) in named_sets.items():
        state = (
            f"{rows:,} rows, cached" if rows is not None else f"would fetch {named.needs}" if named.needs else "here"
        )
        print(f"{name:15} {state}; licence {named.licence}\n{'':15} {named.about}")
    print("\nA file, a folder of files, or hub:owner/name (through the datasets library) is a data set too.")
    return 0


def _show(args: argparse.Namespace, rest: list[str]) -> int:
    """Examples as a run has them; whether this very model could be trained on them is said last."""
    from lmworks.run.data_view import view_data
    from lmworks.tasks.settings import TaskSettings
    from lmworks.text.rows import DataSettings

    if args.seed < 0:
        raise InputError("a seed is not negative", "--seed", "give 0 or more")
    values = data_overrides(rest)
    named = {"name": args.task} if args.task else {}
    task_settings = build(TaskSettings, {**values.pop("task", {}), **named}, "the command line: task")
    settings = build(DataSettings, values, "the command line")
    view = view_data(args.model, args.base, args.data, settings, task_settings)
    if args.json:
        print(json.dumps(asdict(view.examples.report), indent=2))
        return 0
    print(f"task {view.task.name}: {view.task.learns}, {view.reason}")
    _print_examples(view, args)
    if (refusal := view.refusal) is not None:
        print(f"\ntraining on this would be refused: {refusal}", file=sys.stderr)
    return 0


def _print_examples(view: DataView, args: argparse.Namespace) -> None:
    """The first examples and the counts."""
    import numpy as np

    from lmworks.commands.examples import Printer, print_counts

    examples, task = view.examples, view.task
    if not task.is_random and task.architectures == ("decoder",):
        for number, example in enumerate(examples.items[: args.examples], 1):
            _print_example(number, example, task.tokenizer, args)
        _print_report(examples)
        return
    printer = Printer(task.tokenizer, args.tokens, args.ids, view.labels)
    for number, example in enumerate(examples.items[: args.examples], 1):
        for draw in range(args.draws):
            rng = np.random.default_rng((args.seed, draw, number - 1))
            title = f"{number}, draw {draw + 1}" if args.draws > 1 else str(number)
            printer.example(task.sample(example, rng), title)
    _print_report(examples)
    print_counts(task, examples, args.seed)


def _print_example(number: int, example: Example, tokenizer: Tokenizer, args: argparse.Namespace) -> None:
    """One example. Its first token never carries loss: nothing stands before it."""
    from rich.text import Text

    console = show.console()
    learned = example.loss.copy()
    learned[:1] = False
    cut = f", cut by {example.dropped}" if example.dropped else ""
    print(f"--- example {number}, {example.place}: {len(example)} tokens, {int(learned.sum())} with loss{cut}")
    pairs = list(zip(example.ids.tolist(), learned.tolist(), strict=True))[: args.tokens]
    if args.ids:
        for token, loss in pairs:
            print(f"{token:>8} {'loss' if loss else '    '} {tokenizer.piece(token)!r}")
    else:
        brackets = not console.is_terminal or console.no_color
        text = Text()
        for token, loss in pairs:
            piece = tokenizer.piece(token)
            text.append(f"[{piece}]" if brackets and loss else piece, style=LEARNED if loss else GIVEN)
        console.print(text, soft_wrap=True)
    if len(example) > args.tokens:
        print(f"... and {len(example) - args.tokens} more tokens (--tokens)")


def _print_report(examples: Examples) -> None:
    """The counts; those of things that should not be are said only where there are any."""
    report = examples.report
    verb = "makes" if report.rows == 1 else "make"
    rows, made = count_of(report.rows, "row"), count_of(report.examples, "example")
    print(f"\n{rows} of kind {report.kind} ({report.template}) {verb} {made}, those to be held out among them")
    share = report.loss_tokens / report.tokens if report.tokens else 0.0
    print(
        f"the examples have {report.tokens:,} tokens, {report.loss_tokens:,} of them with loss ({share:.1%}); "
        f"the longest has {report.longest:,}"
    )
    for name, count in report.unusual().items():
        print(f"{name}: {count:,}")
    for note in report.notes:
        print(f"note: {note}")
