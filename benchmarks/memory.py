"""Is memory a promise: the peak that the plan tells beside the peak of a fresh process, for every method and preset.

Tuning: SmolLM2-135M on GSM8K rows by every method that trains it, LoRA and full fine-tuning also within a budget. From
scratch: every preset on this library's own sources, a few steps each. The plan is that of the run itself, computed
before it began.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import arms
import work

from lmworks.adapt.registry import METHODS
from lmworks.base import figures
from lmworks.base.journal import RunFolder
from lmworks.base.process_memory import peak_memory
from lmworks.reports.card import build
from lmworks.run import presets

STEPS, ROWS = 3, 160
TOKENS = 2048  # of a step from scratch: rows are as large as with more
BUDGETS = {"lora": "1.35GB", "full": "3GB"}
NOT_TUNED = ("head",)  # answers need no new head
TIMEOUT = 240  # seconds an arm may take; what takes longer is said to be left out


def tuned(folder: Path, data: Path, method: str, memory: str | None) -> dict[str, Any]:
    """A run of tune, in this process."""
    from lmworks.run.api import tune

    train = {"steps": STEPS, "precision": "float32", **({"memory": memory} if memory else {})}
    evaluate = {"task_rows": 4, "max_tokens": 8, "general_bytes": 2000}
    rows = {"source": str(data), "held_out": 8, "template": "off"}
    return planned_and_actual(tune(arms.MODEL, rows, method=method, out=folder, train=train, evaluate=evaluate).folder)


def pretrained(folder: Path, data: Path, preset: str) -> dict[str, Any]:
    """A run of pretrain, in this process."""
    from lmworks.run.api import pretrain

    settings = presets.preset(preset)
    context = settings.values["model"].get("max_position_embeddings", TOKENS)
    train = {"steps": STEPS, "precision": "float32", "batch_size": max(1, min(32, TOKENS // context))}
    evaluate = {"samples": 1, "max_tokens": 8, "measured": 8}
    return planned_and_actual(pretrain(preset, str(data), out=folder, train=train, evaluate=evaluate).folder)


def planned_and_actual(folder: Path) -> dict[str, Any]:
    """Planned and actual, with the parts of both."""
    plan = RunFolder(folder).events("start")[-1]["plan"]
    parts = build(folder)["costs"]["peak_parts"]
    return {
        "planned": plan["memory"]["total"],
        "actual": peak_memory(),
        "recompute": plan["recompute"],
        "row_tokens": plan["row_tokens"],
        "planned_parts": plan["memory"],
        "actual_parts": parts,
    }


def run_one(arguments: list[str]) -> None:
    """An arm: kind, name, data, budget."""
    kind, name, data, memory = arguments
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        sys.stdout.flush()
        shown = os.dup(1)
        os.dup2(2, 1)  # what the run prints is not the figure
        result = (
            tuned(folder, Path(data), name, memory or None) if kind == "tune" else pretrained(folder, Path(data), name)
        )
        sys.stdout.flush()
        os.dup2(shown, 1)
        print(json.dumps(result))


def sources(folder: Path) -> Path:
    """This library's own Python files as one text, cut to a megabyte."""
    import lmworks

    files = sorted(Path(lmworks.__file__).parent.rglob("*.py"))
    place = folder / "sources.txt"
    place.write_text("\n\n".join(file.read_text() for file in files)[:1_000_000])
    return place


def line(name: str, result: dict[str, Any], budget: str) -> str:
    """A line of the table."""
    again = f"  {result['recompute']} blocks again, rows of {result['row_tokens']}; budget {budget}" if budget else ""
    planned, actual = (figures.byte_size(result[key]) for key in ("planned", "actual"))
    where = result["actual_parts"].get("stage", "")
    return f"{name:<24} {planned:>9} {actual:>9} {result['actual'] / result['planned']:6.2f}  {where}{again}"


def main() -> None:
    options = arms.parser(__doc__ or "")
    options.add_argument("--data", help="GSM8K's train.jsonl; without it it comes from the hub")
    options.add_argument("--only", nargs="*", help="names of arms")
    options.add_argument("arguments", nargs="*", help="of an arm")
    given = options.parse_args()
    if given.arm:
        run_one([given.arm, *given.arguments])
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        rows, text = Path(place) / "gsm8k.jsonl", sources(Path(place))
        pairs = [{"prompt": prompt, "completion": completion} for prompt, completion in work.pairs(given.data, ROWS)]
        rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        trained = [method.name for method in METHODS.values() if method.trains and method.name not in NOT_TUNED]
        tuning = [
            ("tune", name, str(rows), memory)
            for name in trained
            for memory in dict.fromkeys(("", BUDGETS.get(name, "")))
        ]
        todo = [*tuning, *(("scratch", preset, str(text), "") for preset in presets.names())]
        print(f"{'':<24} {'planned':>9} {'actual':>9} {'ratio':>6}")
        for kind, name, data, memory in todo:
            label = f"{name}{f' in {memory}' if memory else ''}"
            if given.only and label not in given.only:
                continue
            try:
                results[label] = arms.run_arm(__file__, ["--arm", kind, "--", name, data, memory], timeout=TIMEOUT)
            except arms.Failed as failure:
                results[label] = {"left out": str(failure)[-600:]}
                print(f"{label:<24} left out: {str(failure).splitlines()[-1]}", flush=True)
                continue
            print(line(label, results[label], memory), flush=True)
    ratios = [result["actual"] / result["planned"] for result in results.values() if "planned" in result]
    if ratios:
        print(f"farthest off: {max(abs(ratio - 1) for ratio in ratios):.0%} (asked: 15 %)")
    if not given.only:
        arms.keep("memory", {"steps": STEPS, "figures": results})


if __name__ == "__main__":
    main()
