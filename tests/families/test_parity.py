"""A tiny random model of ``transformers`` and ours give the same numbers, whoever wrote the folder: every family, every
kind. Then ours alone: padded, packed and cached rows give what each row gives by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_families import CASES, Question, ask_ours, ask_theirs, differences, open_case, question, their_class

from lmworks.families.folder import open_folder, read_config, save_folder
from lmworks.families.opened import Opened
from lmworks.families.registry import FAMILIES, OWN
from lmworks.model.cache import Cache
from lmworks.model.transformer import Transformer

every_case = pytest.mark.parametrize("case", CASES, ids=str)
CLOSE = {"rtol": 0.0, "atol": 1e-4}
LENGTHS = ((12, 9), (7, 11), (7, 5))  # of the rows that are padded or packed, and of their sources


@pytest.fixture
def both(case: str, tmp_path: Path) -> tuple[Any, Opened]:
    """A model of transformers, and the folder that it wrote, opened here."""
    return open_case(case, tmp_path / "theirs")


def test_every_family_has_a_case() -> None:
    output = {their_class(case).config_class.model_type for case in CASES}
    assert output >= set(FAMILIES) - {family.name for family in OWN}


@every_case
def test_logits_and_gradients_are_theirs(both: tuple[Any, Opened]) -> None:
    result = differences(*both)
    assert result.logits <= 1e-4
    assert result.gradients <= 1e-4


@every_case
def test_our_folder_opens_there_and_here(both: tuple[Any, Opened], tmp_path: Path) -> None:
    model, ours = both
    assert read_config(tmp_path / "theirs") == ours.config
    path = save_folder(
        tmp_path / "ours", ours.network, ours.config, ours.family, hf_config=ours.hf_config, generation=ours.generation
    )
    asked = question(ours.config)
    named = json.loads((path / "config.json").read_text())["architectures"]
    assert named == model.config.architectures
    kind = getattr(transformers, named[0])
    there, info = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    unread = {"cls.predictions.bias", "lm_head.bias", "predictions.bias"}  # where the head's matrix is its own
    assert not set(info["missing_keys"]) - (set() if ours.config.tie_word_embeddings else unread)
    assert not info["unexpected_keys"]
    expected, received = ask_theirs(model, asked), ask_theirs(there.eval(), asked)
    for name, value in expected.items():
        torch.testing.assert_close(received[name], value, **CLOSE)
    here = open_folder(path)
    assert here.config == ours.config
    for name, value in ask_ours(ours.network, asked).items():
        torch.testing.assert_close(ask_ours(here.network, asked)[name], value, rtol=0, atol=0)
    assert there.config.eos_token_id == model.config.eos_token_id
    assert here.generation["eos_token_id"] == 2


@every_case
def test_cached_is_uncached(both: tuple[Any, Opened]) -> None:
    network, config = both[1].network, both[1].config
    if config.architecture == "encoder":
        pytest.skip("an encoder has no earlier tokens")
    length = 14  # within the trained context: beyond it, dynamic scaling turns earlier layers' keys anew each step
    asked = question(config, length=length)
    with torch.no_grad():
        expected = ask_ours(network, asked)["logits"]
        memory = None if asked.source is None else network.encode(asked.source)
        cache = Cache(config, 2, length)
        parts = [network(asked.ids[:, :6], cache=cache, memory=memory).logits]
        parts += [network(asked.ids[:, i : i + 1], cache=cache, memory=memory).logits for i in range(6, length)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **CLOSE)


def _rows(asked: Question) -> list[Question]:
    return [asked.row(index, *lengths) for index, lengths in enumerate(LENGTHS)]


def _padded(parts: list[torch.Tensor], left: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows (1, L) -> ids, segments and positions (B, T)."""
    width = max(part.shape[1] for part in parts)
    ids, segments, positions = (torch.zeros(len(parts), width, dtype=torch.int64) for _ in range(3))
    for index, part in enumerate(parts):
        length = part.shape[1]
        place = slice(width - length, width) if left else slice(0, length)
        ids[index, place], segments[index, place] = part[0], 1
        positions[index, place] = torch.arange(length)
    return ids, segments, positions


@every_case
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padded_is_alone(both: tuple[Any, Opened], left: bool) -> None:
    network = both[1].network
    rows = _rows(question(both[1].config, len(LENGTHS), 12 + 7))
    output: dict[str, Any] = {}
    ids, segments, positions = _padded([row.ids for row in rows], left)
    with torch.no_grad():
        if rows[0].types is not None:
            output["types"] = _padded([row.types for row in rows if row.types is not None], left)[0]
        if rows[0].source is not None:
            source, *places = _padded([row.source for row in rows if row.source is not None], left)
            output |= {"memory": network.encode(source, *places), "memory_segments": places[0]}
        logits = network(ids, segments=segments, positions=positions, **output).logits
        for index, row in enumerate(rows):
            torch.testing.assert_close(logits[index][segments[index] > 0], ask_ours(network, row)["logits"][0], **CLOSE)


def _packed(parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows (1, L) -> ids, segments and positions of one flat row."""
    segments = [torch.full_like(part, number) for number, part in enumerate(parts, 1)]
    positions = [torch.arange(part.shape[1])[None] for part in parts]
    return tuple(torch.cat(some, dim=1) for some in (parts, segments, positions))  # type: ignore[return-value]


@every_case
def test_packed_is_alone(both: tuple[Any, Opened]) -> None:
    network = both[1].network
    rows = _rows(question(both[1].config, len(LENGTHS), 12 + 7))
    output: dict[str, Any] = {}
    ids, segments, positions = _packed([row.ids for row in rows])
    with torch.no_grad():
        if rows[0].types is not None:
            output["types"] = torch.cat([row.types for row in rows if row.types is not None], dim=1)
        if rows[0].source is not None:
            source, *places = _packed([row.source for row in rows if row.source is not None])
            output |= {"memory": network.encode(source, *places), "memory_segments": places[0]}
        logits = network(ids, segments=segments, positions=positions, **output).logits
        alone = torch.cat([ask_ours(network, row)["logits"] for row in rows], dim=1)
        torch.testing.assert_close(logits, alone, **CLOSE)
        only = torch.tensor([0, 5, 13])
        picked = network(ids, segments=segments, positions=positions, logits_to_keep=only, **output).logits
        torch.testing.assert_close(picked, alone[0, only], **CLOSE)


@every_case
def test_scalings_and_windows_tell(both: tuple[Any, Opened]) -> None:
    """The cases above would prove nothing if these made no difference."""
    opened = both[1]
    plain = opened.config.model_copy(update={"rope_scaling": None, "sliding_window": None, "layer_kinds": None})
    if plain == opened.config:
        pytest.skip("this case has neither")
    without = Transformer(plain)
    without.load_state_dict(opened.network.state_dict())
    asked = question(opened.config)
    gone = ask_ours(without.eval(), asked)["logits"] - ask_ours(opened.network, asked)["logits"]
    assert gone.abs().max() > 1e-2
