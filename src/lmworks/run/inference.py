"""What a model costs in use: bytes to keep, latency, tokens or texts per second; its adapter apart and merged.

A model is asked in its own way: a classifier for labels, a model with a head for spans for answers, a generating model
for a number of tokens that is the same for all models, whatever it would say. Times are medians, after work that is not
counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lmworks.adapt import adapter_base, adapters
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home, folder_size
from lmworks.base.journal import JOURNAL
from lmworks.base.sources import find
from lmworks.generate.decode import decode
from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.input_format import Input
from lmworks.language_model.inputs import prompts_of
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.ngram import NgramLanguageModel
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS
from lmworks.run.load import load
from lmworks.text import datasets

INPUTS, INPUT_BYTES = 4, 500
NEW_TOKENS, REPEATS = 32, 3
QUESTION = "What is it about?"  # of a model that answers questions, where the inputs are texts alone


@dataclass(frozen=True)
class InferenceSpeed:
    """How fast a model answers inputs.

    Attributes:
        kind: "generation", "labels" (a decoder chooses the likeliest), "classification", "tagging", "answers" (spans of
            contexts) or "embedding".
        inputs: number of inputs.
        prompt_tokens: mean number of tokens of an input, as the model reads it; None of counts of words. Of generation
            they are cut where they leave no room for the new tokens in the context.
        latency: median seconds to the first token of one input alone, or to the whole answer of other kinds.
        new_tokens: generated for each input; None of other kinds.
        tokens_per_second: after the first token, of one input alone, median; None of other kinds.
        texts_per_second: all inputs at once; None of generation.
    """

    kind: str
    inputs: int
    prompt_tokens: float | None
    latency: float
    new_tokens: int | None = None
    tokens_per_second: float | None = None
    texts_per_second: float | None = None


@dataclass(frozen=True)
class Inference:
    """What a model costs in use.

    Attributes:
        disk: bytes of its own files, without the base of an adapter or a prompt.
        base_disk: bytes of the base that its adapter or its prompt needs besides; None of a whole model.
        speed: as it was saved: an adapter apart from its base.
        merged: the same with the adapter merged; None without one.
        note: why the adapter cannot be merged; empty where it can.
        repeats: passes over the inputs.
    """

    disk: int
    base_disk: int | None
    speed: InferenceSpeed
    merged: InferenceSpeed | None
    note: str
    repeats: int


def measure_inference(
    source: str | Path,
    inputs: Sequence[Input] | None = None,
    new_tokens: int = NEW_TOKENS,
    repeats: int = REPEATS,
) -> Inference:
    """What a run's result, or any other model, costs in use.

    Args:
        source: as of run/load.load.
        inputs: what the model is asked: texts, or columns where its prompt is built from these; default: pieces of
            Python's documentation of about INPUT_BYTES.
        new_tokens: of each generated answer.
        repeats: passes over the inputs.

    Raises:
        InputError: there is no such model, or it cannot read an input.
    """
    model, texts = load(source), list(default_inputs() if inputs is None else inputs)
    disk, base_disk = sizes_on_disk(source)
    speed = inference_speed(model, texts, new_tokens, repeats)
    merged, note = None, ""
    if isinstance(model, LanguageModel) and not isinstance(model, NgramLanguageModel) and _has_adapter(model):
        merged, note = _merged_speed(model, texts, new_tokens, repeats)
    return Inference(disk, base_disk, speed, merged, note, repeats)


def default_inputs(count: int = INPUTS, size: int = INPUT_BYTES) -> list[str]:
    """Pieces of general text, each of about so many bytes and cut between words."""
    words = " ".join(datasets.general_text(2 * count * size)).split()
    pieces: list[str] = []
    for word in words:
        if not pieces or len(f"{pieces[-1]} {word}".encode()) > size:
            if len(pieces) == count:
                break
            pieces.append(word)
        else:
            pieces[-1] += f" {word}"
    return pieces


def sizes_on_disk(source: str | Path) -> tuple[int, int | None]:
    """Bytes of a model's own files, and of the base that its adapter or its prompt needs; None of a whole model."""
    path = expand_home(source)
    path = path / "final" if (path / JOURNAL).is_file() else path
    if not path.exists():
        path = find(str(source), "model").path
    if not adapter_base.needs_base(path):
        return folder_size(path), None
    return folder_size(path), folder_size(find(adapter_base.base_of(path), "model").path)


