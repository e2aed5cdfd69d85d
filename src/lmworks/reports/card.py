"""The report card: a run folder's journal -> the numbers that say what the run was worth. Imports no model.

It reads the recipe and the journal and nothing else, so a card can be built of a run that is still going, was killed,
or was copied from another machine; it never writes into the journal. Verdicts are those of reports/measures.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from lmworks.base import notation
from lmworks.base.errors import InputError, check_type
from lmworks.base.figures import count_of
from lmworks.base.journal import RunFolder
from lmworks.reports import advice, several_tasks, summary
from lmworks.reports.measures import HOW, measures, note_of_cut

FORMAT = 1
Event = dict[str, Any]


def build(run: str | Path) -> dict[str, Any]:
    """The report card of a run folder.

    Args:
        run: folder with ``journal.jsonl`` and, where there is one, ``recipe.yaml``.

    Returns:
        Plain values only (the content of report.json). What was not recorded is None or an empty list.

    Raises:
        InputError: the folder has no journal, or a line before the last is damaged.
    """
    check_type(run, (str, Path), "run", "give the folder of a run")
    folder = Path(run)
    events, torn = read_journal(folder)
    recipe, train = folder / "recipe.yaml", _train_settings(folder / "recipe.yaml")
    start, finish = _last(events, "start"), _last(events, "finish")
    steps = [e for e in events if e["event"] == "step"]
    first, last = _evaluations(events)
    tasks = several_tasks.task_parts(folder, start, first, last)
    listed = [] if tasks else measures(first, last, (start.get("task") or {}).get("name"), bool(start.get("new")))
    notes = [*_precision_notes(events), *_cache_notes(first)]
    notes += [note for measure in listed if (note := note_of_cut(measure.get("cut") or {}))]
    card = {
        "format": FORMAT,
        "summary": "",
        "advice": [],
        "run": _run(folder, events, start, finish, torn, notes),
        "machine": start.get("machine") or {},
        "data": {k: v for k, v in _last(events, "data").items() if k not in ("event", "time")},
        "parameters": start.get("parameters") or finish.get("parameters") or {},
        "compared": _compared(first, last),
        "measures": listed,
        "tasks": tasks,
        "how": HOW,
        **several_tasks.kind_parts(last or first),
        "prompts": _prompts(events),
        "training": _training(steps, finish, _last(events, "session")),
        "costs": _costs(events, steps, finish),
        "memory_choice": (start.get("plan") or {}).get("choice") or None,
        "planned": _planned(start.get("plan") or {}, events, steps, finish),
        "artefact": finish.get("artefact") or {},
        "samples": _samples(events),
        "progress": _progress(events),
        "curves": {**_curves(steps, events, finish), "training_by_task": several_tasks.curves(tasks, steps)},
        "recipe": recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
    }
    card = _finite(card)
    card["summary"] = summary.sentence(card)
    card["advice"] = [*advice.on_memory(card, train), *advice.on_length(card, train)]
    return card


def _compared(before: Event, after: Event) -> dict[str, Any]:
    """Which two evaluations the card compares."""
    return {
        "before": before.get("when"),
        "before_name": before.get("name"),
        "after": after.get("when"),
        "step": after.get("step"),
    }


def _train_settings(recipe: Path) -> dict[str, Any]:
    """The group ``train`` of a recipe; empty where there is none that can be read."""
    try:
        values = notation.read_yaml(recipe)
    except InputError:
        return {}
    train = values.get("train")
    return train if isinstance(train, dict) else {}


def _finite(value: Any) -> Any:
    """The same with None in place of NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_journal(folder: Path) -> tuple[list[Event], bool]:
    """The journal's events, and whether its last line is torn (the run writes it now, or was killed doing so)."""
    run = RunFolder(folder)
    written = run.journal.read_bytes()
    return run.events(), bool(written) and not written.endswith(b"\n")


def _last(events: list[Event], kind: str) -> Event:
    return next((e for e in reversed(events) if e["event"] == kind), {})


