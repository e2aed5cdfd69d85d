"""Multiple-choice questions with SmolLM2-135M: lm-evaluation-harness with its model ``hf`` and with ``lmworks``.

Both are asked the same requests (a question, each of its choices) through the harness's own interface, and encode them
themselves. ``hf`` runs transformers in each precision that is worth running here, at several batch sizes, of which the
best counts; lmworks runs by the native engine and by PyTorch. Scores of every arm are laid beside those of ``hf`` in
float32.
"""

from __future__ import annotations

import json
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import arms
import numpy as np
from verdicts import Rounds, Verdict, best, far_behind, median, ratio

SPEED = "tokens_per_second"  # of the requests: contexts are counted with each of their continuations
LEAST_RATIO, MOST_DIFFERENCE = 3.0, 1e-3
QUESTIONS, CHOICES, WARM = 200, 4, 8
BATCH_SIZES = (8, 16, 32, 64)
BEHIND = 0.9
"""Batch sizes with less than this share of the best one's speed are not run again."""
HF, OURS = "lm-eval hf", "lmworks"
PRECISIONS = ("float32", "bfloat16")
REFERENCE = f"{HF} float32"
BACKENDS = ("native", "torch")


class Question(NamedTuple):
    """A question with its choices."""

    text: str
    choices: tuple[str, ...]
    answer: int


def from_file(path: Path) -> list[Question]:
    """Questions of a JSONL file with the columns query, choices and gold."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Question(row["query"], tuple(row["choices"]), row["gold"]) for row in rows]


def from_documentation(count: int) -> list[Question]:
    """Questions as long as those of ARC-Easy: which words end a sentence of Python's documentation.

    The choices are the last one to six words of this sentence and of three others.
    """
    from lmworks.text import stdlib

    text = " ".join(" ".join(stdlib.topics().values()).split())
    sentences = [words.split() for words in re.findall(r"(?<=[.] )[A-Z][a-z]+ [a-z ,'-]{60,160}[.]", text)]
    drawn = random.Random(7)
    drawn.shuffle(sentences)
    questions = []
    for number in range(min(count, len(sentences))):
        words, size = sentences[number], drawn.randint(1, 6)
        others = drawn.sample(sentences[:number] + sentences[number + 1 :], CHOICES - 1)
        ends = [" ".join(own[-size:]) for own in (words, *others)]
        answer = drawn.randrange(CHOICES)
        ends[0], ends[answer] = ends[answer], ends[0]
        questions.append(Question(f"Question: How does this end? {' '.join(words[:-size])}", tuple(ends), answer))
    return questions


def requests_of(questions: Sequence[Question]) -> list[Any]:
    """The harness's requests, as its task of ARC-Easy makes them."""
    from lm_eval.api.instance import Instance

    pairs = [(f"{question.text}\nAnswer:", f" {choice}") for question in questions for choice in question.choices]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def opened(arm: str, folder: Path) -> Any:
    """The model of an arm: ``hf``, precision, batch size; or a backend, precision."""
    kind, precision, *size = arm.split(",")
    if kind == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=str(folder), dtype=precision, device="cpu", batch_size=int(size[0]))
    from lmworks.integrations.lm_eval import LmworksLM

    return LmworksLM(str(folder), backend=kind, dtype=precision)


