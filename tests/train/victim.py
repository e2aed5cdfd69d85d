"""A small training run as a process of its own, to be killed. Usage: victim.py RUN STEPS THREADS"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import make_examples, make_network

from lmworks.adapt.attach import attach
from lmworks.adapt.settings import LoRASettings
from lmworks.base.journal import RunFolder
from lmworks.train.loop import Hooks, train
from lmworks.train.losses import loss
from lmworks.train.settings import TrainSettings
from lmworks.train.step import rows_of


def main(folder: str, steps: str, threads: str) -> None:
    settings = TrainSettings(
        batch_size=4,
        steps=int(steps),
        learning_rate=3e-3,
        row_tokens=32,
        checkpoint_every=3,
        evaluate_every=7,
        precision="bfloat16",
        threads=int(threads),
    )
    network = make_network()
    attach(network, LoRASettings(rank=4, targets="all-linear", dropout=0.1))
    held_out = rows_of(make_examples(5, seed=9), settings)

    def evaluate(network, step):
        parts = [loss(network, batch) for batch in held_out]
        return {"loss": sum(float(part[0]) for part in parts) / sum(part[1] for part in parts)}

    path = Path(folder)
    run = RunFolder(path) if path.exists() else RunFolder.create(path, "")
    train(network, make_examples(30), settings, run, Hooks(evaluate=evaluate, quiet=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
