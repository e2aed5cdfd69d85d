"""The arms of the comparison of classifiers: `lmworks.tune`, and transformers' Trainer, with PEFT where it is LoRA.

Each runs in a process of its own. The clock runs from the beginning of training to the end of its last step; peak
memory is the process's until training has ended, before anything is predicted. The peer is at its best settings: fused
AdamW, fused attention, tokens ready before the clock runs, texts of like length in one batch and padded to the longest
of it, nothing logged or saved. lmworks runs as a user calls it, and writes its journal and checkpoints meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import classifier_work as work

from lmworks.base import process_memory
from lmworks.base.processor import use_threads

Figures = dict[str, Any]
PEFT_TARGETS = r".*attention\.(self\.(query|key|value)|output\.dense)"
"""The linears of BERT that are `work.TARGETS` in lmworks."""
PREDICTED = 64  # texts at a time


def lmworks_arm(model: str, method: str, precision: str, folder: Path, seed: int) -> Figures:
    """`lmworks.tune`, without held-out rows of its own."""
    import lmworks
    from lmworks.base.journal import RunFolder

    recipe = work.recipe_of(folder)
    data = {"source": str(folder / "train.jsonl"), "kind": recipe.kind, "held_out": 0, "max_tokens": recipe.max_tokens}
    train = {
        "learning_rate": recipe.rates[method],
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "schedule": recipe.schedule,
        "warmup": recipe.warmup,
        "precision": precision,
        "seed": seed,
    }
    lora = {"rank": recipe.rank, "alpha": recipe.alpha, "target_modules": list(recipe.targets)}
    settings: dict[str, Any] = {"lora": lora} if method == "lora" else {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        run = lmworks.tune(model, data, method=method, out=Path(place) / "run", train=train, **settings)
        whole, peak = time.perf_counter() - started, process_memory.peak_memory()
        steps = RunFolder(run.folder).events("step")
        trained = RunFolder(run.folder).events("start")[0]["parameters"]["trainable"]
        rows = work.held_out_rows(folder)
        if recipe.is_tagging:
            predicted: list[Any] = [tagged.tags for tagged in run.model.tag_words([row["tokens"] for row in rows])]
        else:
            predicted = [answer.label for answer in run.model.predict(list(map(_texts, rows)))]
    seconds = steps[-1]["time"] - steps[0]["time"] + steps[0]["seconds"]
    tokens = sum(step["tokens"] for step in steps)
    return {"trained": trained, **_figures(seconds, whole, peak, len(steps), tokens, rows, predicted)}


def _texts(row: dict[str, Any]) -> str | list[str]:
    return [row["text"], row["text_pair"]] if "text_pair" in row else row["text"]


def trainer_arm(model: str, method: str, precision: str, folder: Path, seed: int) -> Figures:
    """transformers' Trainer."""
    import torch
    from transformers import (
        AutoTokenizer,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
    )

    class Clock(TrainerCallback):
        """Begin of training, and end of the last step."""

        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter()

    recipe = work.recipe_of(folder)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = [_encoded(row, tokenizer, recipe) for row in work.training_rows(folder)]
    torch.manual_seed(seed)
    network = peer_network(model, method, recipe)
    collate = (DataCollatorForTokenClassification if recipe.is_tagging else DataCollatorWithPadding)(tokenizer)
    with tempfile.TemporaryDirectory() as place:
        arguments = _arguments(recipe, method, precision, seed, place)
        clock = Clock()
        trainer = Trainer(network, arguments, data_collator=collate, train_dataset=encoded, callbacks=[clock])
        trainer.train()
        peak, steps = process_memory.peak_memory(), trainer.state.global_step
        trainer.save_model(place)
        whole = time.perf_counter() - started
    rows = work.held_out_rows(folder)
    predicted = _predicted(network, tokenizer, rows, recipe, collate)
    tokens = round(recipe.epochs * sum(len(row["input_ids"]) for row in encoded))
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    seconds = clock.ended - clock.began
    return {"trained": trained, **_figures(seconds, whole, peak, steps, tokens, rows, predicted)}


