"""The peers' arms of the training benchmark: Trainer, with PEFT or without, and TRL's SFTTrainer with packing.

Each at its best setting: fused AdamW, fused attention, documents of like length together, nothing logged or saved
that could be left out, the clock stopped while data is read. Trainer pads to the longest document of the batch; TRL
lays whole documents one after another, and `transformers` keeps them apart by their positions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import arms
import figures
import torch
import work
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from lmworks.base.processor import use_threads

ROW = 512  # tokens of TRL's packed rows, or the longest document; a step takes as many rows as hold eight documents


class Clock(TrainerCallback):
    """Seconds of each optimizer step, and from the beginning of training to the end of the last one to warm up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waited = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.started)
        if len(self.seconds) == figures.WARM:
            self.waited = now - self.began


class Counted:
    """A collator that counts the real tokens and the answers' tokens of each batch it lays out."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.tokens: list[int] = []
        self.targets: list[int] = []

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.tokens.append(sum(len(item["input_ids"]) for item in items))
        self.targets.append(sum(label != -100 for item in items for label in item["labels"]))
        return self.collator(items)

    def by_step(self, batches: int) -> tuple[list[int], list[int]]:
        """Both counts of each step, which takes so many batches."""
        begins = range(0, len(self.tokens), batches)
        return tuple([sum(counts[i : i + batches]) for i in begins] for counts in (self.tokens, self.targets))  # type: ignore[return-value]


def padded(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A document a row, filled to the longest of them."""
    width = max(len(item["input_ids"]) for item in items)

    def column(key: str, fill: int) -> torch.Tensor:
        return torch.tensor([item[key] + [fill] * (width - len(item[key])) for item in items])

    lengths = torch.tensor([len(item["input_ids"]) for item in items])
    mask = (torch.arange(width) < lengths[:, None]).long()
    return {"input_ids": column("input_ids", 0), "labels": column("labels", -100), "attention_mask": mask}


def model_of(method: str, precision: str, folder: Path) -> Any:
    """The model as it is trained, its weights in bfloat16 only where that is the arm."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(arms.reference_folder(), dtype=dtype, attn_implementation="sdpa")
    return PeftModel.from_pretrained(model, work.start(folder), is_trainable=True) if method == "lora" else model


def shared(method: str, precision: str) -> dict[str, Any]:
    """Arguments that both trainers get."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "num_train_epochs": 1,
        "learning_rate": work.RATES[method],
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": precision == "autocast",
        "train_sampling_strategy": "sequential",  # the documents come grouped by length
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }


def trainer(method: str, precision: str, data: list[dict[str, Any]], folder: Path, again: bool) -> tuple[Any, int]:
    """Trainer, and how many batches a step has."""
    checkpointing = {"gradient_checkpointing_kwargs": {"use_reentrant": False}} if again else {}
    arguments = TrainingArguments(
        per_device_train_batch_size=work.DOCUMENTS,
        remove_unused_columns=False,
        gradient_checkpointing=again,
        **checkpointing,
        **shared(method, precision),
    )
    model = model_of(method, precision, folder)
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded), 1


def sft(method: str, precision: str, data: list[dict[str, Any]], folder: Path) -> tuple[Any, int]:
    """TRL's SFTTrainer with packed rows of whole documents, and how many of them a step has."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lengths = [len(row["input_ids"]) for row in data]
    row = max(ROW, *lengths)
    batches = max(1, round(work.DOCUMENTS * sum(lengths) / len(lengths) / row))
    arguments = SFTConfig(
        packing=True,
        packing_strategy="bfd",
        max_length=row,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=batches,
        completion_only_loss=True,
        gradient_checkpointing=False,
        **shared(method, precision),
    )
    model, tokenizer = model_of(method, precision, folder), AutoTokenizer.from_pretrained(arms.reference_folder())
    peer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    return peer, batches


def run(kind: str, method: str, precision: str, folder: Path, steps: int | None) -> dict[str, Any]:
    """Train, and return the figures."""
    data = [
        {"input_ids": row["ids"], "labels": [-100] * row["prompt"] + row["ids"][row["prompt"] :]}
        for row in work.documents(folder, steps)
    ]
    if kind == "trl":
        peer, batches = sft(method, precision, data, folder)
    else:
        peer, batches = trainer(method, precision, data, folder, again=kind == "checkpointing")
    clock = Clock()
    peer.add_callback(clock)
    peer.data_collator = counted = Counted(peer.data_collator)
    peer.train()
    losses = [float(entry["loss"]) for entry in peer.state.log_history if "loss" in entry]
    tokens, targets = counted.by_step(batches)
    return figures.summarize(tokens, targets, clock.seconds, losses, clock.waited)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("kind", choices=["trainer", "checkpointing", "trl"])
    options.add_argument("method", choices=["lora", "full"])
    options.add_argument("precision", choices=["float32", "autocast", "bfloat16"])
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int)
    given = options.parse_args()
    use_threads()
    print(json.dumps(run(given.kind, given.method, given.precision, given.work, given.steps)))


if __name__ == "__main__":
    main()
