"""A published table, full fine-tuning beside LoRA on GPT-2, done again on a model and texts that are here.

The tutorial's recipe: LoRA r=16, alpha=32, dropout 0.05 on the attention and output projections, 3 epochs, texts of
128 tokens, 8 x 8 texts a step, learning rates 2e-4 (full) and 1e-4 (LoRA); its metrics: perplexity, BLEU and ROUGE of
greedy teacher-forced predictions, seconds; and what it left out: peak memory and forgetting.

With --rates LoRA is trained with further learning rates too, one of which is chosen on validation texts: whether the
published one is what holds LoRA back. With --peers Trainer and PEFT train as the tutorial did, on texts padded with
the end-of-text token; metrics that count this padding show how much of the published figures it is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arms
import published_work as work
import verdicts
from verdicts import Rounds, Verdict

from lmworks.base.figures import byte_size, number, percent, signed

HERE = Path(__file__).parent
UNTOUCHED = "untouched"
PUBLISHED = {
    "full": {
        "perplexity": 50.1325, "bleu": 0.7069, "bleu1": 0.7103, "bleu2": 0.7079, "bleu3": 0.7056, "bleu4": 0.7036,
        "rouge1": 0.6751, "rouge2": 0.6361, "rougeL": 0.6742, "rougeLsum": 0.6742, "seconds": 92.30,
    },
    "lora": {
        "perplexity": 65.4614, "bleu": 0.6626, "bleu1": 0.6663, "bleu2": 0.6638, "bleu3": 0.6612, "bleu4": 0.6591,
        "rouge1": 0.7467, "rouge2": 0.6738, "rougeL": 0.7466, "rougeLsum": 0.7473, "seconds": 83.34,
    },
}  # fmt: skip
"""Of GPT-2 on a data set that is not stated."""
METRICS = tuple(name for name in PUBLISHED["full"] if name != "seconds")
COSTS = ("seconds", "peak_gb")
PERPLEXITY, MEMORY, TIME = 1.03, 0.5, 0.75
"""What is asked of LoRA: at most so many times full fine-tuning's."""
TITLES = {"full": "full", "lora": "LoRA"}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        kind: "lmworks", or "trainer": padded, by transformers and PEFT.
        method: "full" or "lora".
        rate: learning rate.
    """

    kind: str
    method: str
    rate: float

    @property
    def name(self) -> str:
        """As tables show it."""
        peer = {"full": "Trainer ", "lora": "Trainer + PEFT "}[self.method] if self.kind == "trainer" else ""
        return f"{peer}{TITLES[self.method]} {self.rate:g}"

    @property
    def arguments(self) -> list[str]:
        """Options of its process."""
        return ["--method", self.method, "--rate", str(self.rate)]


def arms_of(rates: Sequence[float], full_rates: Sequence[float], peers: bool) -> list[Arm]:
    """All arms: the published rates first, each arm once."""
    sweep = [("full", rate) for rate in full_rates] + [("lora", rate) for rate in rates]
    chosen = [Arm("lmworks", method, rate) for method, rate in [*work.RATES.items(), *sweep]]
    chosen += [Arm("trainer", method, rate) for method, rate in work.RATES.items() if peers]
    return list(dict.fromkeys(chosen))


def take_turns(
    model: Path, folder: Path, chosen: Sequence[Arm], rounds: int, precision: str
) -> dict[str, list[dict[str, Any]]]:
    """The untouched model once, and every arm once a round; each round has a seed of its own."""
    script = HERE / "published_arms.py"
    figures: dict[str, list[dict[str, Any]]] = {
        UNTOUCHED: [arms.run_arm(script, [UNTOUCHED, str(model), str(folder)])],
        **{arm.name: [] for arm in chosen},
    }
    print(f"{UNTOUCHED}: perplexity {figures[UNTOUCHED][0]['perplexity']:.4g}", flush=True)
    for seed in range(rounds):
        for arm in chosen:
            started = time.perf_counter()
            same = ["--precision", precision, "--seed", str(seed)]
            own = arms.run_arm(script, [arm.kind, str(model), str(folder), *arm.arguments, *same])
            figures[arm.name].append(own)
            shown = ", ".join(f"{key} {own[key]:,.4g}" for key in ("perplexity", "bleu", "rouge1", *COSTS))
            whole = time.perf_counter() - started
            print(f"round {seed + 1}/{rounds}  {arm.name:<24} {shown}  ({whole:.0f} s in all)", flush=True)
    return figures


def medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Median of every figure of every arm over its rounds; parts of memory are left out."""
    return {
        name: {key: statistics.median(own[key] for own in every) for key in every[0] if key != "peak_parts"}
        for name, every in rounds.items()
    }