def peer_network(model: str, method: str, recipe: work.Recipe) -> Any:
    """transformers' model with a new head, under PEFT where the method is LoRA; what lmworks trains is trained: the
    head, and the pooler that it reads."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kind = AutoModelForTokenClassification if recipe.is_tagging else AutoModelForSequenceClassification
    names = dict(enumerate(recipe.labels))
    ids = {label: number for number, label in names.items()}
    network = kind.from_pretrained(model, id2label=names, label2id=ids, attn_implementation="sdpa")
    if method == "full":
        return network
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=PEFT_TARGETS,
        modules_to_save=["classifier"] if recipe.is_tagging else ["classifier", "pooler"],
        task_type="TOKEN_CLS" if recipe.is_tagging else "SEQ_CLS",
    )
    return get_peft_model(network, adapters)


def _arguments(recipe: work.Recipe, method: str, precision: str, seed: int, place: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=place,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.rates[method],
        lr_scheduler_type=recipe.schedule,
        warmup_steps=math.ceil(recipe.warmup * recipe.steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=precision == "autocast",
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )


def _encoded(row: dict[str, Any], tokenizer: Any, recipe: work.Recipe) -> dict[str, Any]:
    """Ids of a row, with its label, or its words' tags at their first tokens."""
    number = {label: place for place, label in enumerate(recipe.labels)}
    if not recipe.is_tagging:
        item = tokenizer(row["text"], row.get("text_pair"), truncation=True, max_length=recipe.max_tokens)
        return {**item, "labels": number[row["label"]]}
    item = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=recipe.max_tokens)
    words = item.word_ids()
    firsts = [word is not None and word not in words[:place] for place, word in enumerate(words)]
    labels = [number[row["tags"][word]] if first else -100 for word, first in zip(words, firsts, strict=True)]
    return {**item, "labels": labels}


def _predicted(network: Any, tokenizer: Any, rows: list[dict[str, Any]], recipe: work.Recipe, collate: Any) -> Any:
    """The label of each row, or the tags of its words; words that were cut off are outside."""
    import torch

    network.eval()
    predicted: list[Any] = []
    for begin in range(0, len(rows), PREDICTED):
        part = rows[begin : begin + PREDICTED]
        items = [_encoded(row, tokenizer, recipe) for row in part]
        labels = [item["labels"] for item in items]
        with torch.inference_mode():
            logits = network(**{key: value for key, value in collate(items).items() if key != "labels"}).logits
        best = logits.argmax(-1).tolist()
        if not recipe.is_tagging:
            predicted += [recipe.labels[place] for place in best]
            continue
        for row, of_row, places in zip(part, labels, best, strict=True):
            tags = [recipe.labels[place] for label, place in zip(of_row, places, strict=False) if label != -100]
            predicted.append(tags + ["O"] * (len(row["tags"]) - len(tags)))
    return predicted


def _figures(
    seconds: float, whole: float, peak: int, steps: int, tokens: int, rows: list[dict[str, Any]], predicted: list[Any]
) -> Figures:
    """An arm's figures; the rows' shares of accuracy or F1 for a paired comparison."""
    shares = work.scored(rows, predicted)
    return {
        "train_s": seconds,
        "whole_s": whole,
        "peak_gb": peak / 1e9,
        "steps": steps,
        "tokens": tokens,
        "score": sum(shares["right"]) / max(sum(shares["of"]), 1.0),
        **shares,
    }


ARMS = {"lmworks": lmworks_arm, "trainer": trainer_arm}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("arm", choices=list(ARMS))
    options.add_argument("model", help="a folder")
    options.add_argument("method", choices=["full", "lora"])
    options.add_argument("precision", choices=["auto", "float32", "autocast"])
    options.add_argument("work", type=Path)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    use_threads()
    print(json.dumps(ARMS[given.arm](given.model, given.method, given.precision, given.work, given.seed)))


if __name__ == "__main__":
    main()
