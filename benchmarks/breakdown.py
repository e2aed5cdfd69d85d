"""Where a training step's time goes: matrix products, attention, element-wise passes, optimizer, Python and the rest.

Run in a process of its own, apart from what is timed, under PyTorch's profiler. Every native kernel is announced to
the profiler under its name; what an operation takes itself, without those it calls, counts for its part. What is left
of the steps' seconds is Python, autograd's and PyTorch's way to their operations, and the profiler's own work.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PRODUCTS, ATTENTION, PASSES = "matrix products", "attention", "element-wise passes"
OPTIMIZER, REST = "optimizer", "Python and the rest"
PARTS = (PRODUCTS, ATTENTION, PASSES, OPTIMIZER, REST)

KERNEL, UPDATE = "kernel:", "optimizer:"
"""Prefixes of the names under which the profiler records native kernels and the optimizer's work."""
MULTIPLIES = {
    "mm",
    "addmm",
    "addmm_",
    "bmm",
    "baddbmm",
    "baddbmm_",
    "mv",
    "addmv",
    "linear",
    "matmul",
    "mkldnn_linear",
    "_linear_pointwise",
}
ATTENDS = ("scaled_dot_product", "_scaled_dot_product", "softmax", "_softmax", "_safe_softmax", "flex_attention")


def part_of(name: str, within_update: bool = False) -> str:
    """To which part an operation belongs, by the profiler's name of it.

    Args:
        name: "aten::mm", "kernel:varlen_attention", "optimizer:advance", "_BlockBackward" ...
        within_update: it was called by the optimizer.
    """
    if within_update or name.startswith(UPDATE):
        return OPTIMIZER
    if name.startswith(KERNEL):
        kernel = name.removeprefix(KERNEL)
        return PRODUCTS if kernel == "matmul" else ATTENTION if kernel.startswith("varlen_attention") else PASSES
    if not name.startswith(("aten::", "mkldnn::")):
        return REST
    short = name.rpartition("::")[2]
    if short in MULTIPLIES:
        return PRODUCTS
    return ATTENTION if short.startswith(ATTENDS) else PASSES


class Announced:
    """The compiled module; its functions appear in the profiler under their names."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        import torch

        attribute = getattr(self._module, name)
        if not callable(attribute):
            return attribute

        def announced(*values: Any, **named: Any) -> Any:
            with torch.profiler.record_function(KERNEL + name):
                return attribute(*values, **named)

        setattr(self, name, announced)  # the next access finds it without __getattr__
        return announced


def announce(profile: Any, warm: int) -> list[float]:
    """Have kernels and optimizer tell the profiler of themselves, and start it once the warm-up is over.

    These are the only places where the library is changed from outside: nothing in it knows of being measured.

    Returns:
        what will hold the seconds that starting the profiler took, within the first step that is measured.
    """
    import time

    import torch

    from lmworks.kernels import native_module
    from lmworks.train import loop, optimizers

    native, fault = native_module._load()
    if native is not None:
        native_module._load = lambda: (Announced(native), fault)  # type: ignore[assignment]
    original_step, original_norm, original_make = loop.accumulate_gradients, optimizers.gradient_norm, optimizers.make
    steps, lost = [0], [0.0]

    def accumulate_gradients(*values: Any, **named: Any) -> Any:
        steps[0] += 1
        if steps[0] == warm + 1:
            began = time.perf_counter()
            profile.start()
            lost[0] = time.perf_counter() - began
        return original_step(*values, **named)

    def recorded(name: str, call: Any) -> Any:
        def announced(*values: Any, **named: Any) -> Any:
            with torch.profiler.record_function(UPDATE + name):
                return call(*values, **named)

        return announced

    def make_optimizer(*values: Any, **named: Any) -> Any:
        optimizer = original_make(*values, **named)
        optimizer.advance = recorded("advance", optimizer.advance)
        return optimizer

    loop.accumulate_gradients, optimizers.make = accumulate_gradients, make_optimizer  # type: ignore[assignment]
    optimizers.gradient_norm = recorded("gradient_norm", original_norm)
    return lost


def sums(events: Iterable[Any], seconds: float) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Seconds by part, the rest being what is left of ``seconds``; and the operations that took most time in total.

    Args:
        events: the profiler's, each with name, self_cpu_time_total in microseconds, and cpu_parent.
        seconds: that all steps took.
    """
    parts: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for event in events:
        above = event
        while above is not None and not above.name.startswith(UPDATE):
            above = above.cpu_parent
        part = part_of(event.name, above is not None)
        if part != REST:
            parts[part] += event.self_cpu_time_total
            names[event.name] += event.self_cpu_time_total
    by_part = {part: parts[part] / 1e6 for part in PARTS}
    by_part[REST] = seconds - sum(by_part.values())
    return by_part, [(name, taken / 1e6) for name, taken in names.most_common(12)]


def table(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Lines: seconds of one step and shares of it, a column for each of what was measured."""
    lines = [f"{'one step':<22}" + "".join(f"{name:>34}" for name in columns)]
    for part in PARTS:
        line = f"{part:<22}"
        for result in columns.values():
            taken = result["parts"][part] / result["steps"]
            line += f"{taken:>24.3f} s {100 * taken * result['steps'] / result['seconds']:>6.1f} %"
        lines.append(line)
    totals = "".join(f"{result['seconds'] / result['steps']:>24.3f} s {'':>8}" for result in columns.values())
    return [*lines, f"{'in all':<22}{totals}"]


def run(method: str, precision: str, folder: Path, steps: int) -> dict[str, Any]:
    """Train the first steps, and tell where the time of all but the warm-up went."""
    import tempfile

    import figures
    import ours
    import torch
    import work

    from lmworks.base.journal import RunFolder
    from lmworks.train.hooks import Hooks
    from lmworks.train.loop import train

    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    lost = announce(profile, figures.WARM)
    model, documents = ours.opened(method, folder), work.documents(folder, steps)
    with tempfile.TemporaryDirectory() as place:
        journal = RunFolder.create(Path(place) / "run", "")
        train(model.network, ours.arranged(documents), ours.settings(method, precision), journal, Hooks(quiet=True))
        taken = [event["seconds"] for event in journal.events("step")][figures.WARM :]
    profile.stop()
    seconds = sum(taken) - lost[0]
    parts, costliest = sums(profile.events(), seconds)
    return {"parts": parts, "seconds": seconds, "steps": len(taken), "costliest": costliest}


def main() -> None:
    from lmworks.base.processor import use_threads

    options = argparse.ArgumentParser()
    options.add_argument("method", choices=["lora", "full"])
    options.add_argument("precision")
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int, default=5)
    given = options.parse_args()
    use_threads()
    print(json.dumps(run(given.method, given.precision, given.work, given.steps)))


if __name__ == "__main__":
    main()
