"""A run of a tiny model, finished, for all tests of sharing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import save_questions, save_tiny, settings

import lmworks


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of questions and answers, with a system message."""
    place = tmp_path_factory.mktemp("shared")
    model, data = save_tiny(place / "tiny"), save_questions(place / "secret-faq.jsonl")
    values = settings()
    given = {"source": str(data), "system": "Be brief.", **values.pop("data")}
    values["train"]["learning_rate"] = 1e-2
    return lmworks.tune(str(model), given, out=place / "run", **values).folder
