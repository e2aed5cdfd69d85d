"""An adapter finds its base: where it was, moved together with it, as peft names it, or as the person gives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_questions, save_tiny

import lmworks
from lmworks.adapt import adapter_base
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base import sources
from lmworks.base.errors import InputError
from lmworks.commands.main import main

IDS = torch.tensor([[5, 9, 30, 7]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.network(IDS).logits


@pytest.fixture(name="together")
def _together(tmp_path: Path) -> Path:
    """A folder with a base and an adapter over it; its logits are in ``expected``."""
    folder = tmp_path / "together"
    model = lmworks.load(save_tiny(folder / "base"))
    LoRA(LoRASettings(rank=2)).apply(model.network)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if name.endswith("lora_B"):
                weight.fill_(0.2)
    LoRA.write(model.network, folder / "run" / "final", model.family, str((folder / "base").resolve()))
    torch.save(logits(model), folder / "expected")
    return folder


def edit(folder: Path, **keys: Any) -> None:
    path = folder / "run" / "final" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def check(folder: Path, **options: Any) -> None:
    model = lmworks.load(folder / "run" / "final", **options)
    torch.testing.assert_close(logits(model), torch.load(folder / "expected"), rtol=0, atol=0)
    assert model.notes == []


def test_base_and_adapter_move_together(together: Path, tmp_path: Path) -> None:
    check(together)
    moved = Path(shutil.move(together, tmp_path / "elsewhere"))
    check(moved)


@pytest.mark.parametrize("path", ["../../base", "./../../base"])
def test_a_relative_path_counts_from_the_adapter(
    together: Path, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (together / "run" / "final" / "lmworks_base.json").unlink()
    edit(together, base_model_name_or_path=path)
    monkeypatch.chdir(tmp_path)
    check(together)
    edit(together, base_model_name_or_path="together/base")  # as peft reads it: from the working directory
    check(together)


def test_a_base_that_is_gone_is_named_with_the_file_that_asks_for_it(together: Path) -> None:
    shutil.move(together / "base", together / "renamed")
    with pytest.raises(InputError, match=r"its base '.*base' cannot be opened") as caught:
        lmworks.load(together / "run" / "final")
    assert caught.value.place == str(together / "run" / "final" / "adapter_config.json")
    assert "base_model_name_or_path" in caught.value.hint
    check(together, base=together / "renamed")
    edit(together, base_model_name_or_path=str(together / "renamed"))  # the other thing that the hint says
    check(together)
    for named in (None, "", "."):
        edit(together, base_model_name_or_path=named)
        with pytest.raises(InputError, match="base"):
            lmworks.load(together / "run" / "final")


@pytest.mark.parametrize(
    "keys", [{"r": "two"}, {"lora_alpha": [16]}, {"target_modules": 3}, {"rank_pattern": {"q_proj": "x"}}]
)
def test_wrong_values_of_an_adapters_config_are_refused_by_their_key(together: Path, keys: dict[str, Any]) -> None:
    edit(together, **keys)
    with pytest.raises(InputError, match=next(iter(keys))) as caught:
        lmworks.load(together / "run" / "final")
    assert "adapter_config.json" in caught.value.place or "adapter_config.json" in caught.value.fault


def test_every_command_that_opens_a_model_takes_the_base_that_the_hint_names(
    together: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(together / "base", together / "renamed")
    adapter, base = str(together / "run" / "final"), ["--base", str(together / "renamed")]
    save_questions(tmp_path / "faq.jsonl")
    commands = [
        ["generate", adapter, "What", "--max-tokens", "2"],
        ["chat", adapter, "--ask", "What?", "--max-tokens", "2"],
        ["score", adapter, "What is it?"],
        ["next", "What", "--model", adapter],
        ["embed", "What", "Who", "--model", adapter],
        ["data", "show", adapter, str(tmp_path / "faq.jsonl")],
        ["save", adapter, str(tmp_path / "saved")],
    ]
    for words in commands:
        assert main(words) == 2
        assert "hint: name it: --base FOLDER" in capsys.readouterr().err
        assert main([*words, *base]) == 0, words
    assert main(["score", str(together / "renamed"), "What?", *base]) == 2
    assert "has no base" in capsys.readouterr().err


def test_an_alias_is_written_as_other_libraries_name_it_and_opened_as_the_user_did(
    together: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, base = together / "run" / "final", str(together / "base")
    record = json.loads((final / "lmworks_base.json").read_text())
    record = {key: value for key, value in record.items() if key != "base_from_here"}
    (final / "lmworks_base.json").write_text(json.dumps({**record, "base": "tiny"}))
    place = sources.AliasSource("hub:some/model", "the published weights")
    monkeypatch.setattr(sources, "aliases", lambda: {"tiny": sources.Alias("tiny", "", "", (place,))})
    edit(together, base_model_name_or_path=sources.hub_name("tiny"))
    assert adapter_base.base_of(final, base) == base
    found = sources.LocalSource(together / "base", "tiny", "local")
    monkeypatch.setattr(adapter_base, "find", lambda source, *_: {"tiny": found}[source])
    assert adapter_base.base_of(final) == "tiny"
