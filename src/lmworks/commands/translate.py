"""lmworks translate: texts through an encoder-decoder, by beam search."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from lmworks.base.settings import build, parse_overrides
from lmworks.commands.generate import as_list
from lmworks.commands.opening import add_base, open_model

ABOUT = """Answer texts with an encoder-decoder: translate, summarise, whatever it was trained for. Beam search as its
publisher advises, four beams where nothing is said; further options as for generate: --num-beams 5 --length-penalty 0.6
--early-stopping --max-tokens 64, or --num-beams 1 --temperature 0.8 to draw. T5 reads what to do from the text:
"translate English to French: The cat chased the mouse."."""
TOGETHER = 16  # lines of standard input that are answered at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The texts, which model."""
    parser.description = ABOUT
    parser.add_argument("text", nargs="*", help="texts; none or -: each line of standard input")
    parser.add_argument("--model", required=True, help="a folder, run, alias, hub:owner/name or pypi:distribution")
    add_base(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print one line a text, as soon as it is known."""
    from lmworks.generate.sampling import SamplingSettings

    overrides = as_list(parse_overrides(rest))
    build(SamplingSettings, overrides, "the command line")
    model = open_model(args)
    for texts in _batches(args.text or ["-"]):
        answers = iter(model.translate([text for text in texts if text], **overrides) if any(texts) else [])
        for text in texts:  # an empty line stays one
            print(next(answers).replace("\n", " ") if text else "", flush=True)
    return 0


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        for line in sys.stdin if text == "-" else [text]:
            batch.append(line.strip())
            if len(batch) == TOGETHER:
                yield batch
                batch = []
    if batch:
        yield batch
