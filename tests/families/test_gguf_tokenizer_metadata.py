"""Tokenizers written as GGUF metadata: the same tokens, ids, roles and template when read; refused where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gguf_tokenizer import PIECES, TRAINED
from tiny_tokenizers import CHATML, LLAMA3, byte_level, sentencepiece
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Core

from lmworks.base.errors import InputError
from lmworks.families.gguf import read_tokenizer
from lmworks.families.gguf_file import GGUFFile
from lmworks.families.gguf_tokenizer import CONTROL, NORMAL, SPLITS, UNUSED, USER_DEFINED, tokenizer_of
from lmworks.families.gguf_tokenizer_metadata import HARD_TEXTS, tokenizer_metadata
from lmworks.text.tokenizer import Tokenizer

ROWS = len(TRAINED["tokenizer.ggml.tokens"])


def written(tokenizer: Tokenizer, rows: int | None = None) -> dict[str, Any]:
    return tokenizer_metadata(tokenizer, rows or tokenizer.highest_id + 1, "m.gguf")[0]


@pytest.mark.parametrize("name", SPLITS)
def test_every_named_pre_tokenizer_is_recognised(name: str) -> None:
    metadata = written(tokenizer_of(TRAINED | {"tokenizer.ggml.pre": name}, "file"))
    assert SPLITS[metadata["tokenizer.ggml.pre"]] == SPLITS[name]
    for key in ("tokens", "merges"):
        assert metadata[f"tokenizer.ggml.{key}"] == TRAINED[f"tokenizer.ggml.{key}"]
    assert np.array_equal(metadata["tokenizer.ggml.token_type"], TRAINED["tokenizer.ggml.token_type"])
    here, there = (tokenizer_of(keys, "file") for keys in (TRAINED | {"tokenizer.ggml.pre": name}, metadata))
    for text in HARD_TEXTS:
        assert here.encode(text) == there.encode(text)


@pytest.mark.parametrize(
    ("cuts", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
        (
            pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            ),
            "smollm",
        ),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(SPLITS["tekken"][0]), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            ),
            "tekken",
        ),
    ],
)
def test_pre_tokenizers_of_folders_are_recognised(cuts: Any, name: str) -> None:
    tokenizer = byte_level(CHATML)
    state = json.loads(tokenizer.core.to_str())
    state["model"]["ignore_merges"] = name == "tekken"
    tokenizer.core = Core.from_str(json.dumps(state))
    tokenizer.core.pre_tokenizer = cuts
    assert written(tokenizer)["tokenizer.ggml.pre"] == name


def test_sentencepiece_scores_give_the_same_pieces() -> None:
    for prefix in (True, False):
        tokenizer = tokenizer_of(PIECES | {"tokenizer.ggml.add_space_prefix": prefix}, "file")
        metadata = written(tokenizer)
        assert metadata["tokenizer.ggml.model"] == "llama"
        assert metadata["tokenizer.ggml.add_space_prefix"] is prefix
        assert metadata["tokenizer.ggml.tokens"] == PIECES["tokenizer.ggml.tokens"]
        assert np.array_equal(metadata["tokenizer.ggml.token_type"], PIECES["tokenizer.ggml.token_type"])
        again = tokenizer_of(metadata, "file")
        for text in HARD_TEXTS:
            assert again.encode(text, special=True) == tokenizer.encode(text, special=True)


def test_gemma_cuts_at_spaces_of_which_there_are_none() -> None:
    tokenizer = tokenizer_of(PIECES | {"tokenizer.ggml.add_space_prefix": False}, "file")
    tokenizer.core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    assert written(tokenizer)["tokenizer.ggml.add_space_prefix"] is False


def test_roles_template_and_ends_are_kept() -> None:
    tokenizer = byte_level(LLAMA3, end_ids=[4, 7])
    tokenizer.core.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer = Tokenizer(
        tokenizer.core, bos_id=1, eos_id=2, pad_id=0, unk_id=0, chat_template=LLAMA3, adds_bos=True, end_ids=[4, 7]
    )
    metadata, notes = tokenizer_metadata(tokenizer, tokenizer.highest_id + 3, "m.gguf")
    assert not notes
    assert metadata["tokenizer.ggml.eot_token_id"] == 7  # 4 is <|im_end|>, which llama.cpp knows by its name
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.token_type"].tolist()[-4:] == [NORMAL, USER_DEFINED, UNUSED, UNUSED]
    assert metadata["tokenizer.ggml.token_type"].tolist()[:10] == [CONTROL] * 10
    again = tokenizer_of(metadata, "file")
    assert again.end_ids == {2, 4, 7}
    assert again.chat_template == LLAMA3
    assert again.encode("a<tool>", special=True) == tokenizer.encode("a<tool>", special=True)


def test_what_llama_cpp_adds_is_noted() -> None:
    _, notes = tokenizer_metadata(byte_level(CHATML), byte_level().vocab_size, "m.gguf")
    assert notes == ["llama.cpp ends texts at <|im_end|> too, by the name"]


def test_further_templates_are_written_by_name() -> None:
    entries = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": LLAMA3}]
    tokenizer = byte_level(CHATML, config={"named_templates": entries})
    metadata = written(tokenizer)
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert metadata["tokenizer.chat_template.tool_use"] == LLAMA3
    assert metadata["tokenizer.chat_template"] == CHATML


def _lowercase(tokenizer: Tokenizer) -> None:
    tokenizer.core.normalizer = normalizers.Lowercase()


def _unknown_cuts(tokenizer: Tokenizer) -> None:
    split = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _other_step(tokenizer: Tokenizer) -> None:
    steps = [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.core.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _prefix(tokenizer: Tokenizer) -> None:
    tokenizer.core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _wordpiece(tokenizer: Tokenizer) -> None:
    tokenizer.core = Core(models.WordPiece(vocab={"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))


def _bytes_alone(tokenizer: Tokenizer) -> None:
    state = json.loads(tokenizer.core.to_str())
    state["model"]["merges"] = []
    tokenizer.core = Core.from_str(json.dumps(state))


def _strip(tokenizer: Tokenizer) -> None:
    tokenizer.core.add_special_tokens([AddedToken("<strip>", special=True, normalized=False, lstrip=True)])


def _ends(tokenizer: Tokenizer) -> None:
    tokenizer.end_ids |= {5, 6, 7}


def _closing(tokenizer: Tokenizer) -> None:
    tokenizer.core.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)])
    tokenizer.opening, tokenizer.closing = [], [2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_lowercase, "Lowercase"),
        (_unknown_cuts, "no name for the expressions"),
        (_other_step, "Whitespace"),
        (_prefix, "space before each text"),
        (_wordpiece, "WordPiece"),
        (_bytes_alone, "no merges"),
        (_strip, "'a <strip> b'"),
        (_ends, "would not end at"),
        (_closing, "around each text"),
    ],
)
def test_what_would_not_survive_is_refused(change: Callable[[Tokenizer], None], words: str) -> None:
    tokenizer = byte_level(CHATML)
    change(tokenizer)
    with pytest.raises(InputError, match=words) as caught:
        tokenizer_metadata(tokenizer, tokenizer.highest_id + 1, "m.gguf")
    assert caught.value.place == "m.gguf"
    assert "lmworks save" in caught.value.hint


def test_sentencepiece_that_differs_after_special_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="would not survive"):
        written(sentencepiece(legacy=False))
    bare = sentencepiece()
    state = json.loads(bare.core.to_str())
    state["model"]["byte_fallback"] = False
    bare.core = Core.from_str(json.dumps(state))
    with pytest.raises(InputError, match="single bytes"):
        written(bare)


def test_more_ids_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match=f"ids up to {ROWS - 1}, and its embedding {ROWS - 1} rows"):
        written(tokenizer_of(TRAINED, "file"), ROWS - 1)


def test_the_real_tokenizer_survives_from_file_and_folder(smollm2: Path, tmp_path: Path) -> None:
    source, tokenizer = GGUFFile(smollm2).metadata, read_tokenizer(smollm2)
    metadata = written(tokenizer, 49152)
    for key in ("tokens", "merges", "pre", "model", "eos_token_id", "bos_token_id"):
        assert metadata[f"tokenizer.ggml.{key}"] == source[f"tokenizer.ggml.{key}"]
    assert metadata["tokenizer.chat_template"] == source["tokenizer.chat_template"]
    tokenizer.save(tmp_path)
    opened = Tokenizer.open(tmp_path)
    opened.end_ids |= tokenizer.end_ids
    again = tokenizer_of(written(opened, 49152), "file")
    assert again.end_ids == tokenizer.end_ids
    text = Path(__file__).read_text(encoding="utf-8")
    for part in (*HARD_TEXTS, text, "<|im_start|>user\nhi<|im_end|>\n"):
        assert again.encode(part) == tokenizer.encode(part)
