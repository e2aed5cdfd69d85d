"""lmworks audit: what a model does beyond its task, with intervals; two models side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lmworks.audits.settings import KINDS, AuditSettings
from lmworks.base.errors import InputError
from lmworks.commands import show

ABOUT = """Bias, memorisation, personal data, toxicity, hallucination, robustness and contamination of a model, each
figure with its 95 % interval and what it does not say. With two models, as BASE RUN, both are measured on the same rows
and the differences are shown. Rows are those of the run, or of --data; any data setting is an option: --data.columns
'{text: COLUMN}'. Writes audit.json and audit.html."""
FILES = ("suite_data", "terms", "prompts", "words", "labelled", "questions", "paraphrases")
TEXTS = ("toxic_label", "entailment")
NUMBERS = ("rows", "suite_rows", "samples", "max_tokens", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL [MODEL], the kinds and their files."""
    parser.description = ABOUT
    parser.add_argument("model", nargs="*", help="a run, folder, GGUF file, alias ...; a second one is compared")
    listed = "; ".join(f"{kind}: {about}" for kind, about in KINDS.items())
    parser.add_argument("--kinds", metavar="K,K", help=f"which ones (default: all). {listed}".replace("%", "%%"))
    parser.add_argument("--data", metavar="FILE", help="rows of your own (default: the held-out rows of the run)")
    fields = AuditSettings.model_fields
    for name in (*FILES, *TEXTS, *NUMBERS):
        metavar = "FOLDER" if name == "suite_data" else "FILE" if name in FILES else "N" if name in NUMBERS else "NAME"
        about = str(fields[name].description).replace("%", "%%")
        kind = int if name in NUMBERS else str
        default = "" if fields[name].default is None else f" (default {fields[name].default})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=f"{about}{default}")
    parser.add_argument("--temperature", type=float, metavar="T", help=str(fields["temperature"].description))
    parser.add_argument("--plant", metavar="FILE", help="write canaries in the form of --data, to be trained on with "
                        "--data.additional FILE; measures nothing")  # fmt: skip
    parser.add_argument("--times", type=int, default=4, metavar="N", help="--plant: how often each (default 4)")
    parser.add_argument("--out", metavar="FOLDER", help="for audit.json and audit.html (default: the run, or ./audit)")
    parser.add_argument("--json", action="store_true", help="print what audit.json holds instead of the tables")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Measure, print the tables and write both files."""
    from lmworks.commands.data import data_overrides

    values = data_overrides(rest)
    if args.plant is not None:
        return _plant(args, values)
    if not 1 <= len(args.model) <= 2:
        hint = "lmworks audit MODEL, or lmworks audit BASE RUN"
        raise InputError(f"{len(args.model)} models are named", "MODEL", hint)
    from lmworks.audits import api

    names = ("kinds", *FILES, *TEXTS, *NUMBERS, "temperature")
    settings = {name: value for name in names if (value := getattr(args, name)) is not None}

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = api.audit(*args.model, data={**values, "source": args.data}, say=say, **settings)
    page = api.write(result, _folder(args))
    if args.json:
        print(result.json(), end="")
    else:
        _print(result)
    print(f"written: {page.with_suffix('.json')} and {page}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _folder(args: argparse.Namespace) -> Path:
    """Where the files go: the run's folder, where a model is one."""
    from lmworks.base.files import expand_home
    from lmworks.base.journal import JOURNAL

    runs = [path for model in args.model if ((path := expand_home(model)) / JOURNAL).is_file()]
    return Path(args.out) if args.out else runs[-1] if runs else Path("audit")


def _plant(args: argparse.Namespace, values: dict[str, Any]) -> int:
    """Write canaries to train on.

    Raises:
        InputError: no rows are given, rows of their kind have no canaries, or the file cannot be written.
    """
    from lmworks.audits.memorisation import planted_rows
    from lmworks.base.figures import count_of
    from lmworks.base.settings import build
    from lmworks.text import corpus
    from lmworks.text.row_files import check_format, write_rows
    from lmworks.text.rows import DataSettings

    if args.data is None or args.model:
        hint = f"lmworks audit --plant {args.plant} --data ROWS"
        raise InputError("canaries are written for rows, without a model", "--plant", hint)
    if args.times < 1:
        raise InputError(f"is {args.times}", "--times", "--times 1 or more")
    check_format(args.plant)
    rows = planted_rows(corpus.read(args.data, build(DataSettings, values, "the command line")), args.times)
    write_rows(Path(args.plant), rows, DataSettings())
    print(f"written: {count_of(len(rows), 'row')} in {args.plant}; train on them with --data.additional {args.plant}")
    return 0


def _print(result: Any) -> None:
    """The tables, and below each what it does not say."""
    from lmworks.audits.audit_table import ABOUT as READING
    from lmworks.audits.audit_table import heading, sections

    show.line(heading(result))
    for part in sections(result):
        print()
        for table in part.tables:
            show.table(table.heads, table.rows, f"{part.title}: {table.title}")
        if not part.tables:
            show.line(part.title)
        for title, said in part.hides:
            show.line(f"does not say ({title}): {said}")
        for name, lines in (("row", part.examples), ("note", part.notes), ("not measured", part.missing)):
            for line in lines:
                show.line(f"{name}: {line}")
    print()
    show.line(READING)
    for model, signature in zip(result.models, result.signatures, strict=True):
        show.line(f"{model}: {signature}")
    for note in result.notes:
        show.line(f"note: {note}")