def inference_speed(
    model: Any, inputs: Sequence[Input], new_tokens: int = NEW_TOKENS, repeats: int = REPEATS
) -> InferenceSpeed:
    """How fast a model answers inputs; arguments and errors as of :func:`measure_inference`.

    Args:
        model: of run/load.load.
    """
    if not inputs:
        raise InputError("there is nothing to ask the model", "inputs", "give one text or more")
    kind, answer = _work(model)
    if answer is None:
        return _generation_speed(model, inputs, new_tokens, repeats)
    if kind == "answers":
        inputs = [value if isinstance(value, Mapping) else {"question": QUESTION, "context": value} for value in inputs]
    answer(inputs)
    latencies = [_seconds(answer, [value]) for _ in range(repeats) for value in inputs]
    passes = [_seconds(answer, inputs) for _ in range(repeats)]
    tokens = [len(_ids(model, value)) for value in inputs] if isinstance(model, LanguageModel) else []
    mean = sum(tokens) / len(tokens) if tokens else None
    return InferenceSpeed(kind, len(inputs), mean, median(latencies), texts_per_second=len(inputs) / median(passes))


def _work(model: Any) -> tuple[str, Callable[[Sequence[Any]], Any] | None]:
    """The kind of a model's answers, and what gives them; None of those that it generates."""
    if not isinstance(model, LanguageModel):
        return "classification", model.predict
    if not isinstance(model, NgramLanguageModel):
        heads: dict[str, tuple[str, Callable[[Sequence[Any]], Any]]] = {
            SEQUENCE: ("classification", model.predict),
            TOKENS: ("tagging", model.tag_words),
            SPANS: ("answers", lambda values: model.answer_questions([_pair(value) for value in values])),
        }
        for name, work in heads.items():
            if model.config.head(name) is not None:
                return work
        if model.architecture == "encoder" or not model.config.language_head:
            return "embedding", model.embed
    if model.input_format is not None and model.input_format.kind == "label":
        return "labels", lambda values: model.complete(values, SamplingSettings())
    return "generation", None


def _generation_speed(model: LanguageModel, inputs: Sequence[Input], new_tokens: int, repeats: int) -> InferenceSpeed:
    """Each input alone, cut to the context: the time to its first token, and the speed of the others."""
    prompts = [_ids(model, value) for value in inputs]
    if model.context is not None:
        room = model.context if model.architecture == "encoder-decoder" else model.context - new_tokens
        if room < 1:
            fault = f"{new_tokens} new tokens leave no room for a prompt in the context of {model.context}"
            raise InputError(fault, "new_tokens", f"ask for fewer than {model.context}")
        prompts = [ids[:room] for ids in prompts]
    settings = SamplingSettings(max_tokens=new_tokens, temperature=0.0)
    latencies, speeds = [], []
    for number, ids in enumerate([prompts[0], *(prompts * repeats)]):
        begin = time.perf_counter()
        times = [time.perf_counter() for _ in decode(model.stepper(), [ids], settings, set(), model.rules)]
        if number:  # the first is not counted
            latencies.append(times[0] - begin)
            speeds.append((len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0)
    mean = sum(map(len, prompts)) / len(prompts)
    return InferenceSpeed("generation", len(prompts), mean, median(latencies), new_tokens, median(speeds) or None)


def _merged_speed(
    model: LanguageModel, inputs: Sequence[Input], new_tokens: int, repeats: int
) -> tuple[InferenceSpeed | None, str]:
    """The speed with the adapter merged, or why it cannot be."""
    try:
        with adapters.merged(model.network):
            if _has_adapter(model):
                return None, "its adapter cannot be merged into the base"
            return inference_speed(model, inputs, new_tokens, repeats), ""
    except InputError as error:
        return None, error.fault


def _has_adapter(model: LanguageModel) -> bool:
    return next(adapters.adapters(model.network), None) is not None


def _ids(model: LanguageModel, value: Input) -> list[int]:
    """An input as the model reads it."""
    if model.input_format is not None and model.input_format.has_prompt:
        (prompt,) = prompts_of([value], model.tokenizer, model.input_format, model.few_shot)
        return list(prompt.ids)
    texts = [value] if isinstance(value, str) else [str(text) for text in value.values()]
    return [token for text in texts for token in model.tokenizer.encode(text, special=True)]


def _pair(value: Mapping[str, Any]) -> tuple[str, str]:
    return str(value["question"]), str(value["context"])


def _seconds(answer: Callable[[Sequence[Any]], Any], inputs: Sequence[Any]) -> float:
    begin = time.perf_counter()
    answer(inputs)
    return time.perf_counter() - begin