def run(arm: str, questions: Sequence[Question], scores: Path) -> dict[str, float]:
    """The figures of an arm; the scores of its requests go to a file."""
    model, requests = opened(arm, arms.reference_folder()), requests_of(questions)
    tokens = sum(len(model.tok_encode("".join(request.args))) for request in requests)
    model.loglikelihood(requests_of(questions[:WARM]), disable_tqdm=True)
    started = time.perf_counter()
    values = model.loglikelihood(requests, disable_tqdm=True)
    seconds = time.perf_counter() - started
    logs = np.array([value for value, _ in values])
    np.save(scores, logs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    figures = {"seconds": seconds, SPEED: tokens / seconds, "questions_per_second": len(questions) / seconds}
    return {**figures, "accuracy": accuracy(questions, logs), "peak_gb": peak}


def accuracy(questions: Sequence[Question], logs: np.ndarray) -> float:
    """How often the answer is the likeliest choice, as the harness's ``acc``."""
    ends = np.cumsum([len(question.choices) for question in questions])[:-1]
    pairs = zip(questions, np.split(logs, ends), strict=True)
    return float(np.mean([own.argmax() == question.answer for question, own in pairs]))


def arms_here(sizes: Sequence[int]) -> dict[str, str]:
    """The arms that are worth running on this machine: their names, and what :func:`opened` reads."""
    chosen = {}
    for precision in filter(arms.worth_running, PRECISIONS):
        chosen |= {f"{OURS} {precision} {backend}": f"{backend},{precision}" for backend in BACKENDS}
        chosen |= {f"{HF} {precision}, batch {size}": f"hf,{precision},{size}" for size in sizes}
    return chosen


def measured(options: Any, folder: Path) -> dict[str, list[dict[str, float]]]:
    """The figures of all arms, which take turns; after the first round without batch sizes that are not the best."""
    chosen, rounds = arms_here(options.batch_sizes), dict[str, list[dict[str, float]]]()
    given = ["--questions", str(options.questions), *(["--data", str(options.data)] if options.data else [])]
    for _ in range(options.rounds):
        parts = {name: ["--arm", arm, "--scores", str(folder / f"{name}.npy"), *given] for name, arm in chosen.items()}
        for name, figures in arms.take_turns(__file__, parts, 1).items():
            rounds.setdefault(name, []).extend(figures)
        for precision in PRECISIONS:
            names = [name for name in chosen if name.startswith(f"{HF} {precision}")]
            for name in far_behind(rounds, names, BEHIND):
                del chosen[name]
    return rounds


def verdicts_of(rounds: Rounds, differences: dict[str, float]) -> list[Verdict]:
    """What is asked for beside what was measured."""
    lines = []
    for title, part in (("in float32", " float32"), ("in the best precision", "")):
        ours = best(rounds, [name for name in rounds if name.startswith(f"{OURS}{part}")])
        peer = best(rounds, [name for name in rounds if name.startswith(f"{HF}{part}")])
        if ours is None or peer is None:
            lines.append(Verdict(f"multiple choice {title}", None, LEAST_RATIO, why="an arm is missing"))
            continue
        lines.append(Verdict(f"{ours} beside {peer}", ratio(rounds, ours, peer, SPEED), LEAST_RATIO))
    for name, difference in differences.items():
        if name.startswith(f"{OURS} float32"):
            lines.append(Verdict(f"{name}: log p, at most apart from hf's", difference, MOST_DIFFERENCE, True, ""))
    return lines


def differences_of(names: Sequence[str], folder: Path) -> dict[str, float]:
    """The largest difference of log p of each arm from ``hf`` in float32, over all requests."""
    scores = {name: np.load(folder / f"{name}.npy") for name in names}
    reference = next((own for name, own in scores.items() if name.startswith(REFERENCE)), None)
    return {} if reference is None else {name: float(np.abs(own - reference).max()) for name, own in scores.items()}


def table(rounds: Rounds, differences: dict[str, float]) -> str:
    """Medians by arm."""
    lines = [f"{'':<34}{'questions/s':>12}{'tokens/s':>10}{'accuracy':>10}{'peak GB':>9}{'log p apart':>13}"]
    for name in rounds:
        figures = [median(rounds, name, key) for key in ("questions_per_second", SPEED, "accuracy", "peak_gb")]
        apart = f"{differences[name]:.2g}" if name in differences else "-"
        lines.append(f"{name:<34}{figures[0]:12.2f}{figures[1]:10,.0f}{figures[2]:10.3f}{figures[3]:9.2f}{apart:>13}")
    return "\n".join(lines)


def main() -> None:
    """All arms in turn, and what is asked for."""
    parser = arms.parser(__doc__ or "")
    parser.add_argument("--data", type=Path, help="JSONL with query, choices and gold (default: made here)")
    parser.add_argument(
        "--questions", type=int, default=QUESTIONS, help=f"so many (default {QUESTIONS}); fewer: not kept"
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES, help="of hf")
    parser.add_argument("--scores", type=Path, help="of an arm")
    options = parser.parse_args()
    questions = (from_file(options.data) if options.data else from_documentation(options.questions))[
        : options.questions
    ]
    if options.arm:
        print(json.dumps(run(options.arm, questions, options.scores)))
        return
    with tempfile.TemporaryDirectory() as name:
        rounds = measured(options, Path(name))
        differences = differences_of(list(rounds), Path(name))
    lines = verdicts_of(rounds, differences)
    print("", table(rounds, differences), "", *[line.line() for line in lines], sep="\n")
    if len(questions) < QUESTIONS:
        print("a trial with fewer questions: not kept")
        return
    asked = [{**vars(line), "reached": line.reached} for line in lines]
    data = {"questions": len(questions), "file": options.data.name if options.data else "made of documentation"}
    arms.keep("evaluation", {"data": data, "rounds": rounds, "medians": arms.medians(rounds), "asked": asked})


if __name__ == "__main__":
    sys.exit(main())
