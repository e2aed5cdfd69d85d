"""lmworks chat: talk with a model in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.settings import build, parse_overrides
from lmworks.commands.generate import add_fast, open_model

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

ABOUT = """Talk with a model; it remembers the conversation. /new starts another one, /quit or Ctrl-D ends. Sampling is
set by further options, as for generate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, a system prompt, questions to ask and leave."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    parser.add_argument("--system", help="what the model is told before the conversation")
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="ask this, print the answer and leave")
    parser.add_argument(
        "--held-out", type=int, metavar="N", help="of a run: ask N questions that it was never trained on, and leave"
    )
    add_fast(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Ask and answer until the person leaves."""
    from lmworks.generate.sampling import SamplingSettings

    settings = build(SamplingSettings, parse_overrides(rest), "the command line").model_dump()
    model = open_model(args)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    opening = [{"role": "system", "content": args.system}] if args.system else []
    asked = [(question, "") for question in args.ask or []]
    if args.held_out:
        asked += _held_out(args.model, args.held_out)
    for question, reference in asked:
        print(f"> {question}")
        _answer(model, [*opening, {"role": "user", "content": question}], settings)
        if reference:
            print(f"(the row says: {reference})\n")
    if asked:
        return 0
    messages = list(opening)
    while (said := _hear()) is not None:
        if said == "/new":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": said})
        try:
            messages.append({"role": "assistant", "content": _answer(model, messages, settings)})
        except InputError as error:
            print(f"error: {error}\n  /new starts another conversation", file=sys.stderr)
            messages.pop()
    return 0


def _held_out(run: str, count: int) -> list[tuple[str, str]]:
    """Prompts and references of rows that the run held out; the report's samples are not among them."""
    from lmworks.base.journal import RunFolder
    from lmworks.run import recipe as recipes
    from lmworks.text import corpus

    recipe = recipes.read(RunFolder(run).recipe)
    _, rows = corpus.split(corpus.read(recipe.data.source, recipe.data), recipe.data)
    if rows.kind != "completion":
        raise InputError(f"rows of kind {rows.kind} hold no single questions", "--held-out", "ask with --ask")
    after = recipe.evaluate.samples
    return [(row.values["prompt"], row.values["completion"]) for row in rows.rows[after : after + count]]


def _hear() -> str | None:
    """The person's next line; None when they leave."""
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        if said == "/quit":
            return None
        if said:
            return said


def _answer(model: LanguageModel, messages: list[dict[str, str]], settings: dict) -> str:
    """Stream the answer; Ctrl-C ends it, not the conversation."""
    parts = []
    try:
        for piece in model.chat(messages, stream=True, **settings):
            parts.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    print("\n" if sys.stdin.isatty() else "")
    return "".join(parts)
