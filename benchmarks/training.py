"""Training: lmworks beside Trainer, PEFT and TRL, in turn, each in a fresh process, and beside this machine's limit.

    lora     LoRA r=16 on q, k, v, o of SmolLM2-135M, GSM8K rows, loss on the answers, 8 documents a step
    full     all weights of the same, fewer steps
    scratch  a decoder of ten million parameters on python-source

All begin with the same weights and see the same documents; lmworks and Trainer in the same order, so that their losses
can be compared step by step. Real tokens per second: tokens that are not padding over the seconds of optimizer steps,
the first two left out for everyone. Peers that fell far behind in the first round do not run again, but for the first
of the list, and bfloat16, if its measured matrix products are not faster than float32's, is tried with a few steps
first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arms
import breakdown
import verdicts
from verdicts import LOSS, PEAK, SPEED, Verdict

HERE = Path(__file__).parent
ROWS, ROUNDS, FULL_STEPS, SCRATCH_STEPS = 160, 3, 6, 12
BEHIND = 0.8
"""Peers below this share of the fastest peer's speed in the first round do not run again."""
TRIED = 4
"""Steps of a peer that will hardly be the best: it runs whole only if these are not far behind."""
TIMEOUT = 1800.0
"""Seconds after which an arm is ended."""
OURS, PEER, EXTRA = "ours", "peer", "extra"
TITLES = {
    "lora": "LoRA r=16 on q, k, v, o",
    "full": "full fine-tuning",
    "scratch": "ten million parameters from scratch",
}


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: as it is printed.
        command: script, then its arguments before the folder.
        role: ours, peer (the best of them is what counts), or extra (one round, for its memory or a step's gain).
        variables: of its environment.
        doubtful: a few steps are tried first.
    """

    name: str
    command: tuple[str, ...]
    role: str
    variables: dict[str, str] = field(default_factory=dict)
    doubtful: bool = False


def arms_of(workload: str) -> list[Arm]:
    """The arms that are informative on this machine: no emulated bfloat16."""
    off = {"LMWORKS_KERNELS": "off"}
    mine = ("pretraining.py", "ours") if workload == "scratch" else ("ours.py", workload)
    chosen = [
        Arm("lmworks float32", (*mine, "float32"), OURS),
        Arm("lmworks float32, kernels off", (*mine, "float32"), EXTRA if workload == "full" else OURS, off),
    ]
    if arms.bfloat16_is_faster():
        chosen.append(Arm("lmworks bfloat16", (*mine, "bfloat16"), OURS))
        chosen.append(Arm("lmworks bfloat16, kernels off", (*mine, "bfloat16"), EXTRA, off))
    if workload == "lora":
        chosen.append(Arm(verdicts.QLORA, ("ours.py", "qlora", "float32"), OURS))
    some, doubt = arms.worth_running("bfloat16"), {"doubtful": not arms.bfloat16_is_faster()}
    if workload == "scratch":
        chosen.append(Arm("Trainer float32", ("pretraining.py", "trainer", "float32"), PEER))
        return (
            chosen + [Arm("Trainer bfloat16 autocast", ("pretraining.py", "trainer", "autocast"), PEER, **doubt)] * some
        )
    name = "Trainer + PEFT" if workload == "lora" else "Trainer"
    chosen.append(Arm(f"{name} float32", ("peers.py", "trainer", workload, "float32"), PEER))
    chosen += [Arm(f"{name} bfloat16 autocast", ("peers.py", "trainer", workload, "autocast"), PEER, **doubt)] * some
    if workload == "full":
        return chosen
    chosen += [Arm(f"{name} bfloat16 weights", ("peers.py", "trainer", workload, "bfloat16"), PEER, **doubt)] * some
    chosen.append(Arm("TRL SFTTrainer packed float32", ("peers.py", "trl", workload, "float32"), PEER))
    if arms.bfloat16_is_faster():  # else Trainer's arm already shows how autocast compares
        chosen.append(Arm("TRL SFTTrainer packed bf16 autocast", ("peers.py", "trl", workload, "autocast"), PEER))
    return [*chosen, Arm(f"{name} float32, checkpointing", ("peers.py", "checkpointing", workload, "float32"), EXTRA)]


@dataclass
class Measurements:
    """What was measured of one workload: figures by arm, rates between the rounds, what went wrong, which arms ran in
    the first round only, and which of them for a few steps."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rates: list[dict[str, float]] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)


def take_turns(chosen: list[Arm], arguments: list[str], rounds: int) -> Measurements:
    """Every arm once a round, in turn, after a measurement of the machine."""
    results = Measurements()
    precisions = verdicts.precisions(arms.bfloat16_is_faster())
    peers = [arm.name for arm in chosen if arm.role == PEER]
    for number in range(rounds):
        results.rates.append(arms.run_arm(HERE / "limit.py", precisions))
        text = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in results.rates[-1].items())
        print(f"round {number + 1}/{rounds}  {'matrix products':<36} {text}", flush=True)
        for arm in chosen:
            again = number and (arm.role == EXTRA or arm.name in results.left)
            if again or arm.name in results.faults:
                continue
            label = f"round {number + 1}/{rounds}"
            if arm.doubtful and not number:
                _turn(arm, [*arguments, "--steps", str(TRIED)], f"{label}  {TRIED} steps of", results)
                if arm.name in results.faults or arm.name in verdicts.far_behind(results.rounds, peers, BEHIND):
                    results.tried.append(arm.name)
                    continue
                del results.rounds[arm.name]
            _turn(arm, arguments, label, results)
        if not number:
            behind = verdicts.far_behind(results.rounds, peers, BEHIND)
            results.left = [name for name in behind if name != peers[0]]  # the plainest peer stays, whatever disturbs
    return results


