"""A tokenizer -> the metadata of a GGUF file: the way back from what families/gguf_tokenizer reads.

llama.cpp knows the pre-tokenizer of a byte-level tokenizer by a name, and SentencePiece's merges by the scores of its
pieces; what else a tokenizer.json may have is not in such a file. So the metadata is made into a tokenizer again, by
the code that opens GGUF files, and compared with the one that it was made from.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.families.gguf_tokenizer import (
    BYTE,
    COMPOSED,
    CONTROL,
    ENDINGS,
    NORMAL,
    PHI3,
    SPLITS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    WHOLE_WORDS,
    WORDS,
    tokenizer_of,
)
from lmworks.text.datasets import general_text
from lmworks.text.tokenizer import Tokenizer

AS_FOLDER = "lmworks save writes the model as a Hugging Face folder, with its tokenizer.json"
ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "mask": "mask", "cls": "cls"}
ROLES |= {"sep": "seperator"}  # llama.cpp's spelling
# Names at which llama.cpp ends a text whatever the metadata says (src/llama-vocab.cpp).
NAMED_ENDS: tuple[str, ...] = (
    *ENDINGS,
    "</s>",
    "<eos>",
    "[EOS]",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<end_of_utterance>",
    "<turn|>",
)
NAMED_ENDS += ("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[")
SAMPLE = 20_000  # characters of prose that are compared
HARD_TEXTS = (
    "",
    " ",
    "The sky is blue.",
    "  two  spaces,\ttabs\t\tand \n\n line ends \r\n\r\n   ",
    "0 12 345 6789 1234567 3.14 1,000,000 ² ½ ٣٤ 零",
    "It's I'm we'll THEY'LL o'clock don't 'tis",
    "def f(a, b):\n    return a**b  # x+=1; !? ... (a)[b]{c} ~|^ <<>>\n",
    "日本語のテキスト 中文测试，한국어。",
    "👋🏽 🙂🇺🇳 👩‍👩‍👧‍👦 ﬁ Ａ ǅ",
    "é e\u0301 Å A\u030a ñ n\u0303 \u1100\u1161",  # composed and not: what form NFC changes
    "camelCaseWord HTTPServer ÀÉ straße İi",
    "\u200b\ufeff\x00\x7f",
)


def tokenizer_metadata(tokenizer: Tokenizer, rows: int, place: str, name: str = "") -> tuple[dict[str, Any], list[str]]:
    """The keys ``tokenizer.*`` of a GGUF file, and notes about them.

    Args:
        tokenizer: with its template and the ids that end a text.
        rows: of the model's embedding; those without a token get an unused one.
        place: the file, for errors.
        name: the file's general.name.

    Raises:
        InputError: it is of a kind that is not written here, or something of it would not survive: says what.
    """
    state = json.loads(tokenizer.core.to_str())
    tokens, types = _tokens(tokenizer, rows, place)
    if state["model"]["type"] != "BPE":
        fault = f"its tokenizer is of kind {state['model']['type']}, and BPE alone is written into GGUF files here"
        raise InputError(fault, place, AS_FOLDER)
    if _has_step(state["pre_tokenizer"], "ByteLevel"):
        metadata = _byte_level(state, place)
    else:
        metadata = _sentencepiece(state, tokens, types, tokenizer.unk_id, place)
    metadata |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": np.array(types, np.int32)}
    for role, title in ROLES.items():
        if (index := getattr(tokenizer, f"{role}_id")) is not None:
            metadata[f"tokenizer.ggml.{title}_token_id"] = index
    metadata["tokenizer.ggml.add_bos_token"] = tokenizer.adds_bos
    for role, index in zip(("eot", "eom"), _further_ends(tokenizer, tokens, types), strict=False):
        metadata[f"tokenizer.ggml.{role}_token_id"] = index
    metadata |= _templates(tokenizer)
    return metadata, _check(tokenizer, {**metadata, "general.name": name}, place)


def model_name(name: str, tokenizer: Tokenizer) -> str:
    """The name under which llama.cpp reads the tokenizer as it is: by that alone it knows that Phi-3's special tokens
    take the spaces after them, and those of no other model do."""
    takes_spaces = any(token.rstrip for token in tokenizer.core.get_added_tokens_decoder().values())
    if takes_spaces:
        return name if any(part in name.lower() for part in PHI3) else f"{name} (Phi-3)"
    return re.sub("|".join(PHI3), "Phi 3", name, flags=re.IGNORECASE)


def _tokens(tokenizer: Tokenizer, rows: int, place: str) -> tuple[list[str], list[int]]:
    """Text and type of each row's token: special ones are control, others that were added user-defined."""
    if tokenizer.highest_id >= rows:
        fault = f"its tokenizer has ids up to {tokenizer.highest_id}, and its embedding {rows} rows"
        raise InputError(f"{fault}; llama.cpp needs a row for each", place, AS_FOLDER)
    vocabulary = tokenizer.core.get_vocab(with_added_tokens=True)
    by_id = {index: token for token, index in vocabulary.items()}
    added, specials = tokenizer.added, tokenizer.specials
    tokens, types = [], []
    for index in range(rows):
        token = by_id.get(index)
        if token is None:
            token = f"[PAD{index}]"
            while token in vocabulary:
                token += "_"
            kind = UNUSED
        elif token in added:
            kind = CONTROL if token in specials else USER_DEFINED
        else:
            kind = NORMAL
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _byte_level(state: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Byte-level BPE: the name of its pre-tokenizer, and its merges."""
    steps = _leaves(state["normalizer"])
    if strange := [step["type"] for step in steps if step["type"] != "NFC"]:
        raise InputError(f"its tokenizer changes texts by {strange[0]}, which GGUF files do not say", place, AS_FOLDER)
    cuts = _leaves(state["pre_tokenizer"])
    if any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in cuts):
        raise InputError("its tokenizer puts a space before each text, which llama.cpp does not", place, AS_FOLDER)
    expressions = tuple(expression for step in cuts for expression in _expressions(step, place))
    whole_words = bool(state["model"].get("ignore_merges"))
    for name, known in SPLITS.items():
        if known == expressions and (name in COMPOSED, name in WHOLE_WORDS) == (bool(steps), whole_words):
            break
    else:
        fault = "llama.cpp has no name for the expressions by which its tokenizer cuts texts"
        raise InputError(f"{fault}: {' then '.join(expressions) or 'none'}", place, AS_FOLDER)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"]]
    if not merges:
        raise InputError("its tokenizer has no merges, without which llama.cpp opens none", place, AS_FOLDER)
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.merges": merges}


def _expressions(step: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """The expressions of one step of a pre-tokenizer; each cuts what the one before left."""
    kind = step["type"]
    if kind == "ByteLevel":
        return (WORDS,) if step["use_regex"] else ()
    if kind == "Digits":
        return (r"\p{N}",) if step["individual_digits"] else (r"\p{N}+",)
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"] and "Regex" in step["pattern"]:
        return (step["pattern"]["Regex"],)
    raise InputError(f"its tokenizer cuts texts by a step {kind} that llama.cpp has no name for", place, AS_FOLDER)


def _sentencepiece(
    state: Mapping[str, Any], tokens: list[str], types: list[int], unknown: int | None, place: str
) -> dict[str, Any]:
    """SentencePiece's BPE: a score for each piece, higher for earlier merges. Sets the types of bytes and of the
    unknown token in ``types``."""
    normalizers, cuts = _leaves(state["normalizer"]), _leaves(state["pre_tokenizer"])
    for step in (*normalizers, *cuts):
        # Gemma's cuts at spaces, of which its normalizer has left none
        at_spaces = step["type"] == "Split" and step["pattern"] == {"String": " "}
        if step["type"] not in ("Prepend", "Replace", "Metaspace") and not at_spaces:
            fault = f"its tokenizer has a step {step['type']}, which GGUF files do not say"
            raise InputError(fault, place, AS_FOLDER)
    numbers = {token: index for index, token in enumerate(tokens)}
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    if not state["model"].get("byte_fallback") or any(token not in numbers for token in byte_tokens):
        fault = "its tokenizer has no tokens of single bytes, without which llama.cpp cannot encode every text"
        raise InputError(fault, place, AS_FOLDER)
    for token in byte_tokens:
        types[numbers[token]] = BYTE
    if unknown is not None:
        types[unknown] = UNKNOWN
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in state["model"]["merges"])
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    # pieces that no pair makes (characters, bytes, special tokens) get the lowest scores, which nothing reads
    scores = [-float(ranks.get(token, len(ranks) + index)) for index, token in enumerate(tokens)]
    prefix = any(
        step["type"] == "Prepend" or step.get("prepend_scheme", "never") != "never" for step in normalizers + cuts
    )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _further_ends(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> list[int]:
    """Ids that end a text beside EOS and those that llama.cpp knows by their names."""
    named = {i for i, token in enumerate(tokens) if token in ENDINGS and types[i] in (CONTROL, UNKNOWN)}
    return sorted(tokenizer.end_ids - named - {tokenizer.eos_id})


def _templates(tokenizer: Tokenizer) -> dict[str, Any]:
    """The chat template, and further ones that the tokenizer came with, by name."""
    keys: dict[str, Any] = {}
    if tokenizer.chat_template:
        keys["tokenizer.chat_template"] = tokenizer.chat_template
    named = {entry["name"]: entry["template"] for entry in tokenizer.config.get("named_templates") or []}
    if further := {name: template for name, template in named.items() if name != "default"}:
        keys["tokenizer.chat_templates"] = list(further)
        keys |= {f"tokenizer.chat_template.{name}": template for name, template in further.items()}
    return keys


def _check(tokenizer: Tokenizer, metadata: Mapping[str, Any], place: str) -> list[str]:
    """Compare a tokenizer with what its metadata is read as; notes about what is more there.

    Raises:
        InputError: names the first difference.
    """
    again = tokenizer_of(metadata, place)
    if fault := _difference(tokenizer, again) or _difference_of_texts(tokenizer, again):
        raise InputError(f"its tokenizer would not survive in a GGUF file: {fault}", place, AS_FOLDER)
    more = [name for name in NAMED_ENDS if tokenizer.core.token_to_id(name) not in (None, *tokenizer.end_ids)]
    return [f"llama.cpp ends texts at {', '.join(more)} too, by the name"] if more else []


def _difference(tokenizer: Tokenizer, again: Tokenizer) -> str:
    """What differs in vocabulary, special tokens, template and ends; empty where nothing does."""
    for token, index in tokenizer.core.get_vocab(with_added_tokens=True).items():
        if again.core.token_to_id(token) != index:
            return f"the token {token!r} would have another id than {index}"
    for title in ("specials", "added"):
        here, there = getattr(tokenizer, title), getattr(again, title)
        if strange := sorted(here.items() ^ there.items()):
            return f"the token {strange[0][0]!r} would {'become' if strange[0][0] in there else 'be no more'} special"
    for role in ("bos", "eos", "pad", "unk", "mask"):
        here, there = getattr(tokenizer, f"{role}_id"), getattr(again, f"{role}_id")
        if here != there:
            return f"its {role} token would be {there}, not {here}"
    if (tokenizer.opening, tokenizer.closing) != (again.opening, again.closing):
        names = " ... ".join(", ".join(map(tokenizer.piece, ids)) for ids in (tokenizer.opening, tokenizer.closing))
        return f"what it puts around each text would be lost: {names}"
    if (tokenizer.chat_template or None) != again.chat_template:
        return "its chat template would be another"
    if lost := sorted(tokenizer.end_ids - again.end_ids):
        return f"texts would not end at {', '.join(map(tokenizer.piece, lost))}"
    return ""


def _difference_of_texts(tokenizer: Tokenizer, again: Tokenizer) -> str:
    """The first text that would become other ids, or ids another text; empty where none does."""
    texts = [*HARD_TEXTS, *(text for token in tokenizer.added for text in (token, f"a {token} b", f"a{token}b"))]
    texts += _texts_of_tokens(tokenizer)
    with contextlib.suppress(InputError):  # this Python has no documentation
        texts += general_text(SAMPLE)
    here, there = (each.core.encode_batch_fast(texts, add_special_tokens=False) for each in (tokenizer, again))
    decoded = (each.core.decode_batch([encoding.ids for encoding in here]) for each in (tokenizer, again))
    for text, ours, theirs, back, back_there in zip(texts, here, there, *decoded, strict=True):
        shown = repr(text if len(text) <= 60 else f"{text[:57]}...")
        if ours.ids != theirs.ids:
            at = next((i for i, (a, b) in enumerate(zip(ours.ids, theirs.ids, strict=False)) if a != b), 0)
            pieces, others = (list(map(tokenizer.piece, each.ids[at : at + 4])) for each in (ours, theirs))
            return f"in the text {shown} {pieces} would be {others}"
        if back != back_there:
            return f"the ids of {shown} would give the text {back_there[:60]!r}"
    return ""


def _texts_of_tokens(tokenizer: Tokenizer) -> list[str]:
    """The text of each token of the vocabulary."""
    ids = sorted(tokenizer.core.get_vocab(with_added_tokens=True).values())
    return tokenizer.core.decode_batch([[index] for index in ids], skip_special_tokens=False)


def _has_step(part: Mapping[str, Any] | None, kind: str) -> bool:
    return any(step["type"] == kind for step in _leaves(part))


def _leaves(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those of sequences one by one."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner: Iterable[Mapping[str, Any]] = part.get("normalizers") or part.get("pretokenizers") or []
    return [leaf for step in inner for leaf in _leaves(step)]
