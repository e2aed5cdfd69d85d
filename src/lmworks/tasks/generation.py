"""What a model generates at an evaluation: answers to prompts, continued texts, filled masks, rewritten sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch

from lmworks.data.batch import Example
from lmworks.data.packing import pack
from lmworks.data.prompts import Answer, Prompt
from lmworks.evaluate import progress
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.generate.fill import BLANKS
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import key_value_bytes

CACHE_BYTES = 1 << 28  # largest KV cache of the texts that are generated at a time
_BLANK = re.compile("|".join((*BLANKS, "<extra_id_")))


def generate_answers(model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
    """Greedy answers, to as many prompts at once as fit into a KV cache of CACHE_BYTES."""
    settings = SamplingSettings(max_tokens=max_tokens, stop=list(prompts[0].stop) if prompts else [])
    stepper, answers = model.stepper(), [Answer("")] * len(prompts)
    for group in answer_groups(model.config, [len(prompt.ids) for prompt in prompts], max_tokens):
        ids = [prompts[index].ids for index in group]
        for index, reply in zip(group, complete(stepper, model.tokenizer, ids, settings, model.rules), strict=True):
            cut = len(reply.ids) if reply.stop_reason in ("length", "context") else 0
            answers[index] = Answer(reply.text.strip(), cut)
        progress.report(len(group))
    return answers


def choose_answers(model: LanguageModel, prompts: Sequence[Prompt]) -> list[Answer]:
    """The likeliest of the labels of each prompt."""
    return [Answer(reply.text) for reply in choose_labels(partial(choice_likelihoods, model.network), prompts)]


def answer_text(model: LanguageModel, text: str, settings: EvaluateSettings) -> str:
    """The model's answer to one of the prompts in the settings: its blanks filled, or a continuation, or an answer."""
    if model.architecture == "encoder" or _BLANK.search(text):
        return model.fill(text).text
    return model.generate(text, **_sampling(model, settings).model_dump())


def continue_texts(model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
    """The first half of each text, its second half, and how the model continues the first."""
    samples, tokenizer = [], model.tokenizer
    for example in examples:
        ids = example.ids.tolist()
        half = max(1, len(ids) // 2)
        samples.append(
            {
                "prompt": tokenizer.decode(ids[:half]),
                "reference": tokenizer.decode(ids[half : half + settings.longest]),
                "answer": _generate(model, ids[:half], settings),
            }
        )
    return samples


def rewrite_texts(model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
    """The source of each example, its target, and what the decoder generates."""
    samples, tokenizer = [], model.tokenizer
    for example in examples:
        source = [] if example.source is None else example.source.tolist()
        skip_special = not any(
            token in tokenizer.decode(source, skip_special=False) for token in ("<extra_id_", "<mask>")
        )
        samples.append(
            {
                "prompt": tokenizer.decode(source, skip_special=skip_special),
                "reference": tokenizer.decode(example.ids[1:].tolist(), skip_special=skip_special),
                "answer": _generate(model, source, settings, skip_special=skip_special),
            }
        )
    return samples


@torch.no_grad()
def fill_texts(model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
    """Each text with hidden tokens, the whole text, and the text with the likeliest token at each hidden place."""
    samples, decode = [], model.tokenizer.decode
    for example in examples:
        (batch,) = pack([example], len(example))
        places = batch.weights.flatten().nonzero().squeeze(1)
        logits = model.network(
            batch.ids, positions=batch.positions, segments=batch.segments, types=batch.types, logits_to_keep=places
        ).logits
        filled, original = batch.ids.flatten().clone(), batch.ids.flatten().clone()
        filled[places], original[places] = logits.argmax(-1), batch.targets.flatten()[places]
        samples.append(
            {
                "prompt": decode(example.ids.tolist(), skip_special=False),
                "reference": decode(original.tolist()),
                "answer": decode(filled.tolist()),
            }
        )
    return samples


def _generate(model: LanguageModel, ids: list[int], settings: EvaluateSettings, skip_special: bool = True) -> str:
    (reply,) = complete(model.stepper(), model.tokenizer, [ids], _sampling(model, settings), model.rules)
    return reply.text if skip_special else model.tokenizer.decode(reply.ids, skip_special=False)


def _sampling(model: LanguageModel, settings: EvaluateSettings) -> SamplingSettings:
    """A decoder samples its continuation; an encoder-decoder generates greedily."""
    samples = model.architecture == "decoder"
    temperature, top_k = (settings.temperature, settings.top_k) if samples else (0.0, 0)
    return SamplingSettings(max_tokens=settings.longest, temperature=temperature, top_k=top_k)


def answer_groups(config: ModelConfig, lengths: Sequence[int], new: int) -> list[list[int]]:
    """Indices of texts, neighbours in length together, as many as CACHE_BYTES hold when each has grown by ``new``."""
    token_bytes = key_value_bytes(config, 1)
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not groups or (len(groups[-1]) + 1) * (lengths[groups[-1][0]] + new) * token_bytes > CACHE_BYTES:
            groups.append([])
        groups[-1].append(index)
    return groups
