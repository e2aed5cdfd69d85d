"""The identity of a run, which must be equal for it to be resumed: hashes of examples, task and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lmworks.data.batch import Example, ExampleTransform
from lmworks.data.mixture import Mixture
from lmworks.train.settings import TrainSettings

# Settings that are not compared: they change no loss, or a resumed run takes them, or what they gave, from its first
# session (threads, max_time).
FREE_SETTINGS = {"checkpoint_every", "keep_checkpoints", "threads", "tensorboard", "recompute", "memory", "max_time"}
FREE_SETTINGS |= {"paged_optimizer"}
NAMED_SETTINGS = {"optimizer_state", "base_precision"}  # compared by value, so that the error can name the setting
MAX_SAMPLES = 1000  # examples whose random part is hashed


def of(
    examples: Sequence[Example],
    settings: TrainSettings,
    transform: ExampleTransform | None = None,
    mixture: Mixture | None = None,
) -> dict[str, str]:
    """SHA-256 hashes of data, settings and task by name, and the values of some settings.

    Args:
        examples: all parts of them that a model sees (Example.parts).
        settings: of the training; those that change losses are hashed.
        transform: the random part of the task; None: there is none. Its samples are hashed, so that a change of the
            task's settings or of its code changes the hash.
        mixture: the tasks that the examples are of; None: they are of one.
    """
    data = hashlib.sha256()
    for example in examples:
        add_to_hash(data, example.parts())
    values = settings.model_dump_json(exclude=FREE_SETTINGS | NAMED_SETTINGS)
    identity = {f"train.{name}": str(getattr(settings, name)) for name in sorted(NAMED_SETTINGS)}
    identity |= {"data": data.hexdigest(), "settings": hashlib.sha256(values.encode()).hexdigest()}
    if mixture is not None:
        identity["tasks"] = hashlib.sha256(repr(mixture).encode()).hexdigest()
    if transform is not None:
        samples = hashlib.sha256()
        for index in range(0, len(examples), -(-len(examples) // MAX_SAMPLES)):
            sampled = transform(examples[index], np.random.default_rng((settings.seed, index)))
            add_to_hash(samples, sampled.parts())
        identity["task"] = samples.hexdigest()
    return identity


def add_to_hash(digest: hashlib._Hash, value: object) -> None:
    """Add a value to a hash: arrays and tensors by their bytes, sequences and mappings by their parts, all others by
    their representation."""
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} parts".encode())
        for part in value:
            add_to_hash(digest, part)
    elif isinstance(value, torch.Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        add_to_hash(digest, sorted(value.items()))
    else:
        digest.update(f"{type(value).__name__} {value!r} ".encode())