def table(results: dict[str, dict[str, float]], prefix: str = "") -> list[str]:
    """Arms as rows, with their metrics and costs.

    Args:
        results: figures by arm.
        prefix: "padded_": metrics that count the padding.
    """
    columns = (*METRICS, *COSTS)
    lines = [f"{'':<26}" + "".join(f"{name:>11}" for name in columns)]
    for name, own in results.items():
        values = [own.get(f"{prefix}{key}", own.get(key) if key in COSTS else None) for key in columns]
        lines.append(f"{name:<26}" + "".join(f"{'' if v is None else f'{v:.4f}':>11}" for v in values))
    return lines


def forgotten(results: dict[str, dict[str, float]]) -> list[str]:
    """What each arm lost of what the untouched model can do."""
    before = results[UNTOUCHED]
    lines = [f"{'forgetting':<26} {'bits per byte of general text':>32} {'multiple choice, right':>26}"]
    for name, own in results.items():
        bits, right = (own[key] for key in ("general_bits_per_byte", "choice_accuracy"))
        bits_cell, right_cell = number(bits, 4), percent(right)
        if name != UNTOUCHED:
            bits_cell += f" ({signed(bits - before['general_bits_per_byte'])})"
            right_cell += f" ({signed(100 * (right - before['choice_accuracy']))} points)"
        lines.append(f"{name:<26} {bits_cell:>32} {right_cell:>26}")
    return lines


def published_ratios() -> dict[str, float]:
    """LoRA's published figures over full fine-tuning's."""
    return {name: PUBLISHED["lora"][name] / PUBLISHED["full"][name] for name in ("perplexity", "seconds")}


def chosen_rate(rounds: Rounds, chosen: Sequence[Arm], method: str) -> Arm:
    """Of a method's arms in lmworks the one with the least perplexity on the validation texts."""
    own = [arm for arm in chosen if (arm.kind, arm.method) == ("lmworks", method)]
    return min(own, key=lambda arm: verdicts.median(rounds, arm.name, "validation_perplexity"))


def judged(rounds: Rounds, full: Arm, lora: Arm) -> list[Verdict]:
    """LoRA beside full fine-tuning: perplexity, memory and time."""
    title = f"{lora.name} beside {full.name}"
    asked = (("perplexity", "perplexity", PERPLEXITY), ("memory", "peak_gb", MEMORY), ("time", "seconds", TIME))
    return [
        Verdict(f"{title}: {name}", verdicts.ratio(rounds, lora.name, full.name, key), bound, is_upper_bound=True)
        for name, key, bound in asked
    ]


def reasons(rounds: Rounds, full: Arm, lora: Arm) -> list[str]:
    """What bounds the ratios of time and memory: FLOPs that each needs, and the parts of each peak."""
    sides = [rounds[arm.name][0] for arm in (lora, full)]
    work_ratio, time_ratio = (sides[0][key] / sides[1][key] for key in ("flops", "seconds"))
    lines = [f"time: LoRA needs {work_ratio:.2f} of full's FLOPs and took {time_ratio:.2f} of its time"]
    for arm, own in zip((lora, full), sides, strict=True):
        parts = ", ".join(f"{name} {byte_size(size)}" for name, size in own["peak_parts"].items())
        lines.append(f"memory of {arm.name}: {parts}")
    return lines


