"""LoRA r=16 on q, k, v, o of SmolLM2-135M: lmworks beside Trainer + PEFT, in turn, each in a fresh process.

GSM8K rows 1-160 as "Question: ...\\nAnswer: ...", loss on the answers, 8 documents a step, one epoch (20 steps).
Real tokens a second: tokens that are not padding over the seconds of the optimizer steps, the first two left out for
everyone (they warm up). Peak memory: the process's own high-water mark.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import arms

WARM = 2
ARMS = {
    "lmworks float32": ["ours", "float32"],
    "lmworks auto": ["ours", "auto"],
    "Trainer + PEFT float32": ["peer", "float32"],
    "Trainer + PEFT bfloat16 weights": ["peer", "bfloat16"],
}


def rows(path: str | None, count: int) -> list[tuple[str, str]]:
    """The first rows as (prompt, completion)."""
    if path is None:
        from datasets import load_dataset

        found = list(islice(load_dataset("openai/gsm8k", "main", split="train"), count))
    else:
        with Path(path).open(encoding="utf-8") as lines:
            found = [json.loads(line) for line in islice(lines, count)]
    return [(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in found]


def ours(precision: str, pairs: list[tuple[str, str]], row_tokens: int | None) -> dict[str, float]:
    """lmworks: the same loop that `lmworks tune` runs, without the report round it."""
    import lmworks
    from lmworks.adapt.attach import attach
    from lmworks.adapt.settings import LoRASettings
    from lmworks.base import machine
    from lmworks.base.journal import RunFolder
    from lmworks.data import objectives
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings
    from lmworks.train.loop import Hooks, train
    from lmworks.train.settings import TrainSettings

    model = lmworks.load(arms.MODEL)
    table = corpus.read([{"prompt": prompt, "completion": completion} for prompt, completion in pairs])
    plain = DataSettings(template="off")
    examples = objectives.examples(table, model.tokenizer, plain, model.config.max_position_embeddings).items
    attach(model.network, LoRASettings(rank=16, alpha=32))
    rows = {} if row_tokens is None else {"row_tokens": row_tokens}
    settings = TrainSettings(
        epochs=1, batch_size=8, learning_rate=2e-4, precision=precision, checkpoint_every=10_000, **rows
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", "")
        train(model.network, examples, settings, run, Hooks(quiet=True))
        steps = [event for event in run.events() if event["event"] == "step"]
    tokens = sum(step["tokens"] for step in steps[WARM:])
    seconds = sum(step["seconds"] for step in steps[WARM:])
    return {
        "tokens_per_second": tokens / seconds,
        "peak_gb": machine.peak_memory() / 1e9,
        "mean_loss": statistics.mean(step["loss"] for step in steps),
    }


def peer(precision: str, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Trainer + PEFT at its best setting: grouped by length, padded to the longest of the batch."""
    import resource

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

    folder = arms.reference_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision))
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    data = []
    for prompt, completion in pairs:
        head, tail = tokenizer(prompt).input_ids, [*tokenizer(completion).input_ids, tokenizer.eos_token_id]
        data.append({"input_ids": head + tail, "labels": [-100] * len(head) + tail, "length": len(head) + len(tail)})

    def collate(items: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in items)

        def padded(key: str, fill: int) -> torch.Tensor:
            return torch.tensor([item[key] + [fill] * (width - len(item[key])) for item in items])

        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        return {
            "input_ids": padded("input_ids", 0),
            "labels": padded("labels", -100),
            "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        }

    times: list[float] = []
    counts: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__) -> None:
            times.append(time.perf_counter() - self.started)

    def counting(items: list[dict]) -> dict[str, torch.Tensor]:
        counts.append(sum(len(item["input_ids"]) for item in items))
        return collate(items)

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=8,
        num_train_epochs=1,
        learning_rate=2e-4,
        train_sampling_strategy="group_by_length",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=counting, callbacks=[Clock()])
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "tokens_per_second": sum(counts[WARM : len(times)]) / sum(times[WARM:]),
        "peak_gb": peak,
        "mean_loss": statistics.mean(losses),
    }


def main() -> None:
    options = arms.parser(__doc__.splitlines()[0])
    options.add_argument("precision", nargs="?", default="auto", help=argparse.SUPPRESS)
    options.add_argument("--data", help="a JSONL file with question and answer (default: openai/gsm8k)")
    options.add_argument("--rows", type=int, default=160)
    options.add_argument("--row-tokens", type=int, help="tokens of one of lmworks' packed rows (default: its own)")
    given = options.parse_args()
    if given.arm:
        pairs = rows(given.data, given.rows)
        mine = given.arm == "ours"
        print(json.dumps(ours(given.precision, pairs, given.row_tokens) if mine else peer(given.precision, pairs)))
        return
    shared = ["--rows", str(given.rows)]
    shared += ["--row-tokens", str(given.row_tokens)] if given.row_tokens else []
    shared += ["--data", given.data] if given.data else []
    arms.reference_folder()
    chosen = {name: ["--arm", *words, *shared] for name, words in ARMS.items() if arms.worth_running(words[1])}
    figures = arms.take_turns(__file__, chosen, given.rounds)
    middle = arms.medians(figures)
    peers = {name: one for name, one in middle.items() if name.startswith("Trainer")}
    best = max(peers, key=lambda name: peers[name]["tokens_per_second"])
    print(f"\nbest peer: {best}")
    ratios = {}
    for name, one in middle.items():
        ratios[name] = {key: one[key] / peers[best][key] for key in ("tokens_per_second", "peak_gb")}
        print(
            f"{name:<34} {one['tokens_per_second']:8.0f} tok/s  {ratios[name]['tokens_per_second']:5.2f}x"
            f"   {one['peak_gb']:5.2f} GB  {ratios[name]['peak_gb']:5.2f}x   mean loss {one['mean_loss']:.4f}"
        )
    arms.keep("lora", {"rows": given.rows, "rounds": figures, "medians": middle, "best_peer": best, "ratios": ratios})


if __name__ == "__main__":
    sys.exit(main())
