"""What the card says beside its tables, as (name, text) lines; terminal and page say the same. Knows no layout."""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.tasks.registry import TASKS

Card = dict[str, Any]
FORMATTERS = {
    "seconds": figures.duration,
    "bytes": figures.byte_size,
    "flops": lambda value: figures.scaled(value, "FLOP", 3),
}


def title(source: str | None) -> str:
    """A model or data set as a heading names it: of a path its last part."""
    return figures.UNKNOWN if source is None else str(source).rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def data_title(card: Card) -> str:
    """What a run learned from, as a heading names it: its data set, or its tasks."""
    tasks = card.get("tasks") or []
    return ", ".join(part["name"] for part in tasks) if tasks else title(card["run"]["data"])


def task_title(part: Card) -> str:
    """The heading of one of several tasks."""
    weight = part["weight"]
    weighs = f", weight {figures.number(weight)}" if weight not in (None, 1) else ""
    return f"{part['name']} · {part['task']} on {title(part['data'])}{weighs}"


def state(run: Card) -> str:
    """How far the run came, in words."""
    again = f", resumed {run['resumed']} time{'s' if run['resumed'] > 1 else ''}" if run["resumed"] else ""
    early = f" ({run['stopped']})" if run["stopped"] else ""
    return f"{run['state']}{early}{again}"


def cost_lines(card: Card) -> list[tuple[str, str]]:
    """Speed and energy as (name, text) lines; what was not recorded is left out."""
    energy, training = card["costs"]["energy"] or {}, card["training"]
    speed, limit = training["tokens_per_second"], training["share_of_limit"]
    texts = training["texts_per_second"]
    counted = ", ".join(str(energy[key]) for key in ("assumption", "note") if energy.get(key))
    joules = f"{figures.energy(energy['joules'])} {energy.get('how', '')}" if energy.get("joules") is not None else None
    lines = [
        *_preparation(card["costs"].get("preparation") or {}),
        ("speed (real tokens)", f"{figures.number(speed)} tokens/s" if speed else None),
        ("prediction", f"{figures.number(texts)} texts/s" if texts else None),
        ("of the machine's measured rate", figures.percent(limit, 2) if limit else None),
        ("peak memory: parts", _peak(card["costs"].get("peak_parts") or {})),
        ("memory choice", card.get("memory_choice")),
        ("energy", joules),
        ("energy counts", counted if joules else None),
    ]
    return [(name, text) for name, text in lines if text]


def _preparation(seconds: Card) -> list[tuple[str, str | None]]:
    """What was done before the run, and once on this machine: the run's time does not include it."""
    return [(f"before: {work}", f"{figures.duration(spent)}, not in the time above") for work, spent in seconds.items()]


def _peak(parts: Card) -> str | None:
    """The parts of the peak, largest first, and when it came."""
    sizes = {name: size for name, size in parts.items() if isinstance(size, int | float) and size > 0}
    if not sizes:
        return None
    ordered = sorted(sizes, key=lambda name: -sizes[name])
    listed = ", ".join(f"{name} {figures.byte_size(sizes[name])}" for name in ordered)
    return f"{listed}; at {parts['stage']}" if parts.get("stage") else listed


def run_lines(card: Card) -> list[tuple[str, str]]:
    """Model, data, sizes and place of a run as (name, text) lines; what was not recorded is left out."""
    numbers, training, data = card["parameters"], card["training"], card["data"]
    total, trainable = numbers.get("total"), numbers.get("trainable")
    share = f" ({figures.percent(trainable / total)})" if total and trainable is not None else ""
    held, artefact, machine = data.get("held_out"), card["artefact"], card["machine"]
    size = f" ({figures.byte_size(artefact['bytes'])})" if artefact.get("bytes") else ""
    lines = [
        ("model", str(card["run"]["model"]) if card["run"]["model"] else None),
        ("data", str(card["run"]["data"]) if card["run"]["data"] else None),
        *_comparison(card["run"].get("comparison")),
        ("learns", _task(card["run"].get("task"))),
        ("tokenizer", _tokenizer(card["run"].get("tokenizer"))),
        ("parameters", figures.count(total) if total else None),
        ("trained parameters", f"{figures.count(trainable)}{share}" if trainable is not None else None),
        ("rows trained on", _rows(data) if data.get("rows") is not None else None),
        ("rows held out", _held_out(card) if isinstance(held, int) else None),
        (
            "rows truncated / skipped",
            f"{data['truncated']} / {data.get('skipped', 0)}" if "truncated" in data else None,
        ),
        ("steps", figures.count(training["steps"]) if training["steps"] else None),
        ("tokens trained on", figures.count(training["tokens"]) if training["tokens"] else None),
        *_prompts(card.get("prompts")),
        ("result", f"{artefact['path']}{size}" if artefact.get("path") else None),
        ("machine", str(machine["name"]) if machine.get("name") else None),
    ]
    return [(name, text) for name, text in lines if text]