def _sessions(events: list[Event]) -> list[list[Event]]:
    """The events of each process that worked on the run, in order; a killed run that was resumed has two."""
    sessions: list[list[Event]] = [[]]
    working = False
    for event in events:
        if event["event"] == "resume" or (event["event"] == "session" and working):
            sessions.append([])
            working = False
        working = working or event["event"] == "session"
        sessions[-1].append(event)
    return sessions


def _run(
    folder: Path, events: list[Event], start: Event, finish: Event, torn: bool, notes: list[str]
) -> dict[str, Any]:
    sessions = _sessions(events)
    finished = any(e["event"] == "finish" for e in sessions[-1])  # a finish before a resume is not the end
    return {
        "name": folder.resolve().name,
        "path": str(folder),
        "state": "finished" if finished else "unfinished",
        "stopped": _stopped(sessions[-1]),
        "resumed": len(sessions) - 1,
        "model": start.get("model"),
        "data": start.get("data"),
        "method": start.get("method"),
        "task": start.get("task"),
        "comparison": start.get("comparison"),
        "new": bool(start.get("new")),
        "tokenizer": start.get("tokenizer"),
        "precision": finish.get("precision") or _last(events, "session").get("precision") or start.get("precision"),
        "started": start.get("time"),
        "warnings": _warnings(events, finished, torn),
        "notes": [*_recorded_notes(start, _last(events, "data"), finish), *notes],
    }


def _recorded_notes(*events: Event) -> list[str]:
    return [str(note) for event in events for note in event.get("notes") or []]


def _stopped(session: list[Event]) -> str | None:
    """Why training ended, where it did not end by doing all its steps."""
    reason = _last(session, "finish").get("stopped") or _last(session, "session_end").get("reason")
    return None if reason == "finished" else reason


def _warnings(events: list[Event], finished: bool, torn: bool) -> list[str]:
    """What a reader must know before the figures."""
    notes = []
    if not finished:
        notes.append("The run is not finished: figures after training are missing or are those of its last evaluation.")
    for event in events:
        if event["event"] == "failure":
            notes.append(f"Training stopped at step {event.get('step')}: its {event.get('quantity')} was not a number.")
    session, end = _last(events, "session"), _last(events, "session_end")
    if end.get("reason") == "time":
        steps = f"{end.get('last'):,} of {session.get('steps'):,} planned steps"
        notes.append(f"Training stopped after {steps}: its time was over (train.max_time).")
    apart = sum(e["event"] == "divergence" for e in events)
    if apart:
        notes.append(f"{count_of(apart, 'step')} repeated after a resume came out differently.")
    if torn:
        notes.append("The journal's last line is torn and was left out.")
    return notes


def _evaluations(events: list[Event]) -> tuple[Event, Event]:
    """The evaluation before training and the one after it; while there is none after, the last during training."""
    evaluations = [e for e in events if e["event"] == "evaluation"]
    before = next((e for e in evaluations if e.get("when") == "before"), {})
    after = next((e for e in reversed(evaluations) if e.get("when") == "after"), {})
    during = next((e for e in reversed(evaluations) if e.get("when", "step") == "step"), {})
    if during:
        during = {**during, "when": "step", "held_out": _held_out(during)}
    return before, after or during


def _held_out(event: Event) -> Event:
    """The held-out part; what the loop evaluates during training stands under ``metrics``."""
    return event.get("held_out") or event.get("metrics") or {}


def _precision_notes(events: list[Event]) -> list[str]:
    """That the held-out loss during training has another precision than the table, where it has."""
    precision = _last(events, "session").get("precision", "float32")
    if precision == "float32" or not any(e["event"] == "evaluation" and e.get("when") == "step" for e in events):
        return []
    return [f"The held-out loss during training, as in the curve, is computed in {precision}; the table is in float32."]


def _cache_notes(before: Event) -> list[str]:
    """That the figures before training are an earlier run's, where they are."""
    if not before.get("is_cached"):
        return []
    return ["The figures before training are those of an earlier run with the same model, rows and settings."]


