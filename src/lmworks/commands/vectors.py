"""lmworks vectors: static word vectors trained on a text, their neighbours and analogies, how good they are."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lmworks.base.errors import InputError
from lmworks.base.figures import UNKNOWN, count, count_of, number, percent
from lmworks.base.files import expand_home
from lmworks.base.settings import build, describe, parse_overrides, parse_value
from lmworks.baselines.vector_files import VectorFormat, format_of
from lmworks.baselines.vector_settings import VectorSettings
from lmworks.commands import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmworks.baselines.word_vectors import Neighbour, WordVectors
    from lmworks.text.rows import DataSettings, Table

VERB = "lmworks vectors "
FORMAT_NAMES = get_args(VectorFormat)
FILE = "word vectors in a format of word2vec, GloVe or fastText"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """train TEXT; nearest FILE WORD; analogy FILE king - man + woman; evaluate FILE; convert FILE."""
    parser.description = "Train static word vectors (word2vec, fastText, GloVe) on a text, or ask vectors of a file."
    verbs = parser.add_subparsers(
        dest="action", metavar="train | nearest | analogy | evaluate | convert", required=True
    )
    training = verbs.add_parser("train", help="learn them from a text", allow_abbrev=False)
    training.description = (
        "Learn word vectors from a text, each line of which is a sentence. Data settings are options too: "
        "--data.columns '{text: body}', --data.limit 100 (rows)."
    )
    training.add_argument("data", metavar="TEXT", help="a file, a folder, a named data set or hub:owner/name")
    training.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="F.txt or F.vec: text; F.bin: binary, of fasttext with subword vectors",
    )
    training.add_argument("--overwrite", action="store_true", help="in place of a file that is there")
    _add_settings(training)
    nearest = verbs.add_parser("nearest", help="the words nearest to a word", allow_abbrev=False)
    nearest.add_argument("file", help=FILE)
    nearest.add_argument("word", nargs="+", help="one or several, each asked for alone")
    _add_asking(nearest)
    analogy = verbs.add_parser("analogy", help="king - man + woman", allow_abbrev=False)
    analogy.add_argument("file", help=FILE)
    analogy.add_argument("terms", nargs="+", metavar="TERM", help="words with + or - between them")
    _add_asking(analogy)
    _add_evaluate(
        verbs.add_parser("evaluate", help="analogies answered, similarities as people see them", allow_abbrev=False)
    )
    _add_convert(verbs.add_parser("convert", help="write them in another format", allow_abbrev=False))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer analogies by category, and compare cosines of pairs of words with similarities that people gave. The "
        "usual lists, questions-words and WordSim-353, come with gensim."
    )
    parser.add_argument("file", help=FILE)
    parser.add_argument("--analogies", metavar="F", help="in place of questions-words.txt: ': NAME', four words a line")
    parser.add_argument("--pairs", metavar="F", help="in place of wordsim353.tsv: word, word, number, tabs between")
    _add_limit(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help=FILE)
    parser.add_argument("--out", required=True, metavar="FILE", help="F.txt or F.vec: text; F.bin: binary")
    parser.add_argument("--format", choices=FORMAT_NAMES, help="glove: text without a first line; default: by the name")
    parser.add_argument("--overwrite", action="store_true", help="in place of a file that is there")
    _add_limit(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Each setting of training as an option of its own."""
    for row in describe(VectorSettings):
        option = f"--{row.name.replace('_', '-')}"
        if row.kind == "bool":
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=row.help)
            continue
        default = "" if row.default in (None, "null") else f" Default: {row.default}."
        parser.add_argument(option, metavar=row.name.upper(), help=f"{row.help}{default}")


