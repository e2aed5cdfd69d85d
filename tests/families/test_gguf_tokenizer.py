"""Tokenizers from GGUF metadata give the ids that transformers, or the algorithm as written down, gives."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmworks.base.errors import InputError
from lmworks.families.gguf_tokenizer import BYTE, CONTROL, NORMAL, SPLITS, UNKNOWN, USER_DEFINED, tokenizer_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "tokenizers"
TEXTS = [
    "The sky is blue.",
    "It's 12345 o'clock, we'll see: x+=1000;\n\n\tdef f(a, b):\n    return a**b  # fine\r\n",
    "  two  spaces \n and  日本語 héllo 👋🏽 ǅ ² ٣٤ É",
    "",
    " ",
    "THEY'LL I'M camelCaseWord HTTPServer ...!? (a) [b] {c} ~|^",
]
texts = some.one_of(some.text(max_size=40), some.text("abcé' \n\t0123.,!?A_日", max_size=40))


def trained() -> dict[str, Any]:
    """A small byte-level vocabulary with its merges, as GGUF metadata."""
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    state = json.loads(core.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*tokens, "<|im_start|>", "<|im_end|>", "<tool>"],
        "tokenizer.ggml.token_type": np.array([NORMAL] * len(tokens) + [CONTROL, CONTROL, USER_DEFINED]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens) + 1,
    }


TRAINED = trained()


def reference(cuts: pre_tokenizers.PreTokenizer, ignore_merges: bool = False) -> Core:
    """A tokenizer of the same vocabulary with a pre-tokenizer that others wrote."""
    vocabulary = {token: index for index, token in enumerate(TRAINED["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in TRAINED["tokenizer.ggml.merges"]]
    core = Core(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    core.pre_tokenizer = cuts
    core.add_special_tokens(["<|im_start|>", "<|im_end|>", "<tool>"])  # hypothesis tries the words of this file too
    return core


def smollm() -> Core:
    """The pre-tokenizer in SmolLM2's tokenizer.json."""
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return reference(pre_tokenizers.Sequence(parts))


def llama3() -> Core:
    """What transformers makes of Llama 3's tiktoken file."""
    import inspect

    from tokenizers import Regex
    from transformers.convert_slow_tokenizer import TikTokenConverter

    pattern = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return reference(pre_tokenizers.Sequence(parts), ignore_merges=True)


def qwen2() -> Core:
    from transformers import Qwen2Tokenizer

    theirs = Qwen2Tokenizer().backend_tokenizer
    core = reference(theirs.pre_tokenizer)
    core.normalizer = theirs.normalizer
    return core


def gpt2() -> Core:
    from transformers import GPT2Tokenizer

    return reference(GPT2Tokenizer().backend_tokenizer.pre_tokenizer)


REFERENCES = {"smollm": smollm(), "llama-bpe": llama3(), "qwen2": qwen2(), "gpt-2": gpt2()}


@pytest.mark.parametrize("name", REFERENCES)
def test_byte_level_ids_are_theirs(name: str) -> None:
    ours = tokenizer_of(TRAINED | {"tokenizer.ggml.pre": name}, "file")

    @settings(max_examples=150, deadline=None)
    @given(texts)
    def same(text: str) -> None:
        assert ours.encode(text) == REFERENCES[name].encode(text, add_special_tokens=False).ids

    for text in TEXTS:
        assert ours.encode(text) == REFERENCES[name].encode(text, add_special_tokens=False).ids
    same()


@pytest.mark.parametrize("name", SPLITS)
def test_every_text_comes_back(name: str) -> None:
    import unicodedata

    tokenizer = tokenizer_of(TRAINED | {"tokenizer.ggml.pre": name}, "file")
    for text in [*TEXTS, "<|im_start|>user\nhi<tool><|im_end|>\n"]:
        assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == unicodedata.normalize("NFC", text)