def _training(steps: list[Event], finish: Event, session: Event) -> dict[str, Any]:
    tokens = sum(e.get("tokens") or 0 for e in steps)
    seconds = sum(e.get("seconds") or 0.0 for e in steps)
    return {
        "steps": max((e["step"] for e in steps), default=0),
        "planned_steps": session.get("steps"),
        "first_loss": steps[0].get("loss") if steps else None,
        "last_loss": steps[-1].get("loss") if steps else None,
        "tokens": tokens,
        "seconds": seconds or finish.get("training_seconds"),
        "tokens_per_second": tokens / seconds if seconds else None,
        "share_of_limit": finish.get("share_of_limit"),
        "texts_per_second": finish.get("texts_per_second"),
        "best_step": finish.get("best_step"),
    }


def _costs(events: list[Event], steps: list[Event], finish: Event) -> dict[str, Any]:
    """What it took, all sessions of a resumed run together as far as the journal has them."""
    sessions = _sessions(events)
    ends = [_last(session, "session_end") for session in sessions]
    return {
        "seconds": sum(_seconds(session) for session in sessions) or None,
        "training_seconds": sum(e.get("seconds") or 0.0 for e in steps) or finish.get("training_seconds"),
        "preparation": _preparation(events),
        "peak_memory": max((e["peak_memory"] for e in events if e.get("peak_memory")), default=None),
        "peak_parts": _peak_parts(events),
        "flops": _flops(ends, steps, finish),
        "energy": _energy(events, ends),
    }


def _preparation(events: list[Event]) -> dict[str, float]:
    """Seconds of fetching and measuring before the run, and before it was resumed, which its time does not include."""
    recorded = Counter[str]()
    for event in events:
        if event["event"] in ("start", "resume"):
            recorded.update(event.get("preparation") or {})
    return dict(recorded)


def _peak_parts(events: list[Event]) -> dict[str, Any]:
    """What the highest peak consisted of, bytes by part, and the stage in which it came; empty where not recorded.

    The parts add up to the peak: what was held in the evaluation after training was not divided, and stands as "other".
    """
    recorded = [e for e in events if e.get("peak_parts") and e.get("peak_memory")]
    if not recorded:
        return {}
    highest = max(recorded, key=lambda e: e["peak_memory"])
    parts = dict(highest["peak_parts"])
    rest = highest["peak_memory"] - sum(size for size in parts.values() if isinstance(size, int | float))
    return {**parts, "other": rest} if rest > 0 else parts


def _flops(ends: list[Event], steps: list[Event], finish: Event) -> float | None:
    """FLOPs of all sessions; for a killed one, which recorded none, as many per token as in the others."""
    recorded = [end for end in ends if end.get("flops")]
    if not recorded:
        return finish.get("flops")
    spent = float(sum(end["flops"] for end in recorded))
    counted, tokens = sum(end.get("tokens") or 0 for end in recorded), sum(e.get("tokens") or 0 for e in steps)
    return spent * tokens / counted if len(recorded) < len(ends) and counted else spent


def _seconds(session: list[Event]) -> float:
    """From a session's first event to its last, or as its finish records it; without times, that of its steps."""
    recorded = _last(session, "finish").get("seconds")
    times = [e["time"] for e in session if isinstance(e.get("time"), int | float)]
    stepping = sum(e.get("seconds") or 0.0 for e in session if e["event"] == "step")
    return float(recorded if recorded is not None else max(times[-1] - times[0], stepping) if times else stepping)


def _energy(events: list[Event], ends: list[Event]) -> dict[str, Any] | None:
    """Joules and how they are known, with a note where sessions recorded none."""
    finishes = [dict(e["energy"]) for e in events if e["event"] == "finish" and e.get("energy")]
    joules = [end["energy_joules"] for end in ends if end.get("energy_joules") is not None]
    if finishes and len(ends) == 1:
        return finishes[-1]
    if not joules:
        return {**finishes[-1], "note": "of the last session alone"} if finishes else None
    how = {str(end.get("energy_how")) for end in ends if end.get("energy_joules") is not None}
    energy: dict[str, Any] = {"joules": sum(joules), "how": " and ".join(sorted(how))}
    energy["note"] = "training alone" if len(joules) == len(ends) else "sessions that were killed are missing"
    return energy


