"""A tiny model folder with a tokenizer and a chat template: whole runs of it take a second."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_tokenizers import CHATML, byte_level

from lmworks.families.folder import save_folder
from lmworks.families.registry import FAMILIES
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

QUESTIONS = [{"prompt": f"What is {n} and {n}?", "completion": f"It is {2 * n}."} for n in range(60)]
COMMON = (
    "data.held_out=8 train.batch_size=4 train.precision=float32 train.threads=1 evaluate.task_rows=6 "
    "evaluate.max_tokens=6 evaluate.general_bytes=300 evaluate.samples=2"
)


def save_tiny(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    tied: bool = True,
    context: int = 256,
    intermediate_size: int = 48,
) -> Path:
    """A random llama of two layers with a byte-level tokenizer; its language head may be tied to the embeddings."""
    tokenizer = byte_level(CHATML, end_ids=[4])
    network = Transformer(
        ModelConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=intermediate_size, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip
    draw(network, torch.Generator().manual_seed(seed))
    return save_folder(folder, network, network.config, FAMILIES[family], tokenizer)


def save_questions(path: Path, rows: list[dict] = QUESTIONS) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def options(words: str = COMMON) -> list[str]:
    """Settings as a command line gives them."""
    return [part for word in words.split() for part in (f"--{word.split('=')[0]}", word.split("=")[1])]


def settings(words: str = COMMON) -> dict:
    """Settings as a call gives them."""
    from lmworks.base.settings import parse_overrides

    return parse_overrides(options(words))