def test_special_tokens_and_roles() -> None:
    tokenizer = tokenizer_of(TRAINED | {"tokenizer.chat_template": "{{ messages }}"}, "file")
    start, end, tool = (tokenizer.core.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>", "<tool>"))
    assert tokenizer.encode("<|im_start|><tool><|im_end|>") == [start, tool, end]
    assert tokenizer.decode([start, tool, end]) == "<tool>"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (start, end, None)
    assert tokenizer.end_ids == {end}
    assert tokenizer.chat_template == "{{ messages }}"
    assert not tokenizer.adds_bos
    added = tokenizer_of(TRAINED | {"tokenizer.ggml.add_bos_token": True}, "file")
    assert added.encode("a", special=True)[0] == start
    assert tokenizer_of(TRAINED | {"tokenizer.ggml.pre": "llama-bpe"}, "file").adds_bos


def test_real_gpt2_vocabulary() -> None:
    if not (SHARED / "gpt2_vocab.json").is_file():
        pytest.skip(f"GPT-2's vocabulary is not in {SHARED.name}/ beside the repository")
    from transformers import GPT2Tokenizer

    vocabulary = json.loads((SHARED / "gpt2_vocab.json").read_text())
    merges = (SHARED / "gpt2_merges.txt").read_text().splitlines()
    merges = [line for line in merges if not line.startswith("#version") and line]
    theirs = GPT2Tokenizer(vocab=vocabulary, merges=[tuple(line.split(" ")) for line in merges])
    ours = tokenizer_of(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": sorted(vocabulary, key=vocabulary.__getitem__),
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.eos_token_id": vocabulary["<|endoftext|>"],
        },
        "file",
    )
    for text in [*TEXTS, Path(__file__).read_text(encoding="utf-8")]:
        assert ours.encode(text) == theirs(text).input_ids


def pieces() -> dict[str, Any]:
    """A small SentencePiece-like vocabulary: bytes, characters, and pieces whose score falls with their rank."""
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.train_from_iterator(TEXTS[:2] * 3, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    state = json.loads(core.to_str())["model"]["vocab"]
    learned = sorted(state, key=state.get)
    start = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*start, *learned],
        "tokenizer.ggml.scores": np.array([0.0] * len(start) + [-float(rank) for rank in range(len(learned))]),
        "tokenizer.ggml.token_type": np.array(
            [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(learned), np.int32
        ),
    }


PIECES = pieces()


def by_score(text: str) -> list[int]:
    """SentencePiece's BPE as llama.cpp tells it: join the neighbours that make the best piece, the leftmost first."""
    tokens, scores = PIECES["tokenizer.ggml.tokens"], PIECES["tokenizer.ggml.scores"]
    rank = {token: (-scores[index], index) for index, token in enumerate(tokens) if index > 258}
    parts = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        joined = [(rank[a + b][0], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in rank]
        if not joined:
            break
        at = min(joined)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ids: list[int] = []
    for part in parts:
        ids += [rank[part][1]] if part in rank else [3 + byte for byte in part.encode()]
    return ids


@settings(max_examples=200, deadline=None)
@given(some.text("The skyblu.Its12345o'clck,weél 日\n", max_size=40))
def test_sentencepiece_ids_are_those_of_the_algorithm(text: str) -> None:
    assert SPM.encode(text) == by_score(text)
    assert SPM.decode(SPM.encode(text)) == text


SPM = tokenizer_of(PIECES, "file")


def test_sentencepiece_roles() -> None:
    assert (SPM.bos_id, SPM.eos_id, SPM.unk_id) == (1, 2, 0)
    assert SPM.adds_bos
    assert SPM.encode("blue", special=True)[0] == 1
    bare = tokenizer_of(PIECES | {"tokenizer.ggml.add_space_prefix": False}, "file")
    assert bare.decode(bare.encode(" blue")) == " blue"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.ggml.model": "bert"}, "bert"),
        ({"tokenizer.ggml.pre": "klingon"}, "klingon"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "twice"),
        ({"tokenizer.ggml.merges": ["q☃ z"]}, "merges"),
        ({"tokenizer.ggml.token_type": np.array([1])}, "types"),
        ({"tokenizer.ggml.eos_token_id": "x"}, "eos_token_id"),
    ],
)
def test_what_cannot_be_read_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenizer_of(TRAINED | change, "file")