def _planned(plan: Event, events: list[Event], steps: list[Event], finish: Event) -> list[dict[str, Any]]:
    """What was expected beside what happened."""
    costs = _costs(events, steps, finish)
    happened = {
        "training time": ("seconds", "training", costs["training_seconds"], "seconds"),
        "time in all": ("seconds", "total", costs["seconds"], "seconds"),
        "peak memory": ("memory", "total", costs["peak_memory"], "bytes"),
        "arithmetic": ("flops", "total", costs["flops"], "flops"),
        "size of the result": ("disk", "final", (finish.get("artefact") or {}).get("bytes"), "bytes"),
    }
    rows = []
    for what, (part, key, real, unit) in happened.items():
        expected = (plan.get(part) or {}).get(key)
        if expected is None and real is None:
            continue
        ratio = real / expected if real and expected else None
        rows.append({"what": what, "unit": unit, "planned": expected, "happened": real, "ratio": ratio})
    return rows


def _samples(events: list[Event]) -> list[dict[str, Any]]:
    """The same prompts answered before and after, side by side, in the order they were first asked."""
    samples: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] != "samples":
            continue
        side = "before" if event.get("when") == "before" else "after"
        for item in event.get("items") or []:
            prompt = str(item.get("prompt", ""))
            empty = {"prompt": prompt, "reference": item.get("reference"), "before": None, "after": None}
            samples.setdefault(prompt, empty)[side] = _answer(item)
    return list(samples.values())


def _answer(item: dict[str, Any]) -> Any:
    """A sample's answer, marked where it was cut at the most tokens that an answer may have."""
    cut = item.get("cut")
    return f"{item.get('answer')} … (cut at {cut} tokens)" if cut else item.get("answer")


def _prompts(events: list[Event]) -> dict[str, Any] | None:
    """The prompts that a run without training measured, and the chosen one; None of other runs."""
    chosen = _last(events, "chosen_prompt")
    if not chosen:
        return None
    measured = {event["number"]: event for event in events if event["event"] == "prompt"}
    kept = ("number", "instruction", "input", "rows", "accuracy", "loss")
    return {
        **{key: value for key, value in chosen.items() if key not in ("event", "time")},
        "measured": [{key: each[key] for key in kept if key in each} for _, each in sorted(measured.items())],
    }


def _progress(events: list[Event]) -> list[dict[str, Any]]:
    """The same prompts answered again and again while the model learned: (step, answer) pairs, where there are any."""
    prompts: dict[str, dict[str, Any]] = {}
    sampled = [e for e in events if e["event"] == "samples" and e.get("step") is not None]
    if not any(event.get("when") == "step" for event in sampled):
        return []
    for event in sorted(sampled, key=lambda event: event["step"]):  # a resumed run may have sampled twice at one step
        for item in event.get("items") or []:
            empty = {"prompt": item["prompt"], "reference": item.get("reference"), "answers": {}}
            prompts.setdefault(item["prompt"], empty)["answers"][event["step"]] = _answer(item)
    return [{**row, "answers": [[step, text] for step, text in row["answers"].items()]} for row in prompts.values()]


def _curves(steps: list[Event], events: list[Event], finish: Event) -> dict[str, list[list[float]]]:
    """Points (step, figure) for drawing. After training the weights are those of the best step, where that is known.

    A step that was evaluated during training keeps that figure: all points but the first then have one precision.
    """
    held_out: dict[int, float] = {}
    last = max((e["step"] for e in steps), default=0)
    for event in events:
        loss = _held_out(event).get("loss") if event["event"] == "evaluation" else None
        if loss is not None and _real(loss):
            after = event.get("when") == "after"
            step = finish.get("best_step") if after else None
            step = event.get("step") if step is None else step
            step = (last if after else 0) if step is None else step
            if not after or step not in held_out:
                held_out[step] = loss
    return {
        "training": [[e["step"], e["loss"]] for e in steps if _real(e.get("loss"))],
        "learning_rate": [[e["step"], e["learning_rate"]] for e in steps if e.get("learning_rate") is not None],
        "held_out": [[step, loss] for step, loss in sorted(held_out.items())],
    }


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
