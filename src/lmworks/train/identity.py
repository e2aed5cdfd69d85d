"""What must be equal for a run to be resumed: its examples, the random part of its task, its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lmworks.data.batch import Example, ExampleTransform
from lmworks.train.settings import TrainSettings

# Settings that are not compared: they change no loss, or a resumed run takes them from its first session (threads).
FREE_SETTINGS = {"checkpoint_every", "keep_checkpoints", "threads", "tensorboard", "recompute", "memory"}
NAMED_SETTINGS = {"optimizer_state", "base_precision"}  # compared by value, so that the error can name the setting
MAX_SAMPLES = 1000  # examples whose random part is hashed


def of(
    examples: Sequence[Example], settings: TrainSettings, transform: ExampleTransform | None = None
) -> dict[str, str]:
    """SHA-256 hashes of data, settings and task by name, and the values of some settings.

    Args:
        examples: token by token, with targets, sources, types and labels.
        settings: those that change losses.
        transform: the random part of the task. Its samples are hashed, so that other settings of the task and another
            version of its code both give another hash.
    """
    data = hashlib.sha256()
    for example in examples:
        _add(data, example)
    values = settings.model_dump_json(exclude=FREE_SETTINGS | NAMED_SETTINGS)
    identity = {f"train.{name}": str(getattr(settings, name)) for name in sorted(NAMED_SETTINGS)}
    identity |= {"data": data.hexdigest(), "settings": hashlib.sha256(values.encode()).hexdigest()}
    if transform is not None:
        samples = hashlib.sha256()
        for index in range(0, len(examples), -(-len(examples) // MAX_SAMPLES)):
            _add(samples, transform(examples[index], np.random.default_rng((settings.seed, index))))
        identity["task"] = samples.hexdigest()
    return identity


def _add(hashed: hashlib._Hash, example: Example) -> None:
    hashed.update(len(example).to_bytes(8, "little") + example.ids.tobytes() + example.loss.tobytes())
    for name in ("targets", "source", "types"):
        part = getattr(example, name)
        if part is not None:
            hashed.update(name.encode() + part.tobytes())
    for head, labels in example.labels.items():
        hashed.update(head.encode() + labels.places.tobytes() + labels.classes.tobytes())