def judge_all(rounds: Rounds, chosen: Sequence[Arm]) -> tuple[list[Verdict], list[str]]:
    """Verdicts at the published rates and, where others were tried, at those chosen on the validation texts; and what
    explains them."""
    published = [Arm("lmworks", method, rate) for method, rate in work.RATES.items()]
    all_verdicts, explained = judged(rounds, *published), reasons(rounds, *published)
    best = [chosen_rate(rounds, chosen, method) for method in work.RATES]
    if best != published:
        all_verdicts += judged(rounds, *best)
    for method in work.RATES:
        swept = [arm for arm in chosen if (arm.kind, arm.method) == ("lmworks", method)]
        if len(swept) > 1:
            figures = (f"{arm.rate:g}: {verdicts.median(rounds, arm.name, 'perplexity'):.2f}" for arm in swept)
            explained.append(f"perplexity of {TITLES[method]} by learning rate: {', '.join(figures)}")
    return all_verdicts, explained


def late_line(results: dict[str, dict[str, float]]) -> str:
    """What BLEU and ROUGE say of a prediction that knows nothing."""
    own = ", ".join(f"{name} {results[UNTOUCHED][f'late_{name}']:.4f}" for name in METRICS if name != "perplexity")
    return f"the text itself one token late, which predicts nothing: {own}"


def padding_line(results: dict[str, dict[str, float]]) -> str:
    """How much of the padded texts is padding."""
    share = results[UNTOUCHED]["padding"]
    return f"the same with padding to {work.TEXT_TOKENS} tokens counted, which is {percent(share)} of them"


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = arms.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=arms.MODEL, help="a decoder (default %(default)s)")
    parser.add_argument("--data", default=work.DATA, help="texts: a file, or a named data set (default %(default)s)")
    parser.add_argument("--texts", type=int, default=work.TRAINED, help="to train on (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=work.HELD_OUT, help="to measure on (default %(default)s)")
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="further learning rates of LoRA")
    parser.add_argument("--full-rates", type=float, nargs="*", default=[], help="further ones of full fine-tuning")
    parser.add_argument("--peers", action="store_true", help="also Trainer and PEFT, padding as the tutorial did")
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto", help="(default %(default)s)")
    parser.set_defaults(rounds=1)
    return parser.parse_args()


def main() -> None:
    """All arms in turn, the published table beside ours, and what was asked."""
    given = options()
    chosen = arms_of(given.rates, given.full_rates, given.peers)
    with tempfile.TemporaryDirectory() as place:
        model, folder = work.model_folder(given.model), Path(place)
        texts = work.prepare(model, given.data, folder, given.texts, given.held_out)
        print(", ".join(f"{name}: {part['texts']:,} texts, {part['tokens']:,} tokens" for name, part in texts.items()))
        rounds = take_turns(model, folder, chosen, given.rounds, given.precision)
    results = medians(rounds)
    published = {f"GPT-2 {TITLES[method]}": figures for method, figures in PUBLISHED.items()}
    print("\npublished", *table(published), "\nmeasured", *table(results), late_line(results), sep="\n")
    print(f"\n{padding_line(results)}", *table(results, "padded_"), "", *forgotten(results), sep="\n")
    ratios = ", ".join(f"{name} {value:.2f}" for name, value in published_ratios().items())
    all_verdicts, explained = judge_all(rounds, chosen)
    print(f"\nLoRA / full, published: {ratios}; asked and reached:", *[own.line() for own in all_verdicts], sep="\n")
    print("", *explained, sep="\n")
    result = {
        "model": given.model,
        "data": given.data,
        "texts": texts,
        "precision": given.precision,
        "published": PUBLISHED,
        "rounds": rounds,
        "medians": results,
        "asked": [{**vars(own), "reached": own.reached} for own in all_verdicts],
        "explained": explained,
    }
    if given.texts >= work.TRAINED and given.held_out >= work.HELD_OUT:
        arms.keep("published-adaptation", result)
    else:
        print(f"not written: fewer than {work.TRAINED} texts or {work.HELD_OUT} held-out ones were asked for")


if __name__ == "__main__":
    main()