def _turn(arm: Arm, arguments: list[str], label: str, results: Measurements) -> None:
    started = time.perf_counter()
    script, *script_arguments = arm.command
    try:
        figures = arms.run_arm(HERE / script, [*script_arguments, *arguments], arm.variables, TIMEOUT)
    except arms.Failed as fault:
        results.faults[arm.name] = str(fault)
        results.rounds.pop(arm.name, None)
        print(f"{label}  {arm.name:<36} failed: {fault}", flush=True)
        return
    figures["process_s"] = seconds = time.perf_counter() - started
    results.rounds.setdefault(arm.name, []).append(figures)
    text = (
        f"{figures[SPEED]:8.0f} tok/s {figures[PEAK]:6.2f} GB  mean loss {figures[LOSS]:.4f}  {seconds:5.0f} s in all"
    )
    print(f"{label}  {arm.name:<36} {text}", flush=True)


def table(chosen: list[Arm], results: Measurements) -> list[str]:
    """A line an arm: medians, ratios to the best peer, share of the machine's limit in the arm's own precision."""
    peer = verdicts.best(results.rounds, [arm.name for arm in chosen if arm.role == PEER])
    work = next((rounds[0]["gflop_per_token"] for rounds in results.rounds.values() if "gflops" in rounds[0]), None)
    limits = {name: verdicts.rate_of(results.rates, name) for name in results.rates[0] if " by " not in name}
    lines = [f"best peer: {peer}; matrix products by the fastest provider, median of {len(results.rates)}:"]
    for precision, rate in limits.items():
        lines[0] += f" {precision} {rate:.0f} GFLOP/s"
        lines[0] += f", at most {rate / work:,.0f} tok/s at {work:.3f} GFLOP a token;" if work else ""
    shown = ("rounds", "tok/s", "ratio", "of limit", "peak GB", "ratio", "mean loss", "2 steps", "process")
    lines.append(f"{'':<38}" + "".join(f"{word:>10}" for word in shown))
    for name, rounds in results.rounds.items():
        speed, peak = (
            verdicts.median(results.rounds, name, SPEED),
            verdicts.median(results.rounds, name, PEAK),
        )
        faster, smaller = (verdicts.ratio(results.rounds, name, peer, key) if peer else 0.0 for key in (SPEED, PEAK))
        limit = limits.get("bfloat16" if "bf" in name else "float32")
        share = f"{100 * speed * work / limit:.0f} %" if work and limit else ""
        waits = [verdicts.median(results.rounds, name, key) for key in ("first_steps_s", "process_s")]
        lines.append(
            f"{name:<38}{len(rounds):>10}{speed:>10,.0f}{faster:>9.2f}x{share:>10}{peak:>10.2f}{smaller:>9.2f}x"
            f"{verdicts.median(results.rounds, name, LOSS):>10.4f}{waits[0]:>8.1f} s{waits[1]:>8.0f} s"
        )
    lines += [f"{name}: failed, see above" for name in results.faults]
    if results.left:
        lines.append(f"one round only, below {BEHIND:.0%} of the fastest peer: {', '.join(results.left)}")
    if results.tried:
        lines.append(f"{TRIED} steps only, likewise: {', '.join(results.tried)}")
    return lines


def losses(workload: str, results: Measurements) -> list[str]:
    """Whether arms saw the same tokens, and how far their losses are apart step by step."""
    lines = []
    whole = [figures for name in results.rounds if name not in results.tried for figures in results.rounds[name]]
    seen = {(figures["tokens"], figures["answer_tokens"]) for figures in whole}
    text = " and ".join(f"{tokens:,} tokens, {answers:,} of them with loss" for tokens, answers in sorted(seen))
    lines.append(f"every arm saw {text}" if len(seen) == 1 else f"ARMS SAW DIFFERENT TOKENS: {text}")
    name = "Trainer + PEFT float32" if workload == "lora" else "Trainer float32"
    both = [("lmworks float32", name), ("lmworks float32, kernels off", "lmworks float32")]
    both += [("lmworks bfloat16", "lmworks float32"), (verdicts.QLORA, "lmworks float32")]
    for arm, other in both:
        if arm in results.rounds and other in results.rounds:
            apart = verdicts.difference(results.rounds, arm, other)
            lines.append(f"losses of {arm} and {other}, step by step: at most {100 * apart:.2g} % apart")
    return lines


