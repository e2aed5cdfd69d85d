"""Tokenizer: what it encodes, and that transformers opens what it saves to the same ids."""

import errno
import json
import os

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import CHATML, LLAMA2, SENTENCES, byte_level, sentencepiece
from tokenizers import processors

from lmworks.base.errors import InputError
from lmworks.text.tokenizer import Tokenizer

TEXTS = [*SENTENCES, "<|im_start|>user\nThe sky?<|im_end|>\n", "é 漢字 \t  x", "", " the", "\n\n"]


@pytest.mark.parametrize(
    "created",
    [
        byte_level(CHATML, pad_id=2),
        byte_level(None, adds_bos=True),
        sentencepiece(LLAMA2),
        sentencepiece(legacy=False),
        byte_level(CHATML, config={"model_max_length": 77, "add_bos_token": True}, adds_bos=True),
    ],
)
@pytest.mark.parametrize("model_type", [None, "llama", "qwen2"])
def test_transformers_opens_what_we_save_to_the_same_ids(created, model_type, tmp_path):
    from transformers import AutoTokenizer

    created.save(tmp_path)
    if model_type == "qwen2" and not created._byte_level:
        pytest.skip("transformers gives every Qwen2 a byte-level core of its own making")
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.open(tmp_path)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == created.encode(text, special=True) == again.encode(text, special=True)
        assert theirs(text, add_special_tokens=False)["input_ids"] == created.encode(text) == again.encode(text)
    for role in ("bos", "eos", "pad", "unk", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(created, f"{role}_id") == getattr(again, f"{role}_id")
    assert theirs.chat_template == created.chat_template == again.chat_template
    assert again.adds_bos == created.adds_bos
    assert again.end_ids == created.end_ids


def bpe_of(*merges: tuple[str, str]) -> Tokenizer:
    pieces = dict.fromkeys(part for pair in merges for part in (*pair, "".join(pair)))
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(vocab, list(merges))))


@pytest.mark.parametrize(
    "created",
    [
        byte_level(CHATML, pad_id=2),
        sentencepiece(LLAMA2),
        bpe_of(("a", "b"), ("ab", "c")),
        bpe_of(("a", " b"), ("a b", "c")),  # "a  b" would be three pieces
        bpe_of(("#version", "a"), ("b", "c")),  # in a list of texts, "#version a" is a remark
    ],
)
def test_a_compact_file_holds_the_same(created, tmp_path):
    created.save(tmp_path, compact=True)
    again = Tokenizer.open(tmp_path)
    assert again.core.to_str() == created.core.to_str()
    assert len((tmp_path / "tokenizer.json").read_text(encoding="utf-8")) <= len(created.core.to_str())


def test_we_open_what_transformers_saves(tmp_path):
    from transformers import PreTrainedTokenizerFast

    created = byte_level(CHATML)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=created.core, bos_token="<s>", eos_token="<|im_end|>", pad_token="</s>", chat_template=CHATML
    )
    theirs.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    ours = Tokenizer.open(tmp_path)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 4, 2)
    assert ours.end_ids == {4, 2, 7}
    assert ours.chat_template == CHATML
    for text in TEXTS:
        assert ours.encode(text, special=True) == theirs(text)["input_ids"]


def test_adds_bos_is_settable_and_keeps_what_comes_after():
    created = byte_level()
    created.core.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)])
    with_bos = Tokenizer(created.core, bos_id=1, eos_id=2, adds_bos=True)
    assert (with_bos.opening, with_bos.closing) == ([1], [2])
    assert with_bos.encode("The", special=True) == [1, *with_bos.encode("The"), 2]
    assert with_bos.encode_prompt("The") == [1, *with_bos.encode("The")]
    without = Tokenizer(with_bos.core, bos_id=1, eos_id=2, adds_bos=False)
    assert without.encode("The", special=True) == [*without.encode("The"), 2]


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path):
    created = byte_level()
    created.core.enable_truncation(2)
    created.core.enable_padding(length=8)
    (tmp_path / "tokenizer.json").write_text(created.core.to_str())
    assert Tokenizer.open(tmp_path).encode(SENTENCES[0]) == byte_level().encode(SENTENCES[0])


@pytest.mark.parametrize("legacy", [True, False])
def test_a_piece_that_continues_a_text_gets_no_space(legacy):
    created = sentencepiece(legacy=legacy)
    whole = created.encode("the sky is")
    assert created.encode("the sky") + created.encode(" is", after="the sky") == whole
    assert created.decode(created.encode("is", after="th")) == "is"
    assert created.encode("is") != created.encode("is", after="th") == [created.core.token_to_id("is")]
    assert created.encode_many(["the sky", " is"], ["", "the sky"]) == [created.encode("the sky"), whole[-1:]]


@given(st.lists(st.text(max_size=12), max_size=6), st.lists(st.sampled_from(["", "x", "</s>", "is "]), max_size=6))
def test_many_at_once_is_one_by_one(texts, befores):
    befores = (befores + [""] * len(texts))[: len(texts)]
    for created in (BYTES, PIECES):
        expected = [created.encode(text, after=before) for text, before in zip(texts, befores, strict=True)]
        assert created.encode_many(texts, befores) == expected


BYTES, PIECES = byte_level(), sentencepiece()


@given(st.text(max_size=30))
def test_pieces_join_to_the_text(text):
    ids = BYTES.encode(text)
    pieces = "".join(BYTES.piece(token) for token in ids)
    assert BYTES.decode(ids, skip_special=False) == text
    if "\\x" not in pieces:
        assert pieces == text


def test_pieces_show_split_characters_as_bytes():
    assert [BYTES.piece(token) for token in BYTES.encode("é")] == ["\\xc3", "\\xa9"]
    assert PIECES.piece(PIECES.core.token_to_id("<0x0A>")) == "\n"
    assert PIECES.piece(PIECES.core.token_to_id("▁the")) == " the"
    assert BYTES.piece(4) == "<|im_end|>"


def test_a_token_that_only_the_config_knows_is_added(tmp_path):
    created = byte_level()
    created.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    size = created.vocab_size
    config["added_tokens_decoder"] = {str(size): {"content": "<|new|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.open(tmp_path).encode("<|new|>") == [size]
    config["added_tokens_decoder"] = {str(size + 5): {"content": "<|new|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="leaves no room"):
        Tokenizer.open(tmp_path)


def test_of_named_templates_the_default_is_taken_and_all_are_saved(tmp_path):
    created = byte_level()
    created.save(tmp_path)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHATML}]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"chat_template": named}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    opened = Tokenizer.open(tmp_path)
    assert opened.chat_template == CHATML
    opened.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["chat_template"] == named


@pytest.mark.parametrize(("content", "fault"), [(None, "no tokenizer.json"), ("{", "not a tokenizer")])
def test_what_cannot_be_opened_is_said(content, fault, tmp_path):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=fault):
        Tokenizer.open(tmp_path)


def test_a_save_that_fails_leaves_the_files_that_were_there(tmp_path, monkeypatch):
    byte_level(CHATML).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no room left on the disk"):
        sentencepiece(LLAMA2).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
