"""What must be the same for a run to go on as if it had never stopped: its examples, its drawing, its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lmworks.data.batch import Example, ExampleTransform
from lmworks.train.settings import TrainSettings

# They change no loss.
FREE_SETTINGS = {"checkpoint_every", "keep_checkpoints", "threads", "tensorboard", "recompute", "memory"}
NAMED_SETTINGS = {"optimizer_state"}  # told by their words: a checkpoint holds nothing for another one
TRIED = 1000  # examples whose random part is drawn once, to know a task by what it samples


def of(examples: Sequence[Example], settings: TrainSettings, draw: ExampleTransform | None = None) -> dict[str, str]:
    """Checksums by what they are of, and the words of some settings.

    Args:
        examples: token by token, with targets, sources, types and labels.
        settings: those that change losses.
        draw: a task's random part; it is known by what it samples, so other settings of it, and another version of
            it, are noticed alike.
    """
    data = hashlib.sha256()
    for example in examples:
        _add(data, example)
    told = settings.model_dump_json(exclude=FREE_SETTINGS | NAMED_SETTINGS)
    found = {f"train.{name}": str(getattr(settings, name)) for name in sorted(NAMED_SETTINGS)}
    found |= {"data": data.hexdigest(), "settings": hashlib.sha256(told.encode()).hexdigest()}
    if draw is not None:
        drawn = hashlib.sha256()
        for index in range(0, len(examples), -(-len(examples) // TRIED)):
            _add(drawn, draw(examples[index], np.random.default_rng((settings.seed, index))))
        found["task"] = drawn.hexdigest()
    return found


def _add(hashed: hashlib._Hash, example: Example) -> None:
    hashed.update(len(example).to_bytes(8, "little") + example.ids.tobytes() + example.loss.tobytes())
    for name in ("targets", "source", "types"):
        part = getattr(example, name)
        if part is not None:
            hashed.update(name.encode() + part.tobytes())
    for head, labels in example.labels.items():
        hashed.update(head.encode() + labels.places.tobytes() + labels.classes.tobytes())
