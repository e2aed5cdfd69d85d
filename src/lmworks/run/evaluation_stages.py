"""The stages of a run in which it evaluates, written to its journal: before training, and after it."""

from __future__ import annotations

import contextlib
from typing import Any

from lmworks.base.journal import RunFolder
from lmworks.evaluate.progress import listening
from lmworks.run import prompting
from lmworks.run.evaluation import Evaluation, Figures
from lmworks.run.result import Say, silent
from lmworks.run.setup import Setup
from lmworks.train.progress import EvaluationProgress


def is_evaluated(run: RunFolder, when: str) -> bool:
    """Whether the evaluation before or after training is done."""
    return any(event.get("when") == when for event in run.events("evaluation"))


def evaluate_before(run: RunFolder, setup: Setup, say: Say) -> None:
    """Evaluate the opened model, or take the figures of an earlier run."""
    if setup.has_new_head:
        rows = setup.held_out.items
        figures = setup.task.untrained_figures(setup.train.items, rows) if rows else {}
        return _write_evaluation(run, "before", 0, figures, [])
    cached = setup.cached_evaluation
    if cached is not None and cached.results is not None:
        say(
            "evaluation before training: as in an earlier run with the same model, rows and settings "
            "(--evaluate.reuse false evaluates again)"
        )
        figures, samples = cached.results
        return _write_evaluation(run, "before", 0, {**figures, "is_cached": True}, samples)
    say("evaluating before training")
    figures, samples = _evaluate(run, setup.evaluation, "before", say)
    if cached is not None:
        cached.write(figures, samples)
    return _write_evaluation(run, "before", 0, figures, samples)


def evaluate_after(run: RunFolder, setup: Setup, step: int, say: Say) -> None:
    """Evaluate the same rows; where nothing was trained, by the chosen prompt, and nothing was forgotten."""
    if setup.candidates is None or setup.model.few_shot is None:
        say("evaluating after training")
        return _write_evaluation(run, "after", step, *_evaluate(run, setup.evaluation, "after", say))
    say("evaluating with the chosen prompt")
    evaluation = prompting.prompted_evaluation(setup.evaluation, setup.model.few_shot, setup.candidates)
    figures, samples = _evaluate(run, evaluation, "after", say)
    before = next(event for event in run.events("evaluation") if event.get("when") == "before")
    if general := before.get("general"):
        figures["general"] = general
    return _write_evaluation(run, "after", step, figures, samples)


def _evaluate(run: RunFolder, evaluation: Evaluation, when: str, say: Say) -> tuple[Figures, list[dict[str, Any]]]:
    try:
        with contextlib.ExitStack() as stack:
            if say is not silent:
                progress = stack.enter_context(EvaluationProgress(f"evaluating {when} training"))
                stack.enter_context(listening(progress))
            return evaluation.run()
    except KeyboardInterrupt:
        say(f"stopped while evaluating {when} training; go on with: lmworks resume {run.path}")
        raise


def _write_evaluation(run: RunFolder, when: str, step: int, figures: Figures, samples: list[dict[str, Any]]) -> None:
    run.write("samples", when=when, step=step, items=samples)
    run.write("evaluation", when=when, step=step, **figures)
