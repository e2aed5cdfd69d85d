"""The plan of a run that trains nothing: what choosing a prompt and two evaluations need.

Tokens that rows share at their beginning, as fixed examples are, count once. Time is measured as that of every run's
evaluation (run/timing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmworks.adapt.prompting import Prompting
from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.generate.prefixes import CACHE_BYTES
from lmworks.kernels import product_rates
from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.run import budget, footprint, timing
from lmworks.run.base_weights import WeightFormat
from lmworks.run.footprint import DataStatistics, ProcessMemory, TrainingSetup
from lmworks.run.plan import Plan, available_bytes
from lmworks.train.settings import TrainSettings, with_row_tokens


@dataclass(frozen=True)
class PromptingWork:
    """What is read besides what every run evaluates.

    Attributes:
        choosing: tokens read to choose a prompt.
        after: tokens read in the evaluation after it that the one before did not read.
        longest: tokens of the longest row with its examples.
        result_bytes: of what is saved: the examples, and their vectors.
        note: what no token counts; empty: nothing.
    """

    choosing: int
    after: int
    longest: int
    result_bytes: int
    note: str = ""


def make(
    config: ModelConfig,
    train: TrainSettings,
    documents: DataStatistics,
    process: ProcessMemory,
    work: PromptingWork,
    weight_formats: Sequence[WeightFormat] = (WeightFormat(),),
    measures: bool = True,
) -> Plan:
    """The plan; arguments as of plan.make.

    Raises:
        InputError: the run does not fit in memory.
    """
    method, train = Prompting(), with_row_tokens(train, config, "float32")
    setups = [
        TrainingSetup.of(config, method.trained_parameters(config), train, "float32", documents, process).with_weights(
            weights
        )
        for weights in weight_formats
    ]
    parts = [_memory(setup, work.longest) for setup in setups]
    most = budget.most_bytes(setups[0], available_bytes(process))
    number = next((n for n, memory in enumerate(parts) if memory["total"] <= most), len(setups) - 1)
    setup, memory = setups[number], parts[number]
    if memory["total"] > most:
        needed, there = (figures.byte_size(size) for size in (memory["total"], most))
        raise InputError(f"the run needs {needed}, and may hold {there}", "memory", "take a smaller model")
    timed = timing.read_or_measure_inference(setup, method, documents.answer_rows, measures)
    seconds = _seconds(setup, work, timed)
    token = sizes.forward_flops(config, 1, 0, None, None).total
    disturbed = "" if timed is None or timed.is_undisturbed else "measured while other programs ran: unreliable"
    note = "; ".join(text for text in (disturbed, work.note) if text)
    flops = token * work.choosing
    return Plan(
        parameters=setup.parameters,
        trainable=0,
        steps=0,
        tokens=work.choosing,
        loss_tokens=0,
        precision="float32",
        flops={"forward": flops, "total": flops},
        rate=flops / seconds["training"] if seconds.get("training") else None,
        seconds=seconds,
        memory=memory,
        disk={"final": work.result_bytes, "total": work.result_bytes},
        note=note,
        recompute=train.recompute,
        row_tokens=setup.train.row_capacity,
        choice="" if number == 0 else f"weights stay {setup.weights.dtype_names}, to save memory",
        precision_reason="float32: nothing is trained, and evaluation is in float32",
        base_precision=setup.weights.precision,
    )


def _memory(setup: TrainingSetup, longest: int) -> dict[str, int]:
    """Bytes by part at the peak, and their total."""
    documents = setup.documents
    by_part = {
        "library": setup.process.library_bytes + footprint.RUNTIME_BYTES,
        "weights": setup.weight_bytes,
        "evaluation": footprint.evaluation_bytes(
            setup.config, longest, max(documents.answer_cache_bytes, 2 * CACHE_BYTES)
        ),
    }
    by_part["opening"] = max(0, setup.process.opening_peak - sum(by_part.values()))
    return {**by_part, "total": sum(by_part.values())}


def _seconds(setup: TrainingSetup, work: PromptingWork, timed: timing.InferenceTiming | None) -> dict[str, float]:
    """Seconds of choosing, and of both evaluations; empty where the machine's rate is not known."""
    documents = setup.documents
    if timed is not None:
        token, answers = timed.evaluation, documents.answer_steps * timed.answer
    else:
        rate = 1e9 * float(product_rates.fastest_rates().float32 or 0)
        if not rate:
            return {}
        token, answers = sizes.forward_flops(setup.config, 1, 0, None, None).total / rate, 0.0
    before = documents.evaluation_tokens * token + answers
    after = before + work.after * token
    parts = {"training": work.choosing * token, "before": before, "during": 0.0, "after": after}
    return {**parts, "evaluation": before + after, "total": sum(parts.values())}
