"""What a grammar costs for each token that a model chooses, beside the model's own step.

A real model answers questions under each grammar, drawing its tokens with temperature 1. Timed are the mask (which
tokens may come), what follows the choice (the tokens that must come next, and an ending within the limit), and the
step of the model by the native engine. Printed are median and 99th percentile, in microseconds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np

import lmworks
from lmworks import Grammar
from lmworks.generate.grammar_matcher import CompiledGrammar
from lmworks.generate.grammar_vocabulary import Vocabulary
from lmworks.generate.sampling import SamplingSettings, allow_only, as_array, pick
from lmworks.generate.stepper import RowStart
from lmworks.language_model.text_methods import TextMethods
from lmworks.text import chat

QUESTIONS = (
    "Describe a person who works in a library, as JSON.",
    "Write down an order of a book shop as JSON.",
    "Give me the data of a small company in JSON.",
    "List three rivers and their lengths as JSON.",
)
NAMED = {"type": "string", "minLength": 1, "maxLength": 60}
PERSON = {
    "type": "object",
    "properties": {"name": NAMED, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ADDRESS = {
    "type": "object",
    "properties": {"street": NAMED, "city": NAMED, "code": {"type": "string", "pattern": "^[0-9]{4,5}$"}},
    "required": ["street", "city", "code"],
    "additionalProperties": False,
}
ORDER = {
    "$defs": {"person": PERSON, "address": ADDRESS},
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "date": {"type": "string", "format": "date"},
        "state": {"enum": ["open", "paid", "sent", "returned"]},
        "customer": {"$ref": "#/$defs/person"},
        "address": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}]},
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {
                "type": "object",
                "properties": {
                    "title": NAMED,
                    "price": {"type": "number", "minimum": 0},
                    "count": {"type": "integer", "minimum": 1, "maximum": 99},
                    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
                },
                "required": ["title", "price", "count"],
                "additionalProperties": False,
            },
        },
        "notes": {"type": "string", "maxLength": 200},
        "gift": {"type": "boolean"},
    },
    "required": ["id", "date", "state", "customer", "address", "items", "gift"],
    "additionalProperties": False,
}
GRAMMARS = {
    "json_object": Grammar.json_object(),
    "schema of 2 keys": Grammar.json_schema(PERSON),
    "schema of 20 keys": Grammar.json_schema(ORDER),
}


@dataclass
class Times:
    """Seconds of each kind of work, an entry for each token that was chosen."""

    mask: list[float] = field(default_factory=list)
    accept: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    tokens: int = 0


def answer(model: TextMethods, compiled: CompiledGrammar, ids: list[int], limit: int, seed: int, times: Times) -> None:
    """Write one answer, and add what its tokens took."""
    stepper, matcher, settings = model.stepper(), compiled.matcher(), SamplingSettings(temperature=1.0)
    generator, written = np.random.default_rng(seed), matcher.begin(limit)
    stepper.prefill([RowStart([*ids, *written])], limit)
    while not matcher.is_finished:
        began = time.perf_counter()
        allowed = matcher.mask()
        masked = time.perf_counter()
        logits = as_array(stepper.logits)
        (token,) = pick(allow_only(logits, logits, allowed[None]), settings, [generator], [[]])
        chosen = time.perf_counter()
        following = matcher.accept(token, limit - len(written))
        accepted = time.perf_counter()
        written += following
        times.mask.append(masked - began)
        times.accept.append(accepted - chosen)
        if following and not matcher.is_finished:
            stepper.append([following])
            times.step.append(time.perf_counter() - accepted)
    times.tokens += len(written)


def line(name: str, seconds: list[float]) -> str:
    """Median and 99th percentile in microseconds."""
    median, high = np.percentile(np.array(seconds) * 1e6, [50, 99])
    return f"  {name:<34}{median:>10,.0f} {high:>10,.0f}"


def main() -> None:
    """Print a table for each grammar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--answers", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    model = lmworks.load(arguments.model).prepare()
    tokenizer, size = model.tokenizer, model.config.vocab_size
    began = time.perf_counter()
    vocabulary = Vocabulary(tokenizer)
    print(f"vocabulary of {vocabulary.size:,} tokens, read once: {time.perf_counter() - began:.2f} s")
    print(f"{'microseconds':<36}{'median':>10} {'99 %':>10}")
    for name, grammar in GRAMMARS.items():
        began = time.perf_counter()
        vocabulary.start(grammar)
        first = time.perf_counter() - began
        compiled, times = CompiledGrammar(grammar, tokenizer, size), Times()
        for number in range(arguments.answers):
            asked = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
            ids, _ = chat.encode(tokenizer, asked, reply=True)
            answer(model, compiled, ids, arguments.max_tokens, number, times)
        print(f"{name}: compiled in {first * 1e3:.1f} ms; {times.tokens:,} tokens, {len(times.mask):,} of them chosen")
        print(line("mask", times.mask))
        print(line("following the choice", times.accept))
        print(line("step of the model", times.step))


if __name__ == "__main__":
    main()
