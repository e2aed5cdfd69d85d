"""What is measured of a contender's result besides its figures: in use, forgetting, memorisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.comparisons.planting import canaries_of
from lmworks.run import forgetting, inference, memorisation
from lmworks.run.forgetting import Retained, RowValues

INPUTS, NEW_TOKENS, REPEATS = 2, 16, 2
"""Inputs, tokens of each answer and passes by which the speed in use is measured."""
GENERAL_BYTES, QUESTIONS = 8_000, 24
"""General text and questions by which forgetting is measured."""
OTHER_SECRETS, REPRODUCED_ROWS = 100, 16
"""Secrets that each canary is ranked among; training rows, and as many held out, whose completion is asked for."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The measurements of a run by name; "notes" says what could not be measured, and why.

    Args:
        job: as of comparisons/worker.measure.
    """
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "in_use": lambda: _in_use(job["run"]),
        "forgetting": lambda: _forgetting(job["run"], Path(job["retained"])),
        "memorisation": lambda: _memorisation(job["run"], job["kind"], job["canaries"]),
    }
    measurements: dict[str, Any] = {"notes": []}
    for name in job["parts"]:
        try:
            measurements[name] = parts[name]()
        except InputError as error:
            measurements["notes"].append(f"{name.replace('_', ' ')} is not measured: {error.fault}")
    return measurements


def _in_use(run: str) -> dict[str, Any]:
    return asdict(inference.measure_inference(run, inference.default_inputs(INPUTS), NEW_TOKENS, REPEATS))


def _forgetting(run: str, kept: Path) -> dict[str, Any]:
    """The change of each figure; what the base can do is measured once and kept."""
    before = _read_retained(kept) if kept.is_file() else None
    questions = forgetting.choice_questions()[:QUESTIONS]
    forgetting_figures = forgetting.measure_forgetting(
        run, general_bytes=GENERAL_BYTES, questions=questions, before=before
    )
    if before is None:
        atomic_write(
            kept, json.dumps(asdict(Retained(forgetting_figures.text.before, forgetting_figures.choices.before, [])))
        )
    return {
        name: {
            "title": f"{change.before.figure} ({change.before.subject})",
            "unit": "",
            "better": change.before.better,
            "before": change.before.value,
            "after": change.after.value,
            "interval": change.interval,
        }
        for name, change in (("text", forgetting_figures.text), ("choices", forgetting_figures.choices))
    }


def _read_retained(path: Path) -> Retained:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Retained(RowValues(**values["text"]), RowValues(**values["choices"]), values["answers"])


def _memorisation(run: str, kind: str, count: int) -> dict[str, Any]:
    """Exposure of the canaries, and the share of completions that are written word for word."""
    planted, controls = canaries_of(kind, count)
    figures: dict[str, Any] = {}
    if planted:
        exposure = memorisation.measure_exposure(run, [*planted, *controls], OTHER_SECRETS)
        figures["exposure"] = {
            "planted": exposure.mean_planted,
            "control": exposure.mean_control,
            "expected": exposure.expected,
            "most": exposure.space_bits,
        }
    reproduction = memorisation.measure_reproduction(run, rows=REPRODUCED_ROWS)
    figures["reproduced"] = {
        "trained": reproduction.share_trained,
        "held_out": reproduction.share_held_out,
        "rows": len(reproduction.trained),
        "tokens": reproduction.new_tokens,
    }
    return figures
