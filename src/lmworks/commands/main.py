"""The lmworks command: finds the verb, imports its file and no other, and prints errors with a hint.

A verb's file offers ``add_arguments(parser)`` and ``run(args, rest) -> exit code``; if its help lists settings, also
``epilog()``, which only the help asks for. Options that the verb does not know are settings (``--train.epochs 3``)
where it takes settings: they reach ``run`` as ``rest``, each one word ``--name=value`` or ``--name``, ready for
base.settings.parse_overrides. Elsewhere they are errors.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import io
import os
import sys
from typing import Any, NamedTuple, NoReturn

from lmworks.base.errors import InputError


class Verb(NamedTuple):
    """One word after ``lmworks``: the file in commands/, whether further options are settings, one line of help."""

    file: str
    settings: bool
    help: str


GROUPS = {
    "train": {
        "tune": Verb("tune", True, "adapt a model to your data; ends with a report card"),
        "pretrain": Verb("pretrain", True, "train a model from scratch; ends with a report card"),
        "plan": Verb("plan", True, "what a run will need: parameters, FLOPs, memory, time, disk"),
        "resume": Verb("resume", False, "go on with a run that was stopped or killed"),
        "report": Verb("report", False, "the report card of a run: terminal, JSON, HTML page"),
        "audit": Verb("audit", True, "bias, memorisation, personal data ...; two models side by side"),
        "compare": Verb("compare", True, "which way to adapt a model is worth it, measured on your data"),
        "ladder": Verb("ladder", True, "n-grams to transformers on your text, in a time budget"),
        "runs": Verb("runs", False, "the runs in a folder, newest first"),
    },
    "use a model": {
        "chat": Verb("chat", True, "talk with a model"),
        "generate": Verb("generate", True, "continue a text"),
        "serve": Verb("serve", True, "models behind OpenAI's API, for clients on this machine or others"),
        "studio": Verb("studio", True, "a page: chat, data, runs, ratings, served to this machine alone"),
        "batch": Verb("batch", True, "a file of requests in the format of OpenAI's Batch API, answered"),
        "next": Verb("next", False, "the likeliest next tokens of a text, or the likelier next sentence"),
        "fill": Verb("fill", False, "fill the blanks of a text"),
        "translate": Verb("translate", True, "write the target of a text with an encoder-decoder"),
        "predict": Verb("predict", True, "the labels of the rows of a file, or the answers to its questions"),
        "answer": Verb("answer", False, "the span of a text that answers a question, and where it stands"),
        "embed": Verb("embed", True, "vectors of the rows of a file, or of a few texts"),
        "search": Verb("search", True, "the rows of a file that are nearest in meaning to a query"),
        "similar": Verb("similar", False, "how similar texts are; one word in two texts, layer by layer"),
        "cluster": Verb("cluster", True, "the rows of a file in clusters, named by their typical words"),
        "map": Verb("map", True, "the rows of a file as points in a plane, as an HTML page"),
        "score": Verb("score", False, "how well a model predicts texts: nats, tokens, bits per byte"),
        "evaluate": Verb("evaluate", False, "a model on published benchmarks: ARC, GLUE, GSM8K, BLiMP ..."),
        "metrics": Verb("metrics", True, "scores of predictions against references: any files, many metrics"),
        "save": Verb("save", False, "write a model as a Hugging Face folder"),
        "export": Verb("export", False, "write a model as a GGUF file, in 16 or 32 bits"),
        "quantize": Verb("quantize", False, "write a model as a GGUF file in fewer bits, and what that costs"),
        "combine": Verb("combine", False, "write a weighted sum of LoRA adapters as an adapter"),
        "share": Verb("share", False, "publish the model of a run with its card, or a demo of it"),
    },
    "look": {
        "data": Verb("data", True, "what a model will see of a file; the named data sets"),
        "tokenizer": Verb("tokenizer", True, "train a tokenizer, show how one splits a text, compare several"),
        "models": Verb("models", False, "the models that are here, and the names that can be fetched"),
        "vectors": Verb("vectors", True, "static word vectors: train, neighbours, analogies, evaluate"),
        "recipe": Verb("recipes", True, "recipes and presets: show one, list them, their schema"),
        "gradients": Verb("gradients", False, "how far gradients reach: by distance, by depth"),
        "doctor": Verb("doctor", False, "which computer this is, and how fast"),
    },
}
VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}

EXAMPLES = """\
examples:
  lmworks tune smollm2-135m-instruct faq.jsonl --train.epochs 3
  lmworks chat runs/my-run