def judged(workload: str, chosen: list[Arm], results: Measurements) -> list[Verdict]:
    """Every figure that was asked for of this workload."""
    peers, has_bfloat16 = [arm.name for arm in chosen if arm.role == PEER], arms.bfloat16_is_faster()
    if workload == "lora":
        return verdicts.lora(results.rounds, peers, results.rates, has_bfloat16)
    precision = "bfloat16" if has_bfloat16 else "float32"
    title = {"full": "full fine-tuning", "scratch": "from scratch"}[workload]
    faster = getattr(verdicts.targets(results.rates, has_bfloat16), workload)
    return verdicts.compared(results.rounds, f"lmworks {precision}", peers, f"{title} {precision}", faster)


def where_time_goes(folder: Path) -> dict[str, Any]:
    """Breakdowns of LoRA's step, each in a process of its own."""
    columns = {"float32": ("float32", "auto"), "float32, kernels off": ("float32", "off")}
    if arms.bfloat16_is_faster():
        columns |= {"bfloat16": ("bfloat16", "auto"), "bfloat16, kernels off": ("bfloat16", "off")}
    breakdowns = {}
    for name, (precision, kernels) in columns.items():
        try:
            arguments = ["lora", precision, str(folder)]
            breakdowns[name] = arms.run_arm(HERE / "breakdown.py", arguments, {"LMWORKS_KERNELS": kernels}, TIMEOUT)
        except arms.Failed as fault:
            print(fault, flush=True)
    return breakdowns


def options() -> argparse.Namespace:
    """What was asked for."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each arm (default {ROUNDS})")
    asked.add_argument("--rows", type=int, default=ROWS, help=f"documents of LoRA's epoch (default {ROWS})")
    asked.add_argument("--only", choices=list(TITLES), help="one of the workloads")
    asked.add_argument("--data", help="a JSONL file with question and answer (default: openai/gsm8k)")
    given = asked.parse_args()
    if given.rows < 3 * 8:
        asked.error("--rows: at least 24, three steps, of which two warm up")
    return given


def main() -> int:
    given = options()
    whole = given.rows >= ROWS and given.rounds >= ROUNDS
    chosen = {name: arms_of(name) for name in TITLES if given.only in (None, name)}
    steps = {"full": min(FULL_STEPS, given.rows // 8), "scratch": min(SCRATCH_STEPS, given.rows // 8)}
    result: dict[str, Any] = {"rows": given.rows, "rounds": given.rounds}
    lines: list[Verdict] = []
    failed = False
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if set(chosen) & {"lora", "full"}:
            data = [str(given.data)] if given.data else []
            result["data"] = arms.run_arm(HERE / "work.py", [place, str(given.rows), *data])
            print(", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in result["data"].items()), flush=True)
        if "scratch" in chosen:
            arms.run_arm(HERE / "pretraining.py", ["prepare", "float32", place, "--steps", str(steps["scratch"])])
        for workload, selected in chosen.items():
            print(f"\n{TITLES[workload]}", flush=True)
            count = ["--steps", str(steps[workload])] if workload in steps else []
            results = take_turns(selected, [place, *count], given.rounds)
            print("", *table(selected, results), *losses(workload, results), sep="\n", flush=True)
            here = judged(workload, selected, results)
            lines += here
            result[workload] = {
                "rounds": results.rounds,
                "rates": results.rates,
                "faults": results.faults,
            }
            result[workload]["medians"] = _medians(results.rounds)
            failed = failed or any(arm.role == OURS and arm.name in results.faults for arm in selected)
        if "lora" in chosen:
            result["breakdown"] = where_time_goes(folder)
            print("\nwhere the time of a LoRA step goes (under a profiler, in processes of their own)")
            print(*breakdown.table(result["breakdown"]), sep="\n")
    print("\nasked and reached", *[line.line() for line in lines], sep="\n")
    result["asked"] = [{**vars(line), "reached": line.reached} for line in lines]
    if whole:
        arms.keep("training" + (f"-{given.only}" if given.only else ""), result)
    else:
        print(f"not written: fewer than {ROWS} rows or {ROUNDS} rounds")
    return int(failed)


def _medians(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Median of every figure of every arm; lists are left out."""
    return {
        name: {
            key: statistics.median(one_round[key] for one_round in every)
            for key, value in every[0].items()
            if _number(value)
        }
        for name, every in rounds.items()
    }


def _number(value: object) -> bool:
    return isinstance(value, (int, float))


if __name__ == "__main__":
    sys.exit(main())
