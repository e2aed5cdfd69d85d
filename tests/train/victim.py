"""A small training run as a process of its own, to be killed. Usage: victim.py RUN STEPS THREADS KIND

KIND: lora (adapters in bfloat16), or a task whose whole network is trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # beside this folder's own, which is there already

from tiny_networks import make_examples, make_network
from training_tasks import task

from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base.journal import RunFolder
from lmworks.evaluate.scoring import row_losses, summary
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings


def main(folder: str, steps: str, threads: str, kind: str) -> None:
    settings = TrainSettings(
        batch_size=4,
        steps=int(steps),
        learning_rate=3e-3,
        row_tokens=32,
        checkpoint_every=3,
        evaluate_every=7,
        precision="bfloat16" if kind == "lora" else "float32",
        threads=int(threads),
    )
    path = Path(folder)
    run = RunFolder(path) if path.exists() else RunFolder.create(path, "")
    if kind == "lora":
        network = make_network()
        LoRA(LoRASettings(rank=4, target_modules="all-linear", dropout=0.1)).apply(network)
        examples, held_out, transform = make_examples(30), make_examples(5, seed=9), None
    else:
        created = task(kind)
        network = created.make(hidden_dropout=0.1, attention_dropout=0.1)
        examples, held_out, transform = created.examples, created.evaluated[:3], created.transform

    def evaluate(network, step):
        return {"loss": summary(row_losses(network, held_out), [0])["loss"]}

    train(network, examples, settings, run, Hooks(evaluate=evaluate, quiet=True), transform=transform)


if __name__ == "__main__":
    main(*sys.argv[1:])