lmworks VERB --help lists the options of a verb. Settings have dotted names: --train.epochs 3.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise InputError(message, self.prog, f"{self.prog} --help shows how it is used")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it did what was asked, 2 for what a person can correct, 130 when interrupted, 141 when the reader of its
        output has gone.
    """
    words = sys.argv[1:] if argv is None else argv
    _replace_closed_streams()
    _set_encodings()
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as leave:  # argparse, after --help or --version
        return leave.code if isinstance(leave.code, int) else 2
    except InputError as error:
        _print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard_output()
            place = error.filename or "a file, or where the output goes"
            _print_error(f"{place}: there is no room on the disk\n  hint: make room, or write to another disk")
            return 2
        if error.filename is None:  # not about a file that the person named
            raise
        fault = "may not be read or written here" if isinstance(error, PermissionError) else error.strerror
        _print_error(f"{error.filename}: {fault}\n  hint: change its permissions, or choose another place")
        return 2


def _discard_output() -> None:
    """What standard output still holds cannot be written; Python would complain when it flushes at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace_closed_streams() -> None:
    """Put the null device in place of streams that the shell closed (``<&-``), which are None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _set_encodings() -> None:
    """Bytes of standard input that are not UTF-8 reach the check of texts (text/plain_text); what a terminal cannot
    show is printed as an escape."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(words: list[str]) -> int:
    parser = _parser(words)
    place = next((index for index, word in enumerate(words) if not word.startswith("-")), None)
    parser.parse_args(words[:place])
    if place is None:
        parser.print_help()
        return 0
    name, words = words[place], words[place + 1 :]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean lmworks {near[0]}?" if near else f"one of: {', '.join(VERBS)}"
        raise InputError(f"there is no verb {name!r}", "lmworks", hint)
    module = importlib.import_module(f"lmworks.commands.{VERBS[name].file}")
    parser = Parser(prog=f"lmworks {name}")
    module.add_arguments(parser)
    if hasattr(module, "epilog") and {"-h", "--help"} & set(words):
        parser.epilog = module.epilog()
    words, settings = _part(words, parser)
    args, left = _parse(parser, words)
    args.verb = name
    if left:
        hint = f"lmworks {name} --help shows how it is used"
        raise InputError(f"does not take {' '.join(map(repr, left))}", f"lmworks {name}", hint)
    if settings and not VERBS[name].settings:
        raise _no_such_option(settings[0].split("=")[0], name, parser)
    return int(module.run(args, settings) or 0)


def _parser(words: list[str]) -> Parser:
    """The parser of the first word, whose help lists the verbs in groups."""
    width = max(map(len, VERBS))
    listed = "\n".join(
        f"{title}:\n" + "".join(f"  {name:<{width}}  {verb.help}\n" for name, verb in verbs.items())
        for title, verbs in GROUPS.items()
    )
    parser = Parser(
        prog="lmworks",
        usage="lmworks VERB ...",
        description="Language models on the machine you have: adapt, measure, run.",
        epilog=f"{listed}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version() if "--version" in words else "")
    return parser


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse with options anywhere between the arguments, which argparse offers only without subparsers."""
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return parser.parse_known_args(words)
    return parser.parse_known_intermixed_args(words)


def _part(words: list[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Separate what the verb's parser knows from settings, each of which becomes ``--name=value`` or ``--name``."""
    known = _options(parser)
    own: list[str] = []
    settings: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return own + words[position - 1 :], settings
        if not word.startswith("--") or word.split("=")[0] in known:
            own.append(word)
        elif "=" not in word and position < len(words) and not _is_option(words[position]):
            settings.append(f"{word}={words[position]}")
            position += 1
        else:
            settings.append(word)
    return own, settings


def _is_option(word: str) -> bool:
    """Whether a word begins another option; a negative number does not."""
    return word.startswith("-") and word != "-" and not word[1:2].isdigit() and word[1:2] != "."


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of the parsers below it."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options |= {option for below in action.choices.values() for option in _options(below)}
    return options


def _no_such_option(option: str, verb: str, parser: argparse.ArgumentParser) -> InputError:
    known = sorted(word for word in _options(parser) if word.startswith("--"))
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(known)}"
    return InputError(f"there is no option {option}", f"lmworks {verb}", hint)


def _version() -> str:
    from lmworks import __version__

    return f"lmworks {__version__}"


def _print_error(text: str) -> None:
    """Print an error on standard error; its first word in red where that is a terminal and NO_COLOR is not set."""
    red = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\033[31merror:\033[0m {text}" if red else f"error: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
