"""lmworks answer: the span of a text that answers a question, its probability, and where it stands."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.errors import InputError
from lmworks.base.figures import number
from lmworks.commands.opening import add_base, add_head

if TYPE_CHECKING:
    from lmworks.language_model.find_answers import SpanAnswer

ABOUT = """Find the answer to each question in a text, with a model that was tuned on questions, contexts and answers
(as SQuAD's): the words as they stand in the text, their probability, their line and characters, and the sentence
around them. The text is read in windows, so it may be longer than the model's context."""
MARK = "bold green"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --context FILE --question TEXT ..."""
    parser.description = ABOUT
    parser.add_argument("model", help="a run or folder of a model with a head for spans")
    add_base(parser)
    add_head(parser)
    parser.add_argument(
        "--context", required=True, metavar="FILE", help="the text in which it stands; -: standard input"
    )
    parser.add_argument(
        "--question", required=True, action="append", metavar="TEXT", help="what is asked; may be given several times"
    )
    parser.add_argument("--json", action="store_true", help="one object for each question")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Answer all questions and print where the answers stand."""
    from lmworks.commands.opening import open_model
    from lmworks.text.plain_text import check_text

    context = sys.stdin.read() if args.context == "-" else _context_of(args.context)
    for question in args.question:
        check_text(question, "--question")
    if not context.strip():
        raise InputError("is empty", args.context, "give a text in which the answer may stand")
    model = open_model(args)
    answers = model.answer_questions([(question, context) for question in args.question])
    if args.json:
        listed = [entry(question, answer, context) for question, answer in zip(args.question, answers, strict=True)]
        print(json.dumps(listed, ensure_ascii=False, indent=2))
        return 0
    for question, answer in zip(args.question, answers, strict=True):
        _print(question, answer, context, args.context)
    return 0


def _context_of(source: str) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read.
    """
    from lmworks.text.plain_text import read_text

    path = Path(source)
    if not path.exists() and " " in source:
        hint = "write it into a file, or: echo 'TEXT' | lmworks answer MODEL --context - --question 'QUESTION'"
        raise InputError("there is no such file; a text itself is not read from the command line", source, hint)
    return read_text(path)


def entry(question: str, answer: SpanAnswer, context: str) -> dict[str, Any]:
    """An answer as JSON: ``start`` and ``end`` are characters of the text, ``line`` counts from 1."""
    return {
        "question": question,
        "answer": answer.text,
        "probability": answer.probability,
        "start": answer.start,
        "end": answer.end,
        "line": context.count("\n", 0, answer.start) + 1 if answer.text else None,
        "sentence": " ".join(context[slice(*sentence_around(context, answer.start, answer.end))].split()),
        "no_answer_probability": answer.null_probability,
    }


def sentence_around(context: str, start: int, end: int) -> tuple[int, int]:
    """The characters of the sentence, or sentences, in which a span stands; nothing of an empty span."""
    from lmworks.data.documents import SENTENCE_END

    if start == end:
        return 0, 0
    ends = [match.end() for match in SENTENCE_END.finditer(context)]
    first = max((place for place in ends if place <= start), default=0)
    return first, min((place for place in ends if place >= end), default=len(context))


def _print(question: str, answer: SpanAnswer, context: str, file: str) -> None:
    """The answer, where it stands, and its sentence with the answer marked."""
    from rich.text import Text

    from lmworks.commands import show

    console = show.console()
    print(question)
    if not answer.text:
        print(f"  no answer in the text (probability {number(answer.probability)})")
        return
    line = context.count("\n", 0, answer.start) + 1
    begin = context.rfind("\n", 0, answer.start) + 1
    columns = f"characters {answer.start - begin + 1} to {answer.end - begin}"
    console.print(Text("  ").append(" ".join(answer.text.split()), style=MARK), soft_wrap=True)
    print(f"  probability {number(answer.probability)}; {file}:{line}, {columns}")
    low, high = sentence_around(context, answer.start, answer.end)
    brackets = not console.is_terminal or console.no_color
    marked = f"[{answer.text}]" if brackets else answer.text
    text = Text("  ").append(_flat(context[low : answer.start]).lstrip(), style="dim")
    text.append(_flat(marked), style=MARK).append(_flat(context[answer.end : high]).rstrip(), style="dim")
    console.print(text, soft_wrap=True)


def _flat(text: str) -> str:
    """A text in one line; spaces at its ends stay."""
    return "".join(" " if sign.isspace() else sign for sign in text)
