"""A run folder as a real run leaves it, with numbers drawn from a seed instead of from training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPE = """model: smollm2-135m-instruct
data:
  source: python-help
  held_out: 0.05
method: lora
lora:
  rank: 16
  alpha: 32
train:
  learning_rate: 0.0002  # <b>not bold</b>
  steps: 120
"""

SAMPLES = [
    ("What does os.path.join do?", "Join two or more pathname components, inserting '/' as needed."),
    ("What does textwrap.dedent do?", "Remove any common leading whitespace from every line in `text`."),
    ("What does <script>alert('x')</script> do?", "Nothing & more: it must be shown, not run."),
]


def _rows(random: np.random.Generator, rows: int, loss: float, shift: float = 0.0) -> dict[str, Any]:
    """A held-out part: the same rows each time, their losses moved by shift and a little noise."""
    fixed = np.random.default_rng(5)
    tokens = fixed.integers(8, 60, rows)
    row_bytes = tokens * 4 + fixed.integers(0, 20, rows)
    nats = tokens * (loss + fixed.normal(0, 0.4, rows) + shift + random.normal(0, 0.05, rows))
    return {
        "loss": float(nats.sum() / tokens.sum()),
        "bits_per_byte": float(nats.sum() / math.log(2) / row_bytes.sum()),
        "tokens": int(tokens.sum()),
        "rows": rows,
        "row_nats": nats.tolist(),
        "row_tokens": tokens.tolist(),
        "row_bytes": row_bytes.tolist(),
    }


def _evaluation(random: np.random.Generator, when: str, step: int, shift: float, rows: int) -> dict[str, Any]:
    general = {**_rows(random, 40, 3.1, -shift / 30), "name": "python-topics"}
    general.pop("loss")
    held_out = _rows(random, rows, 2.9, shift)
    if when == "step":  # as the loop writes it
        metrics = {name: held_out[name] for name in ("loss", "bits_per_byte")}
        return {"event": "evaluation", "step": step, "metrics": metrics}
    event: dict[str, Any] = {"event": "evaluation", "when": when, "step": step, "held_out": held_out}
    event["general"] = general
    values = np.clip(np.random.default_rng(6).normal(14, 6, 50) - 12 * shift + random.normal(0, 3, 50), 0, 100)
    event["task"] = {"metric": "chrF", "signature": "chrF2|mean-of-rows|nrefs:1", "value": float(values.mean())}
    event["task"] |= {"n": 50, "values": values.tolist()}
    return event


def events(steps: int = 120, rows: int = 80, effect: float = -0.9) -> list[dict[str, Any]]:
    """The events of a run that did all its steps."""
    random = np.random.default_rng(0)
    learnt = [effect * (1 - math.exp(-3 * n / steps)) for n in range(steps + 1)]
    plan = {
        "parameters": 134_515_008,
        "trainable": 1_843_200,
        "seconds": {"training": 104.0, "evaluation": 21.0, "total": 125.0},
        "flops": {"total": 15.1e12},
        "memory": {"total": 2_310_000_000},
        "disk": {"final": 7_400_000},
    }
    result: list[dict[str, Any]] = [
        {
            "event": "start",
            "time": 1_795_000_000.0,
            "model": "smollm2-135m-instruct",
            "data": "python-help",
            "method": "lora",
            "machine": {"name": "Two Cores", "cores": 2, "instructions": ["avx2", "fma"], "memory": 24_000_000_000},
            "plan": plan,
            "parameters": {"total": 136_358_208, "trainable": 1_843_200},
        },
        {
            "event": "data",
            "rows": 960,
            "tokens": 49_100,
            "loss_tokens": 21_000,
            "truncated": 3,
            "skipped": 0,
            "held_out": rows,
            "notes": ["3 rows were cut at 512 tokens."],
        },
        _evaluation(random, "before", 0, 0.0, rows),
        {
            "event": "samples",
            "when": "before",
            "items": [_sample(p, r, "I am not sure what that is.") for p, r in SAMPLES],
        },
    ]
    result.append({"event": "session", "from_step": 0, "steps": steps, "precision": "float32", "threads": 2})
    for n in range(1, steps + 1):
        loss = 2.9 + learnt[n] + random.normal(0, 0.25)
        rate = 2e-4 * min(n / 6, 0.5 * (1 + math.cos(math.pi * n / steps)))
        step = {"event": "step", "step": n, "loss": loss, "learning_rate": rate, "tokens": 400 + n % 7}
        result.append({**step, "targets": 170.0, "gradient_norm": 0.7, "seconds": 0.9})
        if n % 30 == 0 and n < steps:
            result.append(_evaluation(random, "step", n, learnt[n], rows))
            result.append({"event": "checkpoint", "step": n})
    tokens = sum(event.get("tokens", 0) for event in result if event["event"] == "step")
    session = {"seconds": 108.0, "tokens": tokens, "flops": 14.9e12, "peak_memory": 2_210_000_000}
    session["energy_joules"] = 4800.0
    result += [
        {"event": "session_end", "reason": "finished", **session, "energy_how": "estimated"},
        _evaluation(random, "after", steps, learnt[steps], rows),
        {"event": "samples", "when": "after", "items": [_sample(p, r, r) for p, r in SAMPLES]},
        {
            "event": "finish",
            "seconds": 131.0,
            "training_seconds": 108.0,
            "peak_memory": 2_210_000_000,
            "flops": 14.9e12,
            "energy": {"joules": 5240.0, "how": "estimated", "assumption": "20 W a busy core"},
            "artefact": {"path": "final", "bytes": 7_391_220},
            "share_of_limit": 0.44,
            "precision": "float32",
            "stopped": None,
        },
    ]
    return result


def _sample(prompt: str, reference: str, answer: str) -> dict[str, str]:
    return {"prompt": prompt, "reference": reference, "answer": answer}


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(events=None, **arguments of events)`` -> a run folder."""

    def make(result: list[dict[str, Any]] | None = None, name: str = "run", **arguments: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lines = [json.dumps(event) + "\n" for event in (events(**arguments) if result is None else result)]
        (folder / "journal.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def run_events() -> Callable[..., list[dict[str, Any]]]:
    """The function that makes the events, for tests that change them."""
    return events
