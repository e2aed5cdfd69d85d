"""The tokenizer of a GGUF file, from its metadata alone.

Two kinds serve the families here: ``gpt2``, byte-level BPE with merges, whose pre-tokenizer goes by a name; and
``llama``, SentencePiece's BPE, whose merges follow from the scores of its pieces. Knows nothing of weights.
Names and expressions: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Core

from lmworks.base.errors import InputError
from lmworks.families.gguf_file import value_of
from lmworks.text.tokenizer import Tokenizer

LONGEST = 1000
"""Characters that a token may have: the time to find a piece's merges grows with their square."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type

# Expressions of pre-tokenizers: GPT-2's; Llama 3's and Qwen 2's, which differ in digits; Mistral's Tekken, which splits
# words before capital letters.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Each name's expressions: a text is cut by the first, what comes out by the second, and so on.
SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "phi-2"), (WORDS,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (r"\p{N}", WORDS)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx", "falcon3"), (LLAMA3.format(digits=r"\p{N}{1,3}"),)
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), (LLAMA3.format(digits=r"\p{N}"),)),
    "tekken": (TEKKEN,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")  # a word that is a token is not merged
BOS_BY_DEFAULT = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")
COMPOSED = ("qwen2", "deepseek-r1-qwen", "megrez")  # their texts are brought to Unicode's form NFC
PHI3 = ("phi-3", "phi3")  # in the lower-case name of a model: it reads no space after its special tokens ...
SPACED = ("<unk>", "<s>", "<|endoftext|>")  # ... but after these (llama.cpp has that by the name alone)
ENDINGS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")


def tokenizer_of(metadata: Mapping[str, Any], place: str) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes.

    Args:
        metadata: keys ``tokenizer.*``, and ``general.name``.
        place: the file, for errors.

    Raises:
        InputError: a kind of tokenizer or pre-tokenizer that is not known here, or parts that do not fit together.
    """
    kind = value_of(metadata, "tokenizer.ggml.model", str, place)
    tokens: list[str] = value_of(metadata, "tokenizer.ggml.tokens", list, place, [])
    if not tokens:
        raise InputError("the file has no tokenizer", place, "take a GGUF file of a whole language model")
    if (longest := max(map(len, tokens))) > LONGEST:
        raise InputError(f"its vocabulary holds a token of {longest:,} characters", place, "fetch the file again")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise InputError("its vocabulary holds the same token twice", place, "fetch or convert the file again")
    if kind == "gpt2":
        core, default_bos = _byte_level(metadata, vocabulary, place)
        defaults: dict[str, int] = {}
    elif kind == "llama":
        core, default_bos = _sentencepiece(metadata, tokens, vocabulary, place), True
        defaults = {"bos": 1, "eos": 2, "unknown": 0}
    else:
        raise InputError(f"a tokenizer of kind {kind!r} is not read here", place, "known: gpt2, llama")
    types = value_of(metadata, "tokenizer.ggml.token_type", np.ndarray, place, np.full(len(tokens), NORMAL)).tolist()
    if len(types) != len(tokens):
        raise InputError(f"it has {len(tokens)} tokens, but types of {len(types)}", place, "fetch the file again")
    roles = ("bos", "eos", "padding", "unknown", "mask")
    ids = {role: _id(metadata, role, len(tokens), place, defaults.get(role)) for role in roles}
    for index in (ids["bos"], ids["eos"]):
        if index is not None:
            types[index] = CONTROL  # old files do not say so
    strips = any(part in value_of(metadata, "general.name", str, place, "").lower() for part in PHI3)
    _add_tokens(core, tokens, types, strips)
    adds_bos = value_of(metadata, "tokenizer.ggml.add_bos_token", bool, place, default_bos) and ids["bos"] is not None
    return Tokenizer(
        core,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["padding"],
        unk_id=ids["unknown"],
        mask_id=ids["mask"],
        chat_template=value_of(metadata, "tokenizer.chat_template", str, place),
        adds_bos=adds_bos,
        end_ids=_end_ids(metadata, vocabulary, types, place),
    )


def _byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int], place: str) -> tuple[Core, bool]:
    """Byte-level BPE, and whether its texts begin with BOS by default."""
    name = value_of(metadata, "tokenizer.ggml.pre", str, place, "default")
    if name not in SPLITS:
        raise InputError(
            f"a pre-tokenizer named {name!r} is not known here", place, "known: " + ", ".join(sorted(SPLITS))
        )
    merges = [tuple(merge.split(" ", 1)) for merge in value_of(metadata, "tokenizer.ggml.merges", list, place, [])]
    try:
        core = Core(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=name in WHOLE_WORDS))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"its merges do not fit its vocabulary: {error}", place, "fetch the file again") from error
    if name in COMPOSED:
        core.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in SPLITS[name]]
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=_adds_space(metadata, False, place), use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    return core, name in BOS_BY_DEFAULT


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], vocabulary: dict[str, int], place: str) -> Core:
    scores = value_of(metadata, "tokenizer.ggml.scores", np.ndarray, place)
    if scores is None or len(scores) != len(tokens):
        raise InputError("its pieces have no scores", place, "fetch or convert the file again")
    unknown = _id(metadata, "unknown", len(tokens), place, 0)
    core = Core(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(tokens, vocabulary, scores),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback="<0x0A>" in vocabulary,
        )
    )
    spaced = normalizers.Replace(" ", "▁")
    adds_space = _adds_space(metadata, True, place)
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaced]) if adds_space else spaced
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if adds_space else steps)
    return core


def _merges(tokens: list[str], vocabulary: dict[str, int], scores: Any) -> list[tuple[str, str]]:
    """SentencePiece joins the pair that makes the piece of the highest score; as merges, best first.

    Several pairs can make one piece; the one with the earlier left part comes first among them.
    """
    order = sorted(range(len(tokens)), key=lambda index: -float(scores[index]))
    merges: list[tuple[str, str]] = []
    for index in order:
        token = tokens[index]
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _add_tokens(core: Core, tokens: list[str], types: list[int], strips: bool) -> None:
    """Add tokens that are found whole in any text: control ones are special, user-defined ones are text.

    Args:
        strips: whether special tokens take the spaces behind them (see :data:`PHI3`).
    """
    added = [
        AddedToken(token, special=kind != USER_DEFINED, normalized=False, rstrip=strips and token not in SPACED)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    core.add_tokens(added)


def _adds_space(metadata: Mapping[str, Any], default: bool, place: str) -> bool:
    """Whether a space is put before each text."""
    return value_of(metadata, "tokenizer.ggml.add_space_prefix", bool, place, default)


def _id(metadata: Mapping[str, Any], role: str, size: int, place: str, default: int | None = None) -> int | None:
    """The id of a token by its role, such as eos; None where the vocabulary of so many tokens has none."""
    index = value_of(metadata, f"tokenizer.ggml.{role}_token_id", int, place, default)
    return index if index is not None and 0 <= index < size else None


def _end_ids(metadata: Mapping[str, Any], vocabulary: dict[str, int], types: list[int], place: str) -> list[int]:
    """All tokens that end a turn or a text: those of the metadata, and control tokens with a known name."""
    role_ids = [_id(metadata, role, len(vocabulary), place) for role in ("eos", "eot", "eom")]
    named = [vocabulary[name] for name in ENDINGS if name in vocabulary]
    return [i for i in role_ids if i is not None] + [i for i in named if types[i] in (CONTROL, UNKNOWN)]
