"""Arms of a comparison: fresh processes that take turns, medians, ratios, and a result that is written to a file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lmworks.base import machine
from lmworks.base.processor import processor

RESULTS = Path(__file__).parent / "results"
MODEL = "smollm2-135m-instruct"
EMULATED = 0.1
"""bfloat16 products below this fraction of float32's rate are emulated."""
ROOT = Path(__file__).resolve().parents[1]
_ABSOLUTE_PATH = re.compile(r"(?<![\w./~:-])/(?:[\w.@+~-]+/)+[\w.@+~-]*")


def reference_folder() -> Path:
    """SmolLM2 as a Hugging Face folder, for the peers to open; created once, in the cache."""
    import lmworks
    from lmworks.base.files import cache_folder

    folder = cache_folder() / "benchmarks" / MODEL
    if not (folder / "config.json").is_file():
        lmworks.load(MODEL).save(folder)
    return folder


class Failed(SystemExit):
    """An arm that ended otherwise than with its figures; whoever does not catch it ends with it."""


def run_arm(
    script: str | Path, arguments: list[str], variables: dict[str, str] | None = None, timeout: float | None = None
) -> dict[str, Any]:
    """Run one arm in a process of its own; its last line of output is JSON.

    Args:
        script: its file.
        arguments: to it.
        variables: of its environment, beside the present ones.
        timeout: seconds after which it is ended.

    Raises:
        Failed: it ended with an error, or took longer.
    """
    command = [sys.executable, str(script), *arguments]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    environment = {**os.environ, **quiet, **(variables or {})}
    try:
        process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(without_absolute_paths(f"{' '.join(command)} was ended after {timeout:.0f} s")) from None
    if process.returncode:
        raise Failed(without_absolute_paths(f"{' '.join(command)} failed:\n{process.stderr}")[-4000:])
    return json.loads(process.stdout.strip().splitlines()[-1])


def take_turns(
    script: str, arms: dict[str, list[str]], rounds: int, variables: dict[str, str] | None = None
) -> dict[str, list[dict[str, float]]]:
    """Every arm once a round, in turn, with these variables of its environment; the figures of each round by arm."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for number in range(rounds):
        for name, arguments in arms.items():
            started = time.perf_counter()
            figures[name].append(run_arm(script, arguments, variables))
            seconds = time.perf_counter() - started
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures[name][-1].items())
            print(f"round {number + 1}/{rounds}  {name:<34} {shown}  ({seconds:.0f} s in all)", flush=True)
    return figures


def worth_running(precision: str) -> bool:
    """Whether an arm in this precision is informative here, by the measured rates of matrix products.

    bfloat16: unless it is emulated, a thousand times slower. "auto": if it is not the same as float32.
    """
    if precision == "auto":
        return bfloat16_is_faster()
    if precision != "bfloat16":
        return True
    rates = machine.rates()
    return rates.bfloat16 > EMULATED * rates.float32


def bfloat16_is_faster() -> bool:
    """Whether "auto" chooses bfloat16 here, by the measured rates of matrix products."""
    return machine.choose_precision("auto")[0] == "bfloat16"


def medians(figures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Median of every figure of every arm."""
    return {
        name: {key: statistics.median(figures_of_round[key] for figures_of_round in rounds) for key in rounds[0]}
        for name, rounds in figures.items()
    }


def without_absolute_paths(value: Any, root: Path = ROOT) -> Any:
    """The value with each absolute path in its texts shortened: to the part inside the repository or inside
    site-packages, else to the file's name. Results and errors name no folders of the machine that they come from.

    Args:
        value: texts, numbers, and lists and dicts of them.
        root: the repository.
    """
    if isinstance(value, dict):
        return {key: without_absolute_paths(item, root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_absolute_paths(item, root) for item in value]
    return _ABSOLUTE_PATH.sub(lambda match: _shorten(match[0], root), value) if isinstance(value, str) else value


def _shorten(path: str, root: Path) -> str:
    for folder in ("site-packages/", f"{root}/"):
        _, separator, inside = path.partition(folder)
        if separator:
            return inside
    return path.rstrip("/").rpartition("/")[2]


def keep(name: str, result: dict) -> Path:
    """Write the result with date and machine, without absolute paths."""
    RESULTS.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    kind = processor().name.lower().replace("(r)", "").replace("(tm)", "")
    label = "-".join("".join(c if c.isalnum() else " " for c in kind).split())
    path = RESULTS / f"{today}-{name}-{label}.json"
    whole = {"date": today, "benchmark": name, "machine": machine.describe(), **without_absolute_paths(result)}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path.parent.name}/{path.name}")
    return path


def parser(about: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--arm", help=argparse.SUPPRESS)
    options.add_argument("--rounds", type=int, default=3, help="how often each arm takes its turn (default 3)")
    return options
