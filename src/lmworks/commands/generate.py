"""lmworks generate: continue a text with a model."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.settings import build, parse_overrides

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

ABOUT = """Continue a text with a model; an encoder-decoder answers it. How is set by further options: --max-tokens 64
--temperature 0.7 --top-k 50 --top-p 0.9 --min-p 0.05 --repetition-penalty 1.1 --no-repeat-ngram-size 3 --seed 1
--stop "[END]"; temperature 0, the default, is greedy. Beam search: --num-beams 4 --length-penalty 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, prompts, speed."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    parser.add_argument("prompt", nargs="*", help="texts to continue, all at once; none or -: standard input")
    add_fast(parser)


def add_fast(parser: argparse.ArgumentParser) -> None:
    """The option that generate and chat share: as other libraries answer, or fast."""
    parser.add_argument(
        "--fast",
        action="store_true",
        help="read fewer bytes per token; an answer may differ in a word",
    )


def opened(source: str) -> LanguageModel:
    """The model; what opening it had to say goes to standard error."""
    from lmworks.language_model.opening import load

    model = load(source)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    return model


def open_model(args: argparse.Namespace) -> LanguageModel:
    """The model, made fast where that is asked for."""
    from lmworks.language_model.opening import load

    if args.fast:
        return load(args.model, storage="stored").prepare()
    return load(args.model)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the continuation; one prompt streams, several are printed one after another."""
    from lmworks.generate.sampling import SamplingSettings

    settings = build(SamplingSettings, _listed(parse_overrides(rest)), "the command line")
    prompts = args.prompt or ["-"]
    prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    if not all(prompts):
        raise InputError("the prompt is empty", "PROMPT", 'give a text, as in: lmworks generate MODEL "The sky is"')
    model = open_model(args)
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    if len(prompts) == 1:
        for piece in model.generate(prompts[0], stream=True, **settings.model_dump()):
            print(piece, end="", flush=True)
        print()
        return 0
    for prompt, reply in zip(prompts, model.complete(prompts, settings), strict=True):
        continues = model.config.architecture == "decoder"
        print(f"{prompt if continues else ''}{reply.text}\n")
    return 0


def _listed(values: dict) -> dict:
    """A single --stop is a list of one."""
    if "stop" in values and not isinstance(values["stop"], list):
        values["stop"] = [str(values["stop"])]
    return values
