"""What a run of method prompting does in place of training: it chooses a prompt on rows that are not held out.

Nothing is trained, so that the run evaluates one model twice: as it is asked in other runs, and by the chosen prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lmworks.base import process_memory
from lmworks.base.figures import count_of
from lmworks.base.journal import RunFolder
from lmworks.evaluate import scoring
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.generate.prefix_length import shared_length
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.model import LanguageModel
from lmworks.model.sizes import forward_flops
from lmworks.run.evaluation import Evaluation, Figures
from lmworks.run.prompt_candidates import PromptCandidates
from lmworks.tasks.task import Task
from lmworks.train.loop import Outcome

EVENT = "prompt"
Say = Callable[[str], None]


def choose(
    model: LanguageModel, task: Task, candidates: PromptCandidates, run: RunFolder, say: Say
) -> tuple[FewShotPrompt, Outcome]:
    """Measure each candidate on the validation rows, and choose the best; what a killed run measured is not repeated.

    Args:
        model: asked; not changed.
        task: of the rows.
        candidates: the prompts.
        run: each candidate is written to its journal.
        say: called with lines of progress.

    Returns:
        The chosen prompt; and the outcome, as training has one.
    """
    began = time.monotonic()
    while_choosing, afterwards = candidates.examples()
    chosen, measured = 0, dict[int, Figures]()
    if len(candidates.templates) > 1:
        rows = count_of(len(candidates.validation), "training row")
        say(f"choosing among {len(candidates.templates)} prompts on {rows}")
        measured |= {event["number"]: event for event in run.events(EVENT)}
        for number, template in enumerate(candidates.templates):
            if number not in measured:
                prompt = candidates.prompt(template, while_choosing)
                event = {"number": number, **template.model_dump(), **_figures(model, task, prompt, candidates)}
                run.write(EVENT, **event)
                measured[number] = event
        chosen = max(measured, key=lambda number: _rank(measured[number]))
    run.write("chosen_prompt", number=chosen, **_described(candidates, chosen))
    session = {
        "seconds": time.monotonic() - began,
        "flops": sum(event["tokens"] for event in measured.values()) * forward_flops(model.config, 1, 0).total,
        "peak_memory": process_memory.peak_memory(),
        "peak_parts": {},
    }
    prompt = candidates.prompt(candidates.templates[chosen], afterwards)
    return prompt, Outcome("finished", 0, None, ("float32", "nothing is trained"), session)


def _figures(model: LanguageModel, task: Task, prompt: FewShotPrompt, candidates: PromptCandidates) -> Figures:
    """How good a prompt is on the validation rows: of labels the accuracy and the nats of the right label; of answers
    the nats of each token."""
    table = candidates.validation
    candidates.check_prompts([prompt], table, model.tokenizer)
    if table.labels:
        asked = prompt.prompts(table, model.tokenizer, candidates.data)
        replies = choose_labels(partial(choice_likelihoods, model.network), asked)
        right = [row.values["label"] for row in table.rows]
        nats = [
            -float(np.log(max((reply.label_probabilities or {})[label], np.finfo(float).tiny)))
            for reply, label in zip(replies, right, strict=True)
        ]
        correct = [reply.text == label for reply, label in zip(replies, right, strict=True)]
        figures = {"accuracy": float(np.mean(correct)), "loss": float(np.mean(nats))}
        return {"rows": len(right), "tokens": _tokens([each.ids for each in asked]), **figures}
    examples = task.examples(prompt.table(table), candidates.data, candidates.context).items
    losses = scoring.row_losses(model.network, examples).language
    return {
        "rows": len(examples),
        "tokens": _tokens([example.ids.tolist() for example in examples]),
        "loss": losses.loss,
    }


def _tokens(rows: list[list[int]]) -> int:
    """Tokens that are read of rows, those that all share at their beginning once."""
    begin = shared_length(rows)
    return begin + sum(len(row) - begin for row in rows)


def _rank(figures: Figures) -> tuple[float, float]:
    """Better prompts have a higher one: first by accuracy, where there are labels, then by the loss."""
    return figures.get("accuracy", 0.0), -figures["loss"]


def _described(candidates: PromptCandidates, chosen: int) -> dict[str, Any]:
    settings = candidates.settings
    return {
        **candidates.templates[chosen].model_dump(),
        "shots": settings.shots,
        "examples": settings.examples if settings.shots else None,
        "calibration": candidates.calibrates,
        "candidates": len(candidates.templates),
    }


def prompted_evaluation(evaluation: Evaluation, prompt: FewShotPrompt, candidates: PromptCandidates) -> Evaluation:
    """The evaluation of the same rows, asked by a prompt; a text that shows what is forgotten is not read again.

    Args:
        evaluation: of the model as other runs ask it.
        prompt: the chosen one.
        candidates: with the held-out rows.

    Raises:
        InputError: a row with its examples does not fit the context.
    """
    model, task = evaluation.model, evaluation.task
    asked = {each.place: each for each in evaluation.prompts}
    measured = {example.place for example in evaluation.held_out}
    rows = [row for row in candidates.held_out.rows if row.place in evaluation.places]
    table = replace(candidates.held_out, rows=rows)
    candidates.check_prompts([prompt], table, model.tokenizer)
    examples = task.examples(prompt.table(table), candidates.data, candidates.context).items
    answered = replace(table, rows=[row for row in rows if row.place in asked])
    prompts = prompt.prompts(answered, model.tokenizer, candidates.data)
    return replace(
        evaluation,
        held_out=[example for example in examples if example.place in measured],
        prompts=[replace(each, text=asked[each.place].text) for each in prompts],
        general=[],
    )
