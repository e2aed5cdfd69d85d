"""lmworks evaluate: a model on published benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.commands import show
from lmworks.commands.opening import add_backend, add_base, add_head, open_model, open_writer
from lmworks.suites.settings import SuiteSettings

if TYPE_CHECKING:
    from lmworks.suites.suite_run import Evaluation

ABOUT = """Run a model on published benchmarks: questions with options, by how likely each option is; texts that it
writes; vectors of texts; a classifier's labels. Each score has its interval and a signature, and the token ids that
were sent are kept. Files are read as they are published, below --data, or fetched from the hub.
lmworks evaluate --list shows what there is; docs/evaluating.md says how to add a suite."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --suite NAMES, where the files are, how is asked."""
    parser.description = ABOUT
    parser.add_argument("model", nargs="?", help="any source of a model, or a run")
    parser.add_argument(
        "--suite", metavar="NAMES", help="suites, benchmarks or files of suites, with commas between them"
    )
    parser.add_argument("--list", action="store_true", help="list the suites, their benchmarks and files")
    parser.add_argument("--data", metavar="FOLDER", help="the files lie anywhere below it (default: from the hub)")
    parser.add_argument("--limit", type=int, metavar="N", help="most rows of each benchmark, drawn at random")
    parser.add_argument("--split", metavar="NAME", help="in place of the published split, such as train")
    parser.add_argument("--shots", type=int, metavar="K", help="examples before each question")
    parser.add_argument("--shots-from", choices=["fixed", "nearest"], help="default: fixed, the same before all")
    parser.add_argument("--encoder", metavar="MODEL", help="that finds the nearest examples (default: minilm-l6)")
    parser.add_argument(
        "--template", choices=["auto", "on", "off"], help="chat template (auto: for texts that the model writes)"
    )
    parser.add_argument("--bos", choices=["auto", "on", "off"], help="a BOS token before prompts without template")
    parser.add_argument(
        "--letters", action=argparse.BooleanOptionalAction, help="list options in the prompt, and ask for a letter"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of a text that is written")
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="ask again with and without BOS, template, in other order: the spread",
    )
    parser.add_argument("--seed", type=int, help="of the rows and examples that are drawn (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="default: evaluations/<time>-<model>")
    parser.add_argument("--json", action="store_true", help="print evaluation.json instead of the table")
    add_base(parser)
    add_head(parser)
    add_backend(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run the benchmarks, then show the card."""
    from lmworks.suites import card

    if args.list:
        show.table(["suite", "benchmark", "what is asked", "published by", "file"], card.suite_cells())
        return 0
    if args.model is None or args.suite is None:
        hint = "lmworks evaluate MODEL --suite arc --data FOLDER; lmworks evaluate --list shows the suites"
        raise InputError("no model and suite are named", "MODEL --suite NAMES", hint)
    evaluation = _evaluate(args)
    if args.json:
        print(json.dumps(evaluation.as_json(), ensure_ascii=False, indent=1))
        return 0
    show.table(card.HEADS, card.cells(evaluation), card.heading(evaluation), spare=card.SPARE)
    if cells := card.sensitivity_cells(evaluation):
        print()
        show.table(card.SENSITIVITY_HEADS, cells, "how far the form of the prompt matters, on the same rows")
    for lines in (card.sensitivity_remarks(evaluation), card.remarks(evaluation), card.signatures(evaluation)):
        for text in ["", *lines] if lines else []:
            show.line(text)
    print(f"\nkept: {evaluation.folder}")
    return 0


def _evaluate(args: argparse.Namespace) -> Evaluation:
    """Read the rows, open the model, ask it."""
    from lmworks.evaluate.progress import listening
    from lmworks.suites.evaluated_model import EvaluatedModel
    from lmworks.suites.suite_run import run_suites
    from lmworks.train.progress import EvaluationProgress

    def embed_by(encoder: str) -> Any:
        from lmworks.language_model.opening import embed_by

        return embed_by(encoder)

    def opened() -> EvaluatedModel:
        return EvaluatedModel(open_writer(args), lambda: open_model(args))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    folder = args.out or Path("evaluations") / f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(args.model).name}"
    with EvaluationProgress("evaluating") as bar, listening(bar):
        return run_suites(args.suite, opened, embed_by, args.data, _settings(args), folder, args.sensitivity, say=say)


def _settings(args: argparse.Namespace) -> SuiteSettings:
    from lmworks.base.settings import build

    given = {name: getattr(args, name, None) for name in SuiteSettings.model_fields}
    return build(SuiteSettings, {name: value for name, value in given.items() if value is not None}, "the command line")
