"""Texts and settings with which a model from scratch trains in a second."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

SUBJECTS = ("The cat", "A dog", "My sister", "The old man", "Our teacher")
VERBS = ("saw", "likes", "found", "sold")
OBJECTS = ("the moon", "a red box", "three apples", "the river", "her hat")
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL: dict[str, Any] = {
    "model": {**SIZES, "max_position_embeddings": 32},
    "train": {
        "steps": 8, "batch_size": 4, "learning_rate": 1e-2, "evaluate_every": 4, "threads": 1, "precision": "float32",
        "warmup": 0,
    },
    "evaluate": {"samples": 1, "max_tokens": 4},
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "tinygpt": {},
    "tinybert": {},
    "tinyt5": {"model": {"num_decoder_layers": 1}, "tokenizer": {"sentinels": 8}},
    "llama-1m": {"model": {"num_key_value_heads": 1}, "tokenizer": {"vocab_size": 300}},
    "bert-mini": {"tokenizer": {"vocab_size": 100}},
    "roberta-base": {"tokenizer": {"vocab_size": 300}},
    "albert-base": {"model": {"embedding_size": 8}, "tokenizer": {"vocab_size": 40}},
    "t5-v1_1-small": {"model": {"num_decoder_layers": 1}, "tokenizer": {"kind": "char", "vocab_size": None}},
    "bart-base": {"model": {"num_decoder_layers": 1}, "tokenizer": {"vocab_size": 300}},
    "transformer-tiny": {"model": {"num_decoder_layers": 1}, "tokenizer": {"kind": "char", "vocab_size": None}},
}
"""Presets of every family and objective, with what makes them small."""
OWN_KINDS: dict[str, dict[str, Any]] = {
    name: {"model": {"num_attention_heads": 1}, "tokenizer": {"vocab_size": 300}}
    for name in ("rnn-small", "gru-small", "lstm-small")
} | {"transformer-small": {"tokenizer": {"vocab_size": 300}}}
"""The same, for presets of families that transformers does not have."""
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "lstm-small": OWN_KINDS["lstm-small"],
    "cnn-small": {"model": {"num_attention_heads": 1, "hidden_size": 30}, "tokenizer": {"vocab_size": 100}},
}
"""The same, for rows with labels."""


def sentences(count: int, seed: int = 0) -> list[str]:
    """Plain sentences."""
    dice = random.Random(seed)
    return [f"{dice.choice(SUBJECTS)} {dice.choice(VERBS)} {dice.choice(OBJECTS)}." for _ in range(count)]


def save_text(path: Path, count: int = 120) -> Path:
    """A text of paragraphs of four sentences."""
    messages = sentences(count)
    path.write_text("\n\n".join(" ".join(messages[n : n + 4]) for n in range(0, count, 4)) + "\n", encoding="utf-8")
    return path


def save_pairs(path: Path, count: int = 60) -> Path:
    """Sentences, and the same in capitals."""
    rows = "".join(f"{text}\t{text.upper()}\n" for text in sentences(count))
    path.write_text("source\ttarget\n" + rows, encoding="utf-8")
    return path


def small(preset: str) -> dict[str, Any]:
    """Settings that make a preset train in a second."""
    from lmworks.base.settings import merge

    return deepcopy(merge(SMALL, {**KINDS, **OWN_KINDS, **CLASSIFIERS}[preset]))  # a test may change its own


def options(preset: str) -> list[str]:
    """The same as a command line gives them."""
    result = []
    for group, values in small(preset).items():
        for name, value in values.items():
            result += [f"--{group}.{name}", "null" if value is None else str(value)]
    return result
