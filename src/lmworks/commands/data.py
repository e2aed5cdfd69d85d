"""lmworks data: what the model sees of a data file, token by token, and the named data sets.

Needs only a model's tokenizer, never its weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.settings import build, parse_overrides
from lmworks.commands import show

if TYPE_CHECKING:
    from lmworks.data.batch import Example
    from lmworks.data.objectives import Examples
    from lmworks.model.config import ModelConfig
    from lmworks.text.corpus import DataSettings, Table
    from lmworks.text.tokenizer import Tokenizer

LEARNED = "bold green"
GIVEN = "dim"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list; show MODEL DATA."""
    parser.description = "Show what a model sees of a data file, or list the named data sets."
    verbs = parser.add_subparsers(dest="what", metavar="list | show", required=True)
    listing = verbs.add_parser("list", help="the named data sets", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="as JSON")
    showing = verbs.add_parser("show", help="examples token by token, and counts", allow_abbrev=False)
    showing.description = (
        "Print examples as the model is trained on them: what carries loss is coloured (in plain text it stands in "
        "[brackets], one pair a token). Any data setting is an option: --limit 5 or --data.limit 5. With --objective: "
        "examples of training from scratch: what is masked, replaced or left, sources and targets, pairs of sentences."
    )
    showing.add_argument("model", help="a folder, GGUF file, alias, hub:owner/name or pypi:distribution")
    showing.add_argument("data", help="a file, a folder, a named data set or hub:owner/name")
    showing.add_argument("--examples", type=int, default=2, metavar="N", help="how many to print (default 2)")
    showing.add_argument("--tokens", type=int, default=400, metavar="N", help="how many of each (default 400)")
    showing.add_argument(
        "--objective",
        metavar="NAME",
        help="causal, masked, spans, denoising or seq2seq; its settings are options: --objective.next_sentence true",
    )
    showing.add_argument("--draws", type=int, default=1, metavar="N", help="how often each is drawn (default 1)")
    showing.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    showing.add_argument("--ids", action="store_true", help="a line a token: id, loss, text")
    showing.add_argument("--json", action="store_true", help="the counts as JSON, and no examples")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print what was asked for."""
    return _list(args, rest) if args.what == "list" else _show(args, rest)


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
    found = {name: (named, datasets.cached_rows(name)) for name, named in datasets.NAMED.items()}
    if args.json:
        values = [
            {"name": name, "what": named.what, "licence": named.licence, "needs": named.needs, "cached_rows": rows}
            for name, (named, rows) in found.items()
        ]
        print(json.dumps(values, indent=2))
        return 0
    for name, (named, rows) in found.items():
        state = (
            f"{rows:,} rows, cached" if rows is not None else f"would fetch {named.needs}" if named.needs else "here"
        )
        print(f"{name:15} {state}; licence {named.licence}\n{'':15} {named.what}")
    print("\nA file, a folder of files, or hub:owner/name (through the datasets library) is a data set too.")
    return 0


def _show(args: argparse.Namespace, rest: list[str]) -> int:
    from lmworks.data import objectives
    from lmworks.data.prompts import accepted_rows
    from lmworks.language_model.opening import load_tokenizer, read_config
    from lmworks.text import corpus

    values = data_overrides(rest)
    told = values.pop("objective", {})
    settings = build(corpus.DataSettings, values, "the command line")
    table = corpus.read(args.data, settings)
    tokenizer = load_tokenizer(args.model)
    config = read_config(args.model)
    context = config.max_position_embeddings
    if args.objective or told:
        return _show_drawn(args, told, table, tokenizer, config, settings)
    table = accepted_rows(table, tokenizer, settings)
    made = objectives.examples(table, tokenizer, settings, context)
    if args.json:
        print(json.dumps(asdict(made.report), indent=2))
        return 0
    for number, example in enumerate(made.items[: args.examples], 1):
        _print_example(number, example, tokenizer, args)
    _print_report(made)
    try:
        objectives.check(made.report, settings)
    except InputError as error:
        print(f"\ntraining on this would be refused: {error}", file=sys.stderr)
    return 0


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


def _show_drawn(
    args: argparse.Namespace,
    told: dict[str, Any],
    table: Table,
    tokenizer: Tokenizer,
    config: ModelConfig,
    settings: DataSettings,
) -> int:
    """Examples of an objective as they are drawn; whether this very model could be trained on them is said last."""
    import numpy as np

    from lmworks.commands import drawn
    from lmworks.data import drawing, objectives
    from lmworks.data.batch import NEXT_SENTENCE
    from lmworks.data.objective_settings import ObjectiveSettings
    from lmworks.model.config import HeadConfig

    values = {**told, "name": args.objective} if args.objective else told
    chosen = build(ObjectiveSettings, values, "the command line: objective")
    follows = HeadConfig(name=NEXT_SENTENCE, kind="pooled", size=2)
    parts = {"language_head": True, "heads": (follows,), "type_vocab_size": max(config.type_vocab_size, 2)}
    fitting = config.model_copy(update={"architecture": chosen.architecture, **parts})
    objective = drawing.make(chosen, tokenizer, fitting)
    made = objective.examples(table, settings, config.max_position_embeddings)
    if args.json:
        print(json.dumps(asdict(made.report), indent=2))
        return 0
    shown = drawn.Printer(tokenizer, args.tokens, args.ids)
    for number, example in enumerate(made.items[: args.examples], 1):
        for draw in range(args.draws):
            rng = np.random.default_rng((args.seed, draw, number - 1))
            shown.example(objective.draw(example, rng), f"{number}, draw {draw + 1}" if args.draws > 1 else str(number))
    _print_report(made)
    drawn.counts(objective, made, args.seed)
    try:
        drawing.make(chosen, tokenizer, config)
        objectives.check(made.report, settings)
    except InputError as error:
        print(f"\ntraining on this would be refused: {error}", file=sys.stderr)
    return 0


def _print_report(made: Examples) -> None:
    """The counts; those of things that should not be are said only where there are any."""
    report = made.report
    print(f"\n{report.rows:,} rows of kind {report.kind} ({report.template}) make {report.examples:,} examples")
    share = report.loss_tokens / report.tokens if report.tokens else 0.0
    print(
        f"{report.tokens:,} tokens, {report.loss_tokens:,} with loss ({share:.1%}); the longest has {report.longest:,}"
    )
    counts = {
        "truncated rows": report.truncated,
        "tokens cut off": report.dropped_tokens,
        "rows left out as too long": report.too_long,
        "texts divided into chunks": report.chunked,
        "rows with no token to learn": report.no_trainable,
        "rows whose end of turn carries no loss": report.end_without_loss,
        "rows that write out special tokens": report.with_specials,
        "bad rows skipped": report.skipped,
    }
    for what, count in counts.items():
        print(f"{what}: {count:,}")
    for note in report.notes:
        print(f"note: {note}")
