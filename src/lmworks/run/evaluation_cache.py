"""Caches evaluations of opened models before training: a later run with the same model, rows and settings would compute
the same figures and answers, bit for bit.

The key is a hash of everything that they depend on: all weights, tokenizer, examples, prompts and general texts,
settings, matmul providers, native kernels, machine, threads, and the files of this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmworks.base import processor
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder
from lmworks.kernels import native_module
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import stored_layers
from lmworks.run.evaluation import Evaluation, Figures
from lmworks.train.identity import add_to_hash

MAX_FILES = 50  # cached evaluations; the oldest are deleted
PROMPT_PARTS = ("ids", "text", "reference", "labels", "choices", "content_free", "stop")


@dataclass(frozen=True)
class CachedEvaluation:
    """An evaluation's entry in the cache.

    Attributes:
        path: its file, which may not exist.
        results: figures and samples, as Evaluation.run returns them; None if they are not in the cache.
    """

    path: Path
    results: tuple[Figures, list[dict[str, Any]]] | None

    @classmethod
    def of(cls, evaluation: Evaluation, providers: Mapping[str, str]) -> CachedEvaluation:
        """The entry of an evaluation whose matrix products these providers compute."""
        path = cache_folder() / "evaluations" / f"{_key(evaluation, providers)}.json"
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, (dict(entry["figures"]), list(entry["samples"])))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, None)

    def write(self, figures: Figures, samples: list[dict[str, Any]]) -> None:
        """Write the results. Where the cache cannot be written, they are computed again next time."""
        with contextlib.suppress(OSError, InputError):
            atomic_write(self.path, json.dumps({"figures": figures, "samples": samples}))
            files = sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-MAX_FILES]:
                path.unlink()


def _key(evaluation: Evaluation, providers: Mapping[str, str]) -> str:
    model, task = evaluation.model, evaluation.task
    conditions: list[Any] = [
        _package_files(),
        processor.identity(),
        native_module.describe(),
        sorted(providers.items()),
        model.config.model_dump(mode="json"),
        model.tokenizer.core.to_str(),
        repr(model.rules),
        task.name,
        task.settings.model_dump(mode="json"),
        evaluation.settings.model_dump(mode="json", exclude={"reuse"}),
        evaluation.general_name,
        evaluation.general,
        evaluation.context,
        [example.parts() for example in evaluation.held_out],
        [[getattr(prompt, part) for part in PROMPT_PARTS] for prompt in evaluation.prompts],
    ]
    digest = hashlib.sha256()
    add_to_hash(digest, conditions)
    for name, weight in _weights(model.network):
        add_to_hash(digest, [name, weight])
    return digest.hexdigest()[:32]


def _package_files() -> list[tuple[str, int, int]]:
    """Size and time of every file of this package: a change of the code changes the key."""
    root = Path(__file__).parents[1]
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".so"))
    return [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _weights(network: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from network.state_dict().items()
    for name, layer in stored_layers(network):
        storage = layer.storage
        yield name, storage.blocks if isinstance(storage, BlockStorage) else storage.dequantized()
