"""Classifiers by a small network, beside transformers' Trainer and PEFT: turns, table, and what was asked.

Data sets of texts, of pairs of texts and of words, each fine-tuned in full and by LoRA with the same rows, the same
split and the same recipe. Accuracy (of words: entity F1) is compared on the same held-out rows, by a bootstrap over
them as pairs; time and memory as ratios within each round.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arms
import classifier_work as work
import numpy as np
import verdicts
from verdicts import Rounds, Verdict

from lmworks.evaluate.metrics import Interval, paired_ratios

HERE = Path(__file__).parent
METHODS = ("full", "lora")
OURS = "lmworks"
FASTER, MEMORY = 1.5, 0.5
"""What is asked for: times the peer's speed at least, and share of its memory at most."""
SHOWN = ("train_s", "whole_s", "peak_gb", "score")
PER_ROW = ("right", "of")


def arms_of(method: str) -> dict[str, list[str]]:
    """Arms by name, with their arguments: the peer in bfloat16 too where this machine multiplies it faster."""
    peer = "Trainer + PEFT" if method == "lora" else "Trainer"
    chosen = {OURS: ["lmworks", "auto"], f"{peer} float32": ["trainer", "float32"]}
    if arms.bfloat16_is_faster():
        chosen[f"{peer} bf16"] = ["trainer", "autocast"]
    return chosen


def take_turns(model: str, method: str, folder: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every arm once a round; each round has a seed of its own."""
    chosen = arms_of(method)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name, (kind, precision) in chosen.items():
            command = [kind, model, method, precision, str(folder), "--seed", str(number)]
            started = time.perf_counter()
            figures[name].append(arms.run_arm(HERE / "classifier_arms.py", command))
            shown = ", ".join(f"{key} {figures[name][-1][key]:,.4g}" for key in SHOWN)
            seconds = time.perf_counter() - started
            print(f"round {number + 1}/{rounds}  {name:<24} {shown}  ({seconds:.0f} s in all)", flush=True)
    return figures


def difference(rounds: Rounds, ours: str, peer: str) -> Interval:
    """The score of one arm minus another's on the same rows, all rounds together, with its 95 % interval."""
    sides = [[sum(np.array(figures[key]) for figures in rounds[name]) for key in PER_ROW] for name in (peer, ours)]
    return paired_ratios((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]))


def judged(title: str, rounds: Rounds, is_tagging: bool) -> list[Verdict]:
    """What was asked for: the score, time beside the fastest peer, and memory beside the one that needs least."""
    peers = [name for name in rounds if name != OURS]
    fastest = min(peers, key=lambda name: verdicts.median(rounds, name, "train_s"))
    smallest = min(peers, key=lambda name: verdicts.median(rounds, name, verdicts.PEAK))
    best = max(peers, key=lambda name: verdicts.median(rounds, name, "score"))
    change = difference(rounds, OURS, best)
    score = "entity F1" if is_tagging else "accuracy"
    figure = f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    speed = verdicts.ratio(rounds, fastest, OURS, "train_s")
    memory = verdicts.ratio(rounds, OURS, smallest, verdicts.PEAK)
    return [
        Verdict(f"{title}: {score} {figure}, upper end", 100 * change.high, 0.0, unit=" pt"),
        Verdict(f"{title}: speed beside {fastest}", speed, FASTER),
        Verdict(f"{title}: memory beside {smallest}", memory, MEMORY, is_upper_bound=True),
    ]


def kept(rounds: Rounds) -> dict[str, list[dict[str, float]]]:
    """The figures that are written to a file: those of single rows are left out."""
    return {
        name: [{key: value for key, value in figures.items() if key not in PER_ROW} for figures in every]
        for name, every in rounds.items()
    }


def given_files(options: Sequence[str]) -> dict[str, str]:
    """Files by workload, from NAME=FILE.

    Raises:
        SystemExit: a name that there is not, or a file.
    """
    files = dict(option.partition("=")[::2] for option in options)
    for name, file in files.items():
        if name not in work.WORKLOADS or not Path(file).is_file():
            raise SystemExit(f"--data {name}={file}: give NAME=FILE, NAME of {', '.join(work.WORKLOADS)}")
    return files


def compare(
    model: str,
    files: dict[str, str],
    rounds: int,
    names: Sequence[str] = tuple(work.WORKLOADS),
    methods: Sequence[str] = METHODS,
    rows: int | None = None,
    epochs: float | None = None,
) -> tuple[dict[str, Any], list[Verdict]]:
    """All workloads that have data, by all methods.

    Args:
        model: a folder in Hugging Face's layout.
        files: of the workloads that lmworks has no data for.
        rounds: turns of each arm.
        names, methods: of what is compared.
        rows: at most so many of each workload.
        epochs: instead of the workload's own.

    Returns:
        the result as it is kept, and what was asked for.
    """
    result: dict[str, Any] = {}
    lines: list[Verdict] = []
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            if name not in files and work.WORKLOADS[name].source is None:
                print(f"\n{name}: left out, no --data {name}=FILE", flush=True)
                continue
            folder = Path(place) / name
            recipe = work.prepare(name, files.get(name), folder, rows, epochs)
            result[name] = {"recipe": vars(recipe), "held_out": len(work.held_out_rows(folder))}
            for method in methods:
                title = f"{name} {method}"
                print(f"\n{title}: {recipe.rows:,} rows, {result[name]['held_out']:,} held out", flush=True)
                figures = take_turns(model, method, folder, rounds)
                here = judged(title, figures, recipe.is_tagging)
                print(*[line.line() for line in here], sep="\n", flush=True)
                lines += here
                result[name][method] = {"rounds": kept(figures), "medians": arms.medians(kept(figures))}
    return result, lines
