"""The arms from scratch: a decoder of some ten million parameters on python-source, lmworks and Trainer.

Llama's shape, a byte-level vocabulary of 8,192, 8 blocks of 512 tokens a step, AdamW at a constant rate. Both train the
same config from the same weights on the same blocks in the same order, and every token is real: no row is padded. The
peer gets what is best for it: its own fused attention and fused AdamW.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import figures
import numpy as np

BLOCK, BATCH, RATE = 512, 8, 1e-3
CONFIG = {
    "vocab_size": 8192, "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": BLOCK, "tie_word_embeddings": True,
}  # fmt: skip


def blocks(steps: int) -> np.ndarray:
    """(steps * BATCH, BLOCK) ids of python-source, document after document; created once, in the cache."""
    from lmworks.base.files import cache_folder
    from lmworks.text import corpus, train_tokenizer
    from lmworks.text.tokenizer_settings import TokenizerSettings

    file = cache_folder() / "benchmarks" / f"python-source-{CONFIG['vocab_size']}.npy"
    if not file.is_file():
        texts = [row.values["text"] for row in corpus.read("python-source").rows]
        settings = TokenizerSettings(kind="byte-bpe", vocab_size=CONFIG["vocab_size"], limit=4_000_000)
        tokenizer = train_tokenizer.train(texts, settings, "gpt2").tokenizer
        ids = np.concatenate(
            [np.array([*text_ids, tokenizer.eos_id]) for text_ids in tokenizer.encode_many(texts[:400])]
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, ids.astype(np.int32))
    ids = np.load(file)
    return ids[: steps * BATCH * BLOCK].reshape(-1, BLOCK)


def prepare(folder: Path, steps: int) -> dict[str, Any]:
    """Make the blocks, and draw the weights that both begin with."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    model.save_pretrained(folder / "scratch")
    return {"blocks": len(blocks(steps)), "parameters": sum(weight.numel() for weight in model.parameters())}


def ours(precision: str, folder: Path, steps: int) -> dict[str, Any]:
    """The loop that `lmworks pretrain` runs, without the report round it."""
    from lmworks.base.journal import RunFolder
    from lmworks.data.batch import Example
    from lmworks.data.sampler import BatchSampler
    from lmworks.families.folder import open_folder
    from lmworks.model.trained_parameters import TrainedParameters
    from lmworks.model.training_cost import training_flops
    from lmworks.train.hooks import Hooks
    from lmworks.train.loop import train
    from lmworks.train.settings import TrainSettings

    network = open_folder(folder / "scratch").network.requires_grad_(True)
    rows = blocks(steps)
    places = [place for step in BatchSampler(len(rows), BATCH, epochs=1) for place in step]
    examples: list[Any] = [None] * len(rows)
    for place, row in zip(places, rows, strict=True):
        examples[place] = Example(row, np.arange(BLOCK) > 0)
    settings = TrainSettings(
        batch_size=BATCH, learning_rate=RATE, schedule="constant", warmup=0.0, precision=precision,
        checkpoint_every=10_000, row_tokens=2048,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder.create(Path(place) / "run", "")
        began = time.time()
        train(network, examples, settings, run, Hooks(quiet=True))
        events = run.events("step")
    lengths = [BLOCK - 1] * (BATCH * (steps - figures.WARM))
    work = training_flops(network.config, TrainedParameters.of(network), sum(lengths), sum(lengths), lengths)
    return figures.summarize(
        [BATCH * BLOCK for _ in events],
        [event["targets"] for event in events],
        [event["seconds"] for event in events],
        [event["loss"] for event in events],
        events[figures.WARM - 1]["time"] - began,
        flops=float(work.total),
    )


def peer(precision: str, folder: Path, steps: int) -> dict[str, Any]:
    """transformers + Trainer on the same blocks."""
    import peers
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(folder / "scratch", attn_implementation="sdpa")
    data = [{"input_ids": block.tolist(), "labels": block.tolist()} for block in blocks(steps)]
    shared = {**peers.shared("full", precision), "learning_rate": RATE}
    arguments = TrainingArguments(per_device_train_batch_size=BATCH, **shared)
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    clock = peers.Clock()
    trainer.add_callback(clock)
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    count = len(losses)
    return figures.summarize(
        [BATCH * BLOCK] * count, [BATCH * (BLOCK - 1)] * count, clock.seconds, losses, clock.waited
    )


def main() -> None:
    from lmworks.base.processor import use_threads

    options = argparse.ArgumentParser()
    options.add_argument("kind", choices=["prepare", "ours", "trainer"])
    options.add_argument("precision", choices=["float32", "bfloat16", "autocast"])
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int, default=12)
    given = options.parse_args()
    use_threads()
    if given.kind == "prepare":
        print(json.dumps(prepare(given.work, given.steps)))
        return
    print(json.dumps((ours if given.kind == "ours" else peer)(given.precision, given.work, given.steps)))


if __name__ == "__main__":
    main()