def _comparison(comparison: Card | None) -> list[tuple[str, str | None]]:
    """The comparison that chose the settings of a run, and what is expected of them."""
    if not comparison:
        return []
    interval = comparison.get("interval")
    ends = f" (95 % interval {figures.interval(*interval)})" if interval else ""
    rows = figures.count_of(comparison["rows"], "test row")
    expected = f"{comparison['figure']} {figures.number(comparison['value'])}{ends}, as on {rows} of the comparison"
    return [
        ("settings from", f"comparison {comparison['folder']}: {comparison['contender']}"),
        ("expected of new rows", expected),
    ]


def _prompts(prompts: Card | None) -> list[tuple[str, str | None]]:
    """The prompt by which a model was asked that was not trained, and how good the candidates were."""
    if not prompts:
        return []
    shots, kind = prompts["shots"], prompts.get("examples")
    shown = f"{figures.count_of(shots, 'example')}, {kind}" if shots else "no examples"
    lines: list[tuple[str, str | None]] = [("shown before each text", shown)]
    lines += [("calibrated", "by texts that say nothing" if prompts["calibration"] else None)]
    for each in prompts["measured"] or [prompts]:
        measured = [f"accuracy {figures.number(each['accuracy'])}"] if "accuracy" in each else []
        measured += [f"loss {figures.number(each['loss'])}"] if "loss" in each else []
        on = [f"on {figures.count_of(each['rows'], 'row')} to train on"] if "rows" in each else []
        mark = " (chosen)" if each["number"] == prompts["number"] else ""
        wording = each["instruction"], each["input"] or "each row as in training"
        said = " | ".join(part.replace("\n", " ⏎ ") for part in wording if part)
        lines.append((f"prompt {each['number'] + 1}{mark}", "; ".join([", ".join([*measured, *on]), said]).strip("; ")))
    return lines


def _rows(data: Card) -> str:
    with_loss, examples = data.get("loss_tokens"), data.get("examples")
    parts = f" in {figures.count_of(examples, 'example')}" if examples and examples != data["rows"] else ""
    tokens = f", {figures.count(data['tokens'])} tokens" if data.get("tokens") is not None else ""
    loss = f" ({figures.count(with_loss)} with loss)" if with_loss else ""
    return f"{figures.count(data['rows'])}{parts}{tokens}{loss}"


def _held_out(card: Card) -> str:
    """Held-out rows, and what is evaluated of them where those are not whole rows."""
    rows, examples = card["data"]["held_out"], card["data"].get("held_out_examples")
    if examples is None or examples == rows:
        return figures.count(rows)
    if examples < rows:
        return f"{figures.count(rows)}, of which {figures.count(examples)} are evaluated"
    groups = max((measure["rows"] or 0 for measure in card["measures"]), default=0)
    grouped = f"; the table's rows are {groups} groups of these" if 0 < groups < examples else ""
    held = f"the end of {figures.count_of(rows, 'text')}" if card["data"].get("divided_inside") else figures.count(rows)
    return f"{held} in {figures.count_of(examples, 'example')}{grouped}"


def _task(task: Card | None) -> str | None:
    """What the model learns, in a few words; None where the journal does not say."""
    if not task:
        return None
    known = TASKS.get(task["name"])
    second = ", and next sentences" if task.get("next_sentence") else ""
    learns = known.learns if known else task.get("learns")
    return f"{task['name']}: {learns}{second}" if learns else str(task["name"])


def _tokenizer(tokenizer: Card | None) -> str | None:
    if not tokenizer:
        return None
    kind = f"{tokenizer['kind']}, " if tokenizer.get("kind") else ""
    return f"{kind}vocabulary of {figures.count(tokenizer['vocab_size'])}, {tokenizer['source']}"


def spread_answers(answers: list[list[Any]], most: int) -> list[list[Any]]:
    """At most ``most`` of the (step, answer) pairs, at equal intervals, the first and the last among them."""
    if len(answers) <= most:
        return answers
    return [answers[round(place * (len(answers) - 1) / (most - 1))] for place in range(most)]
