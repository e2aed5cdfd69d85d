"""How likely texts, and choices after prompts, are to a decoder in the native engine. Imports no torch.

The stepper's only row goes from prompt to prompt. They are sorted, so that it keeps what each shares with the one
before, such as an instruction and examples, and computes the rest; a prompt is read once for all of its choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from lmworks.evaluate import progress
from lmworks.evaluate.text_windows import Ids, Score, check_choices, scores_of, windows_of
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.sampling import as_array
from lmworks.generate.stepper import RowStart
from lmworks.model.chunks import EVALUATED_LOGITS
from lmworks.text.tokenizer import Tokenizer


def score_texts(
    stepper: NativeStepper,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    context: int | None = None,
    stride: int | None = None,
    computed: str = "",
) -> list[Score]:
    """How likely each text is, in the order given; as evaluate/scoring.score_texts.

    Args:
        stepper: its earlier rows are dropped.
        tokenizer: of the model.
        texts: of any length.
        context, stride: of the windows of long texts (text_windows.windows_of).
        computed: begins the signature of each score.
    """
    windowed = windows_of(texts, tokenizer, stepper.context, context, stride)
    prompts, choices = [], []
    for window in (window for text in windowed for window in text.windows):
        ids, first = window.ids.tolist(), int(window.loss.argmax())
        prompts.append(ids[:first])
        choices.append([ids[first:]])
    likelihoods = choice_likelihoods(stepper, prompts, choices)
    return scores_of(windowed, (-float(values[0]) for values in likelihoods), computed)


def choice_likelihoods(
    stepper: NativeStepper, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]
) -> list[np.ndarray]:
    """log p of each choice after its prompt; as evaluate/choices.choice_likelihoods.

    Args:
        stepper: its earlier rows are dropped.
        prompts: token ids of each prompt.
        choices: for each prompt the token ids of its choices, each with the end that a whole answer has.

    Returns:
        For each prompt an array with one log-likelihood (nats, at most 0) a choice, not divided by its length.

    Raises:
        InputError: a prompt or a choice has no token, or both together are longer than the context.
    """
    check_choices(prompts, choices, stepper.context)
    likelihoods = [np.zeros(len(answers)) for answers in choices]
    before: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: list(prompts[index])):
        prompt = list(prompts[index])
        logits = _read(stepper, before, prompt)
        for place, answer in enumerate(choices[index]):
            first = _log_probability(logits, answer[0])
            likelihoods[index][place] = first + _following(stepper, len(prompt), answer)
        before = prompt
        progress.report(len(choices[index]))
    return likelihoods


def _read(stepper: NativeStepper, before: list[int], prompt: list[int]) -> np.ndarray:
    """(V,) the logits after a prompt, of which the row has what it shares with the one before."""
    if not before:
        stepper.prefill([RowStart(prompt)])
        return as_array(stepper.logits)[0]
    pairs = zip(before, prompt[:-1], strict=False)  # the last token is computed again: its logits are needed
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    stepper.truncate(shared)
    return as_array(stepper.extend(prompt[shared:], logits_to_keep=1))[0]


def _following(stepper: NativeStepper, length: int, answer: Ids) -> float:
    """log p of all tokens of a choice but the first, after a prompt of ``length`` tokens with which the row begins."""
    if len(answer) == 1:
        return 0.0
    stepper.truncate(length)
    total = 0.0
    for begin in range(0, len(answer) - 1, EVALUATED_LOGITS):
        part = list(answer[begin : begin + EVALUATED_LOGITS + 1])
        logits = as_array(stepper.extend(part[:-1]))
        total += sum(_log_probability(row, token) for row, token in zip(logits, part[1:], strict=True))
    return total


def _log_probability(logits: np.ndarray, token: int) -> float:
    """log p of a token, from (V,) logits."""
    shifted = logits - logits.max()
    return float(shifted[token]) - math.log(float(np.exp(shifted).sum(dtype=np.float64)))