def _add_asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many (default 10)")
    _add_limit(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N words of the file")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Do what was asked for."""
    if args.action == "train":
        return _train(args, rest)
    if rest:
        raise InputError(
            f"there is no option {rest[0].split('=')[0]}", VERB + args.action, f"{VERB}{args.action} --help"
        )
    actions = {"nearest": _nearest, "analogy": _analogy, "evaluate": _evaluate, "convert": _convert}
    return actions[args.action](args)


# Training


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    arguments = {name: getattr(args, name) for name in VectorSettings.model_fields}
    given = {name: value for name, value in arguments.items() if value is not None}
    values = {name: parse_value(value) if isinstance(value, str) else value for name, value in given.items()}
    settings = build(VectorSettings, values, "the command line")
    settings.check()
    data_settings = _data_settings(rest)
    out = _check_out(args)
    from lmworks.baselines.train_vectors import train
    from lmworks.evaluate.progress import listening
    from lmworks.text import corpus
    from lmworks.train.progress import EvaluationProgress

    table = corpus.read(args.data, data_settings)
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    with EvaluationProgress(f"training {settings.algorithm}") as shown, listening(shown):
        result = train(_texts(table), settings)
    vectors = result.vectors
    vectors.save(out)
    print(f"{count_of(len(vectors), 'word')} of {vectors.size} numbers, from {count(result.words)} words of the text")
    if rare := result.total - result.words:
        print(f"{count(rare)} of {count(result.total)} words are rarer than --min-count {settings.min_count}")
    if result.losses:
        first, last = number(result.losses[0]), number(result.losses[-1])
        print(f"mean weighted squared error: {first} in the first epoch, {last} in the last")
    print(f"written to {out}; see them: {VERB}nearest {out} {vectors.words[min(50, len(vectors) - 1)]}")
    return 0


def _check_out(args: argparse.Namespace, named: bool = False) -> Path:
    """Where the vectors go; ``named``: whether their format is given by name."""
    out = expand_home(args.out)
    if not named:
        format_of(out)
    if out.exists() and not args.overwrite:
        raise InputError("there is a file here already", str(out), "another --out, or --overwrite")
    return out


def _data_settings(rest: list[str]) -> DataSettings:
    from lmworks.text.rows import DataSettings

    values = parse_overrides(rest)
    inner = values.pop("data", {})
    if not isinstance(inner, dict):
        raise InputError("is a group of settings", "--data", "write --data.NAME VALUE")
    if values:
        name = next(iter(values)).replace("_", "-")
        raise InputError(f"there is no option --{name}", f"{VERB}train", f"{VERB}train --help")
    return build(DataSettings, inner, "the command line")


def _texts(table: Table) -> Iterator[str]:
    """The texts of a table's rows; labels are none."""
    from lmworks.text.train_tokenizer import texts_of

    return texts_of({name: value for name, value in row.values.items() if name != "label"} for row in table.rows)


# Asking


def _nearest(args: argparse.Namespace) -> int:
    vectors = _open(args)
    answers = [(word, vectors.nearest(word, args.top)) for word in args.word]
    if args.json:
        _print_json([{"word": word, "nearest": _as_objects(near)} for word, near in answers])
        return 0
    for place, (word, near) in enumerate(answers):
        if place:
            print()
        _print_neighbours(word, near)
    return 0


def _analogy(args: argparse.Namespace) -> int:
    positive, negative = parse_terms(args.terms)
    near = _open(args).analogy(positive, negative, args.top)
    if args.json:
        _print_json({"positive": positive, "negative": negative, "nearest": _as_objects(near)})
        return 0
    _print_neighbours(" ".join(args.terms), near)
    return 0


def parse_terms(terms: list[str]) -> tuple[list[str], list[str]]:
    """``king - man + woman``, as one argument or several -> words that are added, words that are subtracted.

    Raises:
        InputError: two words without a sign between them, or a sign without a word.
    """
    place, hint = f"{VERB}analogy", f"as in: {VERB}analogy FILE king - man + woman"
    words: dict[str, list[str]] = {"+": [], "-": []}
    sign: str | None = "+"
    for term in " ".join(terms).split():
        if term in words:
            if sign and words["+"]:
                raise InputError(f"two signs stand together: {sign} {term}", place, hint)
            sign = term
        elif sign:
            words[sign].append(term)
            sign = None
        else:
            raise InputError(f"there is no + or - before {term!r}", place, hint)
    if sign or not words["+"]:
        raise InputError("there is no word that is added" if not sign else f"no word follows {sign}", place, hint)
    return words["+"], words["-"]


# Evaluating and converting


def _evaluate(args: argparse.Namespace) -> int:
    from lmworks.baselines import vector_evaluation as evaluation
    from lmworks.evaluate.progress import listening
    from lmworks.train.progress import EvaluationProgress

    analogies = args.analogies or evaluation.published_list("questions-words.txt")
    pairs = args.pairs or evaluation.published_list("wordsim353.tsv")
    vectors = _open(args)
    with EvaluationProgress("evaluating") as shown, listening(shown):
        similarity = evaluation.evaluate_similarities(vectors, pairs)
        categories = evaluation.evaluate_analogies(vectors, analogies)
    whole = evaluation.sum_of(categories)
    if args.json:
        rows = [{**asdict(category), "accuracy": category.accuracy} for category in [*categories, whole]]
        _print_json({"analogies": rows, "similarity": asdict(similarity)})
        return 0
    show.table(
        ("analogies", "accuracy", "correct", "with vectors", "questions"),
        [
            (each.name, percent(each.accuracy), count(each.correct), count(each.known), count(each.total))
            for each in [*categories, whole]
        ],
    )
    print()
    show.table(
        ("similarity of words", "Pearson", "Spearman", "with vectors", "pairs"),
        [
            (
                Path(pairs).name,
                *map(_correlation, (similarity.pearson, similarity.spearman)),
                count(similarity.known),
                count(similarity.total),
            )
        ],
    )
    if whole.known < whole.total or similarity.known < similarity.total:
        print("\nquestions and pairs with a word that has no vector are left out")
    return 0


def _correlation(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _convert(args: argparse.Namespace) -> int:
    out = _check_out(args, named=args.format is not None)
    vectors = _open(args)
    vectors.save(out, args.format)
    print(f"{count_of(len(vectors), 'word')} of {vectors.size} numbers written to {out}")
    return 0


# Files and answers


def _open(args: argparse.Namespace) -> WordVectors:
    from lmworks.baselines.word_vectors import WordVectors

    for name in ("top", "limit"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise InputError(f"{value} is too few", f"--{name}", "give 1 or more")
    vectors = WordVectors.open(args.file, args.limit)
    for note in vectors.notes:
        print(f"note: {note}", file=sys.stderr)
    return vectors


def _print_neighbours(title: str, near: list[Neighbour]) -> None:
    show.table((title, "cosine"), [(neighbour.word, f"{neighbour.cosine:.3f}") for neighbour in near])


def _as_objects(near: list[Neighbour]) -> list[dict[str, Any]]:
    return [neighbour._asdict() for neighbour in near]


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))
