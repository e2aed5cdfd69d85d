"""The arms of the published table: `lmworks.tune`, Trainer and PEFT as the tutorial used them, and the untouched model.

Each runs in a process of its own. The clock runs from the beginning of training to the end of its last step; peak
memory is the process's until training has ended, before anything is measured. Whoever trained a model, lmworks opens
and measures it, so that one code gives all metrics.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import arms
import published_work as work
from text_metrics import late_figures, predict, text_figures

from lmworks.base import process_memory
from lmworks.base.processor import use_threads

Figures = dict[str, Any]
GENERAL_BYTES = 16_000


def measured(model: Any, folder: Path) -> Figures:
    """Metrics of the held-out texts, those with padding named ``padded_…``, and what is left of general abilities."""
    from lmworks.run.evaluation import general_pieces
    from lmworks.run.forgetting import choice_questions, retained

    held_out = work.held_out_ids(folder)
    plain, padded = predict(model, held_out["test"], work.TEXT_TOKENS)
    chosen_by, _ = predict(model, held_out["validation"], work.TEXT_TOKENS)
    kept = retained(model, *general_pieces(None, GENERAL_BYTES), choice_questions())
    return {
        **text_figures(plain),
        **{f"padded_{name}": value for name, value in text_figures(padded).items()},
        "padding": 1 - sum(item.tokens for item in plain) / sum(item.tokens for item in padded),
        "validation_perplexity": text_figures(chosen_by)["perplexity"],
        "general_bits_per_byte": kept.text.value,
        "choice_accuracy": kept.choices.value,
    }


def untouched_arm(model: str, folder: Path) -> Figures:
    """The model before any training; and ``late_…``, metrics of what predicts nothing."""
    import lmworks

    opened = lmworks.load(model)
    late = late_figures(opened.tokenizer, work.held_out_ids(folder)["test"])
    return {**measured(opened, folder), **{f"late_{name}": value for name, value in late.items()}}


def lmworks_arm(model: str, method: str, rate: float, precision: str, folder: Path, seed: int) -> Figures:
    """`lmworks.tune`, with journal and checkpoints, without an evaluation of its own."""
    import lmworks
    from lmworks.base.journal import RunFolder
    from lmworks.reports.card import build

    data = {"source": str(folder / "train.jsonl"), "kind": "text", "held_out": 0, "max_tokens": work.TEXT_TOKENS}
    train = {
        "learning_rate": rate,
        "epochs": work.EPOCHS,
        "batch_size": work.BATCH * work.ACCUMULATION,
        "schedule": work.SCHEDULE,
        "warmup": 0.0,
        "precision": precision,
        "seed": seed,
    }
    adapters = {"rank": work.RANK, "alpha": work.ALPHA, "dropout": work.DROPOUT, "target_modules": list(work.TARGETS)}
    settings: dict[str, Any] = {"lora": adapters} if method == "lora" else {}
    evaluate = {"general_bytes": 0, "task_rows": 0, "samples": 0}
    with tempfile.TemporaryDirectory() as place:
        run = lmworks.tune(
            model, data, method=method, out=Path(place) / "run", train=train, evaluate=evaluate, **settings
        )
        peak = process_memory.peak_memory()
        events = RunFolder(run.folder).events("step")
        start = RunFolder(run.folder).events("start")[0]
        parts = build(run.folder)["costs"].get("peak_parts") or {}
        figures = measured(run.model, folder)
    return {
        "seconds": events[-1]["time"] - events[0]["time"] + events[0]["seconds"],
        "peak_gb": peak / 1e9,
        "steps": len(events),
        "targets": sum(event["targets"] for event in events),
        "trained": start["parameters"]["trainable"],
        "flops": start["plan"]["flops"]["total"],
        "peak_parts": {name: size for name, size in parts.items() if isinstance(size, (int, float))},
        **figures,
    }


def trainer_arm(model: str, method: str, rate: float, precision: str, folder: Path, seed: int) -> Figures:
    """transformers' Trainer as the tutorial used it: every text padded to one length with the end-of-text token, and
    the padding learned."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, default_data_collator

    import lmworks

    class Clock(TrainerCallback):
        """Begin of training, and end of the last step."""

        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter()

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = padded_rows(tokenizer, work.training_texts(folder))
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    if method == "lora":
        network = with_adapters(network)
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    with tempfile.TemporaryDirectory() as place:
        clock = Clock()
        trainer = Trainer(
            network,
            _arguments(rate, precision, seed, place),
            data_collator=default_data_collator,
            train_dataset=rows,
            callbacks=[clock],
        )
        trainer.train()
        peak, steps = process_memory.peak_memory(), trainer.state.global_step
        saved = network.merge_and_unload() if method == "lora" else network
        saved.save_pretrained(Path(place) / "model")
        tokenizer.save_pretrained(Path(place) / "model")
        del trainer, network, saved
        figures = measured(lmworks.load(Path(place) / "model"), folder)
    return {
        "seconds": clock.ended - clock.began,
        "peak_gb": peak / 1e9,
        "steps": steps,
        "targets": work.EPOCHS * sum(sum(row["attention_mask"]) - 1 for row in rows),
        "trained": trained,
        **figures,
    }


def padded_rows(tokenizer: Any, texts: list[str]) -> list[dict[str, list[int]]]:
    """Each text with an end, filled with more of them; all of it has a label, as in the tutorial."""
    rows = []
    for text in texts:
        ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
        padding = work.TEXT_TOKENS - len(ids)
        ids, mask = ids + [tokenizer.eos_token_id] * padding, [1] * len(ids) + [0] * padding
        rows.append({"input_ids": ids, "attention_mask": mask, "labels": ids})
    return rows


def with_adapters(network: Any) -> Any:
    """The network under PEFT's LoRA."""
    from peft import LoraConfig, get_peft_model

    is_gpt2 = network.config.model_type == "gpt2"
    adapters = LoraConfig(
        r=work.RANK,
        lora_alpha=work.ALPHA,
        lora_dropout=work.DROPOUT,
        target_modules=["c_attn", "c_proj"] if is_gpt2 else list(work.TARGETS),
        fan_in_fan_out=is_gpt2,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, adapters)


def _arguments(rate: float, precision: str, seed: int, place: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=place,
        num_train_epochs=work.EPOCHS,
        per_device_train_batch_size=work.BATCH,
        gradient_accumulation_steps=work.ACCUMULATION,
        learning_rate=rate,
        lr_scheduler_type=work.SCHEDULE,
        optim="adamw_torch_fused",
        bf16=precision != "float32" and arms.bfloat16_is_faster(),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )


TRAINED = {"lmworks": lmworks_arm, "trainer": trainer_arm}


def main() -> None:
    """Run one arm, and print its figures as JSON."""
    options = argparse.ArgumentParser()
    options.add_argument("arm", choices=["untouched", *TRAINED])
    options.add_argument("model", help="a folder")
    options.add_argument("work", type=Path)
    options.add_argument("--method", choices=list(work.RATES), default="full")
    options.add_argument("--rate", type=float)
    options.add_argument("--precision", default="auto")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    use_threads()
    if given.arm == "untouched":
        print(json.dumps(untouched_arm(given.model, given.work)))
        return
    rate = given.rate or work.RATES[given.method]
    print(json.dumps(TRAINED[given.arm](given.model, given.method, rate, given.precision, given.work, given.seed)))


if __name__ == "__main__":
    main()
