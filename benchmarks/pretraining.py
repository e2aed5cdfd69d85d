"""A decoder of some ten million parameters from scratch on python-source: lmworks beside transformers + Trainer.

Llama's shape, a byte-level vocabulary of 8,192, 8 blocks of 512 tokens a step, AdamW. Both train the same config on the
same tokens in the same order, in turn, each in a fresh process, and every token is real: no row is padded. The peer
gets what is best for it: its own fused attention and fused AdamW, in float32 and, where the processor has bfloat16, in
bfloat16 autocast. Real tokens a second over the seconds of the steps, the first two left out for everyone.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import arms
import numpy as np
import torch

WARM, BLOCK, BATCH, RATE = 2, 512, 8, 1e-3
CONFIG = {
    "vocab_size": 8192, "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": BLOCK, "tie_word_embeddings": True,
}  # fmt: skip
ARMS = {
    "lmworks float32": ["ours", "float32"],
    "lmworks float32, kernels off": ["ours-plain", "float32"],
    "Trainer float32": ["peer", "float32"],
    "Trainer bfloat16 autocast": ["peer", "bfloat16"],
}


def blocks(steps: int) -> np.ndarray:
    """(steps * BATCH, BLOCK) ids of python-source, document after document; made once and kept in the cache."""
    from lmworks.base.files import cache_folder
    from lmworks.text import corpus, train_tokenizer
    from lmworks.text.tokenizer_settings import TokenizerSettings

    file = cache_folder() / "benchmarks" / f"python-source-{CONFIG['vocab_size']}.npy"
    if not file.is_file():
        texts = [row.values["text"] for row in corpus.read("python-source").rows]
        settings = TokenizerSettings(kind="byte-bpe", vocab_size=CONFIG["vocab_size"], limit=4_000_000)
        tokenizer = train_tokenizer.train(texts, settings, "gpt2").tokenizer
        ids = np.concatenate([np.array([*one, tokenizer.eos_id]) for one in tokenizer.encode_many(texts[:400])])
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, ids.astype(np.int32))
    ids = np.load(file)
    return ids[: steps * BATCH * BLOCK].reshape(-1, BLOCK)


def _told(tokens: int, seconds: list[float], losses: list[float]) -> dict[str, float]:
    return {
        "tokens_per_second": tokens * (len(seconds) - WARM) / sum(seconds[WARM:]),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def ours(precision: str, steps: int) -> dict[str, float]:
    """The loop that `lmworks pretrain` runs, without the report round it."""
    from lmworks.base.journal import RunFolder
    from lmworks.data.batch import Example
    from lmworks.model import initialization
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer
    from lmworks.train.loop import Hooks, train
    from lmworks.train.settings import TrainSettings

    network = Transformer(ModelConfig(**CONFIG))
    initialization.draw(network, torch.Generator().manual_seed(0))
    examples = [Example(block, np.arange(BLOCK) > 0) for block in blocks(steps)]
    settings = TrainSettings(
        epochs=1, batch_size=BATCH, learning_rate=RATE, precision=precision, checkpoint_every=10_000, row_tokens=2048
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", "")
        train(network, examples, settings, run, Hooks(quiet=True))
        made = run.events("step")
    return _told(BATCH * BLOCK, [one["seconds"] for one in made], [one["loss"] for one in made])


def peer(precision: str, steps: int) -> dict[str, float]:
    """transformers + Trainer on the same blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    data = [{"input_ids": block.tolist(), "labels": block.tolist()} for block in blocks(steps)]
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__) -> None:
            times.append(time.perf_counter() - self.started)

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
        lr_scheduler_type="cosine", warmup_steps=1, bf16=precision == "bfloat16", use_cpu=True, report_to=[],
        optim="adamw_torch_fused", save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()])
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return _told(BATCH * BLOCK, times, losses)


def main() -> None:
    options = arms.parser(__doc__.splitlines()[0])
    options.add_argument("precision", nargs="?", default="float32")
    options.add_argument("--steps", type=int, default=12)
    given = options.parse_args()
    if given.arm:
        print(json.dumps((peer if given.arm == "peer" else ours)(given.precision, given.steps)))
        return
    blocks(given.steps)
    figures: dict[str, list[dict[str, float]]] = {}
    for number in range(given.rounds):
        for name, words in ARMS.items():
            if not arms.worth_running(words[1]):
                continue
            environment = {"LMWORKS_KERNELS": "off"} if words[0] == "ours-plain" else {}
            found = arms.run_arm(__file__, ["--arm", *words, "--steps", str(given.steps)], environment)
            figures.setdefault(name, []).append(found)
            print(f"round {number + 1}  {name:<30}" + "  ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
    middle = arms.medians(figures)
    best = max((n for n in middle if n.startswith("Trainer")), key=lambda n: middle[n]["tokens_per_second"])
    print(f"\nbest peer: {best}; asked: 1.5x")
    ratios = {}
    for name, one in middle.items():
        pairs = zip(figures[name], figures[best], strict=True)
        ratios[name] = {
            "tokens_per_second": statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs),
            "peak_gb": one["peak_gb"] / middle[best]["peak_gb"],
        }
        print(
            f"{name:<30} {one['tokens_per_second']:8.0f} tok/s  {ratios[name]['tokens_per_second']:5.2f}x"
            f"   {one['peak_gb']:5.2f} GB  {ratios[name]['peak_gb']:5.2f}x   last loss {one['last_loss']:.3f}"
        )
    arms.keep("pretraining", {"config": CONFIG, "rounds": figures, "medians": middle, "ratios": ratios, "best": best})


if __name__ == "__main__":
    sys.exit(main())
