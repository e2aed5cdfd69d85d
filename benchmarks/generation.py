"""Greedy decoding with SmolLM2-135M: lmworks beside transformers, in turn, each in a fresh process.

Decode: tokens per second while the context grows from 16 to 144 tokens. Prefill: the same of a 512-token prompt.
"""

from __future__ import annotations

import json
import sys
import time

import arms

PROMPT, NEW, LONG = 16, 128, 512
ARMS = {
    "lmworks plain": ["ours", "float32"],
    "lmworks --fast": ["ours", "fast"],
    "transformers float32": ["peer", "float32"],
    "transformers bfloat16": ["peer", "bfloat16"],
}


def ours(precision: str) -> dict[str, float]:
    import lmworks
    from lmworks.generate.decode import decode
    from lmworks.generate.sampling import SamplingSettings

    model = lmworks.load(arms.MODEL, storage="stored" if precision == "fast" else None)
    if precision == "fast":
        model.prepare()

    def decoded(prompt: int, new: int) -> float:
        steps = decode(model.stepper(), [list(range(100, 100 + prompt))], SamplingSettings(max_tokens=new), set())
        next(steps)
        started = time.perf_counter()
        for _ in steps:
            pass
        return time.perf_counter() - started

    def prefilled() -> float:
        started = time.perf_counter()
        next(decode(model.stepper(), [list(range(100, 100 + LONG))], SamplingSettings(max_tokens=1), set()))
        return time.perf_counter() - started

    decoded(PROMPT, 8), prefilled()
    return {"decode": (NEW - 1) / decoded(PROMPT, NEW), "prefill": LONG / prefilled()}


def peer(precision: str) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(arms.reference_folder(), dtype=getattr(torch, precision)).eval()

    def generated(prompt: int, new: int) -> float:
        ids = torch.arange(100, 100 + prompt)[None]
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
        return time.perf_counter() - started

    generated(PROMPT, 8), generated(LONG, 1)
    first = generated(PROMPT, 1)
    return {"decode": (NEW - 1) / (generated(PROMPT, NEW) - first), "prefill": LONG / generated(LONG, 1)}


def main() -> None:
    options = arms.parser(__doc__.splitlines()[0])
    options.add_argument("precision", nargs="?", default="fast")
    given = options.parse_args()
    if given.arm:
        print(json.dumps(ours(given.precision) if given.arm == "ours" else peer(given.precision)))
        return
    arms.reference_folder()
    chosen = {name: ["--arm", *arguments] for name, arguments in ARMS.items() if arms.worth_running(arguments[1])}
    figures = arms.take_turns(__file__, chosen, given.rounds)
    medians = arms.medians(figures)
    best = {
        key: max((name for name in medians if "transformers" in name), key=lambda name: medians[name][key])
        for key in ("decode", "prefill")
    }
    ratios = {name: {key: values[key] / medians[best[key]][key] for key in values} for name, values in medians.items()}
    print(f"\nbest peer: decode {best['decode']}, prefill {best['prefill']}")
    for name, values in medians.items():
        print(
            f"{name:<24} decode {values['decode']:7.1f} tok/s {ratios[name]['decode']:5.2f}x"
            f"   prefill {values['prefill']:7.0f} tok/s {ratios[name]['prefill']:5.2f}x"
        )
    arms.keep("generation", {"rounds": figures, "medians": medians, "best_peer": best, "ratios": ratios})


if __name__ == "__main__":
    sys.exit(main())
