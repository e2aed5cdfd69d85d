"""Encoders as they lie in the world: files that hold more heads, or fewer, or older names than their config says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import ask_ours, ask_theirs, make, open_case, question, their_config

from lmworks.base.errors import InputError
from lmworks.base.sources import find
from lmworks.families.folder import open_folder, read_config, save_folder
from lmworks.families.registry import FAMILIES, family_of

CLOSE = {"rtol": 0.0, "atol": 1e-4}
TEXTS = [
    "This is an example sentence.",
    "Each sentence is converted: a naïve café, 3.5 km away — twice!",
    "x",
    "The quick brown fox jumps over the lazy dog, and then it rests. " * 12,
]


def rewrite(folder: Path, weights: Mapping[str, torch.Tensor], **config: Any) -> None:
    """Put other weights into a folder, and other keys into its config; None removes a key."""
    save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors")
    output = json.loads((folder / "config.json").read_text()) | config
    output = {name: value for name, value in output.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(output))


def saved(case: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model of transformers and the weights of the folder that it wrote."""
    model = make(case)
    model.save_pretrained(folder)
    return model, load_file(folder / "model.safetensors")


def test_a_file_may_hold_more_than_its_config_says(tmp_path: Path) -> None:
    """As the published bert-base-uncased does: LayerNorms by their older names, positions' numbers, heads not told."""
    model, weights = saved("bert", tmp_path)
    older = {}
    for name, tensor in weights.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        older[name] = tensor
    older |= {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": weights["cls.predictions.bias"],
    }
    rewrite(tmp_path, older, architectures=["BertForMaskedLM"], position_embedding_type="absolute")
    ours = open_folder(tmp_path)
    assert [head.name for head in ours.config.heads] == ["next_sentence"]
    assert read_config(tmp_path) == ours.config
    asked = question(ours.config)
    for name, expected in ask_theirs(model, asked).items():
        torch.testing.assert_close(ask_ours(ours.network, asked)[name], expected, **CLOSE)
    again = save_folder(tmp_path / "again", ours.network, ours.config, ours.family)
    assert json.loads((again / "config.json").read_text())["architectures"] == ["BertForPreTraining"]


def test_a_pooler_without_a_head_is_kept(tmp_path: Path) -> None:
    """As the published roberta-base has it."""
    model, weights = saved("roberta", tmp_path)
    pooler = {"roberta.pooler.dense.weight": torch.randn(32, 32), "roberta.pooler.dense.bias": torch.randn(32)}
    rewrite(tmp_path, weights | pooler)
    ours = open_folder(tmp_path)
    path = save_folder(tmp_path / "again", ours.network, ours.config, ours.family, hf_config=ours.hf_config)
    assert open_folder(path).config == ours.config
    torch.testing.assert_close(load_file(path / "model.safetensors"), weights | pooler, rtol=0, atol=0)
    there = type(model).from_pretrained(path).eval()
    asked = question(ours.config)
    torch.testing.assert_close(ask_theirs(there, asked)["logits"], ask_ours(ours.network, asked)["logits"], **CLOSE)


@pytest.mark.parametrize("case", ["minilm", "roberta-bare", "distilbert-bare", "albert-bare"])
@pytest.mark.parametrize("named", [True, False])
def test_bare_encoders_open_with_prefix_and_without(case: str, named: bool, tmp_path: Path) -> None:
    """MiniLM's first files have the prefix and no ``architectures``."""
    model, weights = saved(case, tmp_path)
    prefix = FAMILIES[model.config.model_type].prefix
    assert not any(name.startswith(prefix) for name in weights)
    remaining = model.config.architectures if named else None
    rewrite(tmp_path, {prefix + name: tensor for name, tensor in weights.items()}, architectures=remaining)
    ours = open_folder(tmp_path)
    assert not ours.config.language_head
    asked = question(ours.config)
    torch.testing.assert_close(ask_ours(ours.network, asked), ask_theirs(model, asked), **CLOSE)
    path = save_folder(tmp_path / "again", ours.network, ours.config, ours.family)
    assert load_file(path / "model.safetensors").keys() == weights.keys()
    assert open_folder(path).config == ours.config


