"""Tiny pretrained models, which the tests of all tasks share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_presets import save_text, small

import lmworks
from lmworks.base.settings import merge


class Pretrained(dict[str, str]):
    """Preset -> the folder of a tiny model of it, which is trained for two steps when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.data = {"source": str(save_text(folder / "text.txt")), "document": "paragraph", "held_out": 2}

    def __missing__(self, preset: str) -> str:
        groups = merge(small(preset), {"train": {"steps": 2, "evaluate_every": 2}})
        run = lmworks.pretrain(preset, self.data, out=self.folder / preset, **groups)
        self[preset] = str(run.folder / "final")
        return self[preset]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    """Tiny models by the names of their presets."""
    return Pretrained(tmp_path_factory.mktemp("models"))
