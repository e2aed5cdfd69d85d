"""lmworks' arms of the training benchmark: the loop that `lmworks tune` runs, without the report around it."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import arms
import figures
import numpy as np
import work

from lmworks.adapt.lora import LoRASettings
from lmworks.adapt.registry import load_adapter, make
from lmworks.base import process_memory
from lmworks.base.journal import RunFolder
from lmworks.base.processor import use_threads
from lmworks.data.batch import Example
from lmworks.data.sampler import BatchSampler
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.opening import open_saved_model
from lmworks.model.config import ModelConfig
from lmworks.model.quantization import quantize
from lmworks.model.training_cost import training_flops
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings


def opened(method: str, folder: Path) -> LanguageModel:
    """The model as it is trained: with the adapter it starts with, or all of it."""
    model = open_saved_model(arms.reference_folder(), storage="stored" if method == "qlora" else None)
    if method == "qlora":
        quantize(model.network, "nf4")
        process_memory.release_memory()
    if method in work.ADAPTERS:
        load_adapter(model.network, work.start(folder), model.family, trainable=True)
    else:
        model.network.requires_grad_(True)
    return model


def arranged(documents: list[dict[str, Any]]) -> list[Example]:
    """Examples whose shuffled order is that of the documents."""
    places = [place for step in BatchSampler(len(documents), work.DOCUMENTS, epochs=1) for place in step]
    examples: list[Any] = [None] * len(documents)
    for place, document in zip(places, documents, strict=True):
        ids = np.array(document["ids"], dtype=np.int32)
        examples[place] = Example(ids, np.arange(len(ids)) >= document["prompt"])
    return examples


def settings(method: str, precision: str) -> TrainSettings:
    """One epoch at a constant rate; all else as it is by default."""
    return TrainSettings(
        batch_size=work.DOCUMENTS,
        learning_rate=work.RATES[method],
        schedule="constant",
        warmup=0.0,
        precision=precision,
        base_precision="nf4" if method == "qlora" else "auto",
        checkpoint_every=10_000,
    )


def flops_of(config: ModelConfig, documents: list[dict[str, Any]], method: str) -> float:
    """FLOPs that training on these documents needs: the head where a target stands, no gradient of frozen weights."""
    lengths = [len(document["ids"]) - 1 for document in documents]  # nothing is predicted from a document's last token
    targets = sum(len(document["ids"]) - document["prompt"] for document in documents)
    is_adapter = method in work.ADAPTERS
    settings = LoRASettings(rank=work.RANK, target_modules=list(work.TARGETS)) if is_adapter else None
    trained = make("lora" if is_adapter else method, settings).trained_parameters(config)
    return float(training_flops(config, trained, sum(lengths), targets, lengths).total)


def steps_of(documents: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The documents of each step."""
    return [documents[begin : begin + work.DOCUMENTS] for begin in range(0, len(documents), work.DOCUMENTS)]


def run(method: str, precision: str, folder: Path, steps: int | None) -> dict[str, Any]:
    """Train, and return the figures."""
    documents = work.documents(folder, steps)
    model = opened(method, folder)
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder.create(Path(place) / "run", "")
        began = time.time()
        train(model.network, arranged(documents), settings(method, precision), run, Hooks(quiet=True))
        events = run.events("step")
    counted = documents[figures.WARM * work.DOCUMENTS :]
    return figures.summarize(
        [sum(len(document["ids"]) for document in step) for step in steps_of(documents)],
        [event["targets"] for event in events],
        [event["seconds"] for event in events],
        [event["loss"] for event in events],
        events[figures.WARM - 1]["time"] - began,
        flops=flops_of(model.config, counted, method),
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("method", choices=list(work.RATES))
    options.add_argument("precision")
    options.add_argument("work", type=Path)
    options.add_argument("--steps", type=int)
    given = options.parse_args()
    use_threads()
    print(json.dumps(run(given.method, given.precision, given.work, given.steps)))


if __name__ == "__main__":
    main()