def test_heads_that_are_promised_must_be_there(tmp_path: Path) -> None:
    _, weights = saved("bert", tmp_path)
    without = {name: tensor for name, tensor in weights.items() if "predictions" not in name}
    rewrite(tmp_path, without)
    with pytest.raises(InputError, match=r"missing: cls\.predictions\.bias"):
        open_folder(tmp_path)
    rewrite(tmp_path, weights | {"cls.predictions.decoder.bias": weights["cls.predictions.bias"] + 1})
    with pytest.raises(InputError, match=r"ties cls\.predictions\.decoder\.bias to cls\.predictions\.bias"):
        open_folder(tmp_path)
    rewrite(tmp_path, weights | {"classifier.weight": torch.ones(2, 32)})
    with pytest.raises(InputError, match=r"classifier\.weight"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        ("bert", {"is_decoder": True}, ["is_decoder"]),
        ("bert", {"position_embedding_type": "relative_key"}, ["position_embedding_type", "relative_key", "absolute"]),
        ("bert", {"add_cross_attention": True}, ["add_cross_attention"]),
        ("roberta", {"hidden_act": "relu"}, ["hidden_act", "relu", "gelu"]),
        ("albert", {"inner_group_num": 2}, ["inner_group_num: 2"]),
        ("albert", {"num_hidden_groups": 3}, ["num_layer_groups 3"]),
        ("distilbert", {"dim": 30}, ["hidden_size 30"]),
        ("distilbert", {"type_vocab_size": 2}, ["type_vocab_size"]),
    ],
)
def test_what_is_not_computed_is_refused_by_name(case: str, change: dict[str, Any], words: list[str]) -> None:
    output = their_config(case).to_dict() | change
    with pytest.raises(InputError) as caught:
        family_of(output).read_config(output)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("case", "offset"), [("roberta", 1), ("roberta-padding", 2)])
def test_roberta_counts_from_its_padding(case: str, offset: int, tmp_path: Path) -> None:
    model, ours = open_case(case, tmp_path / "theirs")
    assert ours.config.position_offset == offset
    assert ours.config.max_position_embeddings == 64 - offset
    ids = question(ours.config, 2, 64 - offset).ids  # the longest context
    torch.testing.assert_close(ours.network(ids).logits, model(input_ids=ids).logits, **CLOSE)
    padded = ids.clone()
    padded[1, 20:] = offset - 1
    real = (padded != offset - 1).long()
    expected = model(input_ids=padded, attention_mask=real).logits
    received = ours.network(padded, segments=real).logits
    torch.testing.assert_close(received[real > 0], expected[real > 0], **CLOSE)
    path = save_folder(tmp_path / "ours", ours.network, ours.config, ours.family)  # told nothing of its tokens
    assert json.loads((path / "config.json").read_text())["pad_token_id"] == offset - 1
    rows = "roberta.embeddings.position_embeddings.weight"
    before, after = (load_file(folder / "model.safetensors")[rows] for folder in (tmp_path / "theirs", path))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    with pytest.raises(InputError, match="max_position_embeddings"):  # another padding would shift every position
        save_folder(tmp_path / "other", ours.network, ours.config, ours.family, hf_config={"pad_token_id": 7})


def test_the_table_follows_the_groups(tmp_path: Path) -> None:
    _, ours = open_case("albert-groups", tmp_path)
    assert (len(ours.network.layers), ours.config.num_hidden_layers) == (2, 4)
    item, four = (ours.config.model_copy(update={"num_layer_groups": groups}) for groups in (1, 4))
    assert {row.theirs for row in ours.family.table(item)} < {row.theirs for row in ours.family.table(ours.config)}
    with pytest.raises(InputError, match=r"missing layers\.2"):
        save_folder(tmp_path / "four", ours.network, four, ours.family)


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The real sentence encoder, as its source finds it."""
    try:
        return Path(find("minilm-l6").path)
    except InputError as error:
        pytest.skip(f"the real sentence encoder is not here: {error}")


def test_the_real_sentence_encoder_gives_its_vectors(minilm: Path) -> None:
    peers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    import lmworks

    expected = torch.from_numpy(peers.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS))
    received = lmworks.load(minilm).embed(TEXTS)
    torch.testing.assert_close(received, expected, **CLOSE)
    torch.testing.assert_close(received.norm(dim=1), torch.ones(len(TEXTS)), **CLOSE)


def test_the_real_sentence_encoder_saved_is_the_same(minilm: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    ours = open_folder(minilm)
    path = save_folder(tmp_path / "again", ours.network, ours.config, ours.family, ours.tokenizer, ours.hf_config)
    there, info = AutoModel.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    asked = question(ours.config, 1, 12)
    torch.testing.assert_close(ask_theirs(there.eval(), asked), ask_ours(ours.network, asked), **CLOSE)
