"""What a run cost: parameters, time, memory, FLOPs, energy, carbon dioxide and disk, from its folder. Opens no model.

The energy is that of training where the journal has it, since evaluations before and after are the same for every
method; of runs that train in seconds the journal has the whole run's. Nothing else is estimated here but the energy of
killed sessions, which recorded none: as much per second of training as the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.energy import ESTIMATED, MEASURED
from lmworks.reports import card

GRAMS_PER_KWH = 445.0
"""Carbon dioxide of a kilowatt-hour: the world's mean of 2024 (IEA, Electricity 2025, chapter Emissions). Countries
range from a tenth of it to twice as much."""
JOULES_PER_KWH = 3.6e6

Event = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a run cost; None where its journal does not say.

    Attributes:
        parameters: of the model, adapters included.
        trained_parameters: those that training changes.
        seconds: of the whole run, all sessions together.
        training_seconds: of training alone.
        steps: of training.
        tokens: real tokens that passed through the network in training, without padding.
        tokens_per_second: the same by second of training.
        peak_memory: highest resident memory of the process, in bytes.
        flops: of training, counted from shapes.
        joules: energy of what ``energy_covers`` names.
        energy_how: "measured" (the processor's own counter) or "estimated".
        energy_covers: "training" or "the whole run".
        energy_note: what the energy assumes, or lacks.
        grams_co2: carbon dioxide of that energy.
        grams_per_kwh: what a kilowatt-hour was taken for.
        disk: bytes of the result, without the base of an adapter.
    """

    parameters: int | None
    trained_parameters: int | None
    seconds: float | None
    training_seconds: float | None
    steps: int
    tokens: int
    tokens_per_second: float | None
    peak_memory: int | None
    flops: float | None
    joules: float | None
    energy_how: str | None
    energy_covers: str | None
    energy_note: str
    grams_co2: float | None
    grams_per_kwh: float
    disk: int | None


def cost(run: str | Path, grams_per_kwh: float = GRAMS_PER_KWH) -> Cost:
    """The cost of a run.

    Args:
        run: its folder; the run may be unfinished.
        grams_per_kwh: carbon dioxide of a kilowatt-hour where the machine stands.

    Raises:
        InputError: the folder has no journal, or a line before the last is damaged.
        ValueError: less than no carbon dioxide.
    """
    if not grams_per_kwh >= 0:
        raise ValueError(f"{grams_per_kwh} g of carbon dioxide for a kilowatt-hour is less than none")
    built = card.build(run)
    events, _ = card.read_journal(Path(run))
    parameters, training, costs = built["parameters"], built["training"], built["costs"]
    joules, how, covers, note = _training_energy(events) or _run_energy(costs["energy"] or {})
    return Cost(
        parameters=parameters.get("total"),
        trained_parameters=parameters.get("trainable"),
        seconds=costs["seconds"],
        training_seconds=costs["training_seconds"],
        steps=training["steps"],
        tokens=training["tokens"],
        tokens_per_second=training["tokens_per_second"],
        peak_memory=costs["peak_memory"],
        flops=costs["flops"],
        joules=joules,
        energy_how=how,
        energy_covers=covers,
        energy_note=note,
        grams_co2=None if joules is None else grams_of_co2(joules, grams_per_kwh),
        grams_per_kwh=grams_per_kwh,
        disk=built["artefact"].get("bytes"),
    )


def grams_of_co2(joules: float, grams_per_kwh: float = GRAMS_PER_KWH) -> float:
    """Carbon dioxide of electrical energy."""
    return joules / JOULES_PER_KWH * grams_per_kwh


Energy = tuple[float | None, str | None, str | None, str]
"""joules, how they are known, what they cover, what they assume or lack"""


def _training_energy(events: list[Event]) -> Energy | None:
    """The energy of training; None where no session of it recorded any."""
    ends = [event for event in events if event["event"] == "session_end" and event.get("energy_joules") is not None]
    counted = sum(end.get("seconds") or 0.0 for end in ends)
    if not counted:
        return None
    seconds = sum(event.get("seconds") or 0.0 for event in events if event["event"] == "step")
    joules = sum(end["energy_joules"] for end in ends)
    is_measured = all(end["energy_how"] == "measured" for end in ends)
    note = MEASURED if is_measured else ESTIMATED
    if len(ends) < sum(event["event"] == "session" for event in events) and seconds > counted:
        note = f"{note}; sessions that were killed: as much per second as the others"
        return joules * seconds / counted, "estimated", "training", note
    return joules, "measured" if is_measured else "estimated", "training", note


def _run_energy(energy: dict[str, Any]) -> Energy:
    """The energy of a whole run, as its card has it."""
    if energy.get("joules") is None:
        return None, None, None, ""
    note = "; ".join(str(energy[key]) for key in ("assumption", "note") if energy.get(key))
    return energy["joules"], energy["how"], "the whole run", note
