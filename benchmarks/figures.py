"""The figures that every arm of the training benchmark reports, computed in the same way for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.base import process_memory

WARM = 2
"""Steps left out of the speed, for everyone: they warm up."""


def summarize(
    tokens: Sequence[int],
    targets: Sequence[float],
    seconds: Sequence[float],
    losses: Sequence[float],
    waited: float,
    flops: float | None = None,
) -> dict[str, Any]:
    """An arm's figures.

    Args:
        tokens: of each step, padding left out.
        targets: tokens with loss, of each step.
        seconds: of each optimizer step, whatever reads the data left out.
        losses: mean over its targets, of each step.
        waited: seconds from the beginning of training to the end of the last step that is left out.
        flops: that the counted steps need; None: not known.

    Returns:
        speed over the counted steps, peak memory of the process, the loss over all targets, and each step's.
    """
    if not len(tokens) == len(targets) == len(seconds) == len(losses) > WARM:
        raise SystemExit(
            f"steps by tokens {len(tokens)}, targets {len(targets)}, times {len(seconds)}, losses "
            f"{len(losses)}: they must be as many, and more than {WARM}"
        )
    taken = sum(seconds[WARM:])
    summary = {
        "tokens_per_second": sum(tokens[WARM:]) / taken,
        "peak_gb": process_memory.peak_memory() / 1e9,
        "mean_loss": sum(loss * count for loss, count in zip(losses, targets, strict=True)) / sum(targets),
        "first_steps_s": waited,
        "tokens": sum(tokens),
        "answer_tokens": round(sum(targets)),
        "losses": [round(loss, 6) for loss in losses],
    }
    if flops is not None:
        summary["gflops"] = flops / taken / 1e9
        summary["gflop_per_token"] = flops / sum(tokens[WARM:]) / 1e9
    return summary
