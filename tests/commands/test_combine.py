"""lmworks combine: the adapter that it writes is the weighted sum, and opens in lmworks and peft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import save_tiny

import lmworks
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.commands.main import main


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with two adapters beside it."""
    folder = tmp_path_factory.mktemp("combine")
    save_tiny(folder / "base")
    for seed, (name, rank) in enumerate([("a", 2), ("b", 3)]):
        model = lmworks.load(folder / "base")
        LoRA(LoRASettings(rank=rank)).apply(model.network, seed)
        generator = torch.Generator().manual_seed(seed)
        for own, weight in model.network.named_parameters():
            if own.endswith("lora_B"):
                weight.data.normal_(0.0, 0.3, generator=generator)
        LoRA().save(model, folder / name, str(folder / "base"))
    return folder


def words(folder: Path, *more: str) -> list[str]:
    return ["combine", f"{folder / 'a'}=0.7", f"{folder / 'b'}=-0.25", *more]


@pytest.mark.parametrize(("how", "rank"), [("cat", 5), ("svd", 2)])
def test_it_writes_the_sum(folder, tmp_path, capsys, how, rank):
    out = tmp_path / "mix"
    options = ["--how", how, *(["--rank", "2"] if how == "svd" else [])]
    assert main(words(folder, "--out", str(out), *options)) == 0
    assert "0.7" in capsys.readouterr().out
    model = lmworks.load(folder / "base")
    for name in ("a", "b"):
        model.add_adapter(name, folder / name)
    model.combine_adapters({"a": 0.7, "b": -0.25}, "mix", how, 2 if how == "svd" else None)
    model.use_adapter("mix")
    opened, ids = lmworks.load(out), torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(opened.network(ids).logits, model.network(ids).logits, rtol=1e-4, atol=1e-4)
    assert opened.network.layers[0].self_attn.q_proj.rank == rank
    assert opened.base == model.base


def test_what_is_wrong_is_said_with_a_hint(folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "mix")]
    a, base = str(folder / "a"), str(folder / "base")
    for given, fault in (
        ([a], "has no weight"),
        ([f"{a}=much"], "'much' is no weight"),
        ([f"{a}=1", f"{a}=2"], "named twice"),
        ([f"{base}=1"], "no adapter"),
        ([f"{a}=1", f"{base}=1"], "no adapter"),
        ([f"{a}=1", f"{folder / 'b'}=1", "--how", "linear"], "equal ranks"),
        ([f"{a}=1", "--rank", "3"], "rank 3"),
    ):
        assert main(["combine", *given, *out]) == 2
        error = capsys.readouterr().err
        assert fault in error
        assert "hint:" in error
    assert not (tmp_path / "mix").exists()
    assert main(["combine", f"{a}=1", *out]) == 0
    assert main(["combine", f"{a}=1", *out]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["combine", f"{a}=1", *out, "--overwrite"]) == 0
