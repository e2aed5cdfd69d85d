"""A sentence encoder's own pooling gives the vectors of sentence-transformers, opened here and saved again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import save_encoder

import lmworks
from lmworks.base.errors import InputError
from lmworks.families.sentence_pooling import MODES

TEXTS = ["the sky is blue", "The Who", "is"]
CLOSE = {"rtol": 0.0, "atol": 2e-6}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def save_sentence_encoder(folder: Path, pooling: dict[str, Any], normalize: bool = False, **settings: Any) -> Path:
    """A tiny encoder with the files of sentence-transformers beside it."""
    save_encoder(folder)
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=False))
    ]
    write(folder / "modules.json", modules)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling})
    (folder / "2_Normalize").mkdir()
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False, **settings})
    return folder


def theirs(folder: Path) -> torch.Tensor:
    peers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    return torch.from_numpy(peers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


@pytest.mark.parametrize("mode", MODES)
def test_each_pooling_gives_their_vectors(mode: str, tmp_path: Path) -> None:
    older = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
    keys = {f"pooling_mode_{older.get(name, name)}": name == mode for name in MODES}
    folder = save_sentence_encoder(tmp_path / "m", keys, normalize=mode == "cls")
    model = lmworks.load(folder)
    expected = theirs(folder)
    torch.testing.assert_close(model.embed(TEXTS), expected, **CLOSE)
    again = model.save(tmp_path / "again")
    torch.testing.assert_close(theirs(again), expected, **CLOSE)
    torch.testing.assert_close(lmworks.load(again).embed(TEXTS), expected, **CLOSE)


def test_joined_poolings_lower_case_and_a_prompt(tmp_path: Path) -> None:
    folder = save_sentence_encoder(
        tmp_path / "m", {"pooling_mode": ["mean", "cls"]}, normalize=True, do_lower_case=True
    )
    write(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "who is ", "text": "the "}, "default_prompt_name": "query"},
    )
    model = lmworks.load(folder)
    assert model.pooling.describe() == "mean + cls, normalized"
    torch.testing.assert_close(model.embed(TEXTS), theirs(folder), **CLOSE)
    plain = model.embed(TEXTS, "mean", normalize=False)
    torch.testing.assert_close(plain / plain.norm(dim=1, keepdim=True), model.embed(TEXTS, "mean"), **CLOSE)


def test_what_is_not_computed_is_said_and_what_is_damaged_refused(tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "m", {"pooling_mode_cls_token": True})
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    write(folder / "modules.json", modules)
    assert any("Dense" in note for note in lmworks.load(folder).notes)
    for value in ({"pooling_mode": "median"}, {"pooling_mode_cls_token": "yes"}, {}):
        write(folder / "1_Pooling" / "config.json", value)
        with pytest.raises(InputError, match="pooling_mode") as caught:
            lmworks.load(folder)
        assert caught.value.place.endswith("1_Pooling/config.json")
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(InputError, match="1_Pooling"):
        lmworks.load(folder)
