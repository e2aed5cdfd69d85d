"""How a tokenizer is trained, and which special tokens each family's models expect. Imports no tokenizer library.

Also tells which kinds a GGUF file can carry. Knows nothing of texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, field_validator

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings

Kind = Literal["word", "char", "bpe", "byte-bpe", "wordpiece", "unigram"]
Style = Literal["gpt2", "qwen2", "llama", "gemma", "bert", "albert", "roberta", "bart", "marian", "t5"]

FAMILY_STYLES: dict[str, Style] = {
    **dict.fromkeys(("mistral", "phi3"), "llama"),
    **dict.fromkeys(("qwen3", "starcoder2"), "gpt2"),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text"), "gemma"),
    "distilbert": "bert",
    "xlm-roberta": "roberta",
    "lmworks-recurrent": "gpt2",
    "lmworks-convolutional": "bert",
    "lmworks-transformer": "gpt2",
}
"""Families whose special tokens are another style's; the other families have a style of their own name."""

DEFAULT_STYLES: dict[Kind, Style] = {
    "word": "bert",
    "char": "gpt2",
    "bpe": "llama",
    "byte-bpe": "gpt2",
    "wordpiece": "bert",
    "unigram": "t5",
}


class TokenizerSettings(Settings):
    """How a tokenizer is trained on a text."""

    kind: Kind = Field(
        "byte-bpe",
        description="word: split at white space; char; bpe: SentencePiece's; byte-bpe: GPT-2's; wordpiece; unigram.",
    )
    vocab_size: int | None = Field(
        None, gt=0, description="Ids in all, special tokens among them; word and char need none: all there are."
    )
    style: Style | None = Field(
        None, description="Whose special tokens it has; a family's name serves too. Default: by the kind."
    )
    lowercase: bool = Field(False, description="Lower-case texts; wordpiece then strips accents too, as BERT does.")
    min_frequency: int | None = Field(
        None, gt=0, description="What is rarer gets no entry of its own. Default: 1 for word and char, else 2."
    )
    byte_fallback: bool | None = Field(
        None, description="Write unknown characters as their bytes (256 entries). Default: for bpe alone."
    )
    sentinels: int = Field(100, ge=0, description="Style t5: how many <extra_id_n> stand at the end of the vocabulary.")
    limit: int | None = Field(None, gt=0, description="Train on the first so many characters alone.")

    @field_validator("style", mode="before")
    @classmethod
    def _style_of_family(cls, value: object) -> object:
        return FAMILY_STYLES.get(value, value) if isinstance(value, str) else value

    @property
    def falls_back(self) -> bool:
        """Whether unknown characters are written as their bytes."""
        return self.kind == "bpe" if self.byte_fallback is None else self.byte_fallback

    @property
    def rarest(self) -> int:
        """How often something must occur to get an entry."""
        return self.min_frequency or (1 if self.kind in ("word", "char") else 2)


@dataclass(frozen=True)
class Specials:
    """Special tokens of a style.

    Attributes:
        tokens: in the order of their ids, from 0 on.
        roles: role (bos, eos, pad, unk, mask, cls, sep) -> token.
        single: what stands around one text ``$A``.
        pair: what stands around two, ``$A`` and ``$B``.
        typed: whether the second text and what closes it are of token type 1.
        last: tokens at the end of the vocabulary, in the order of their ids.
    """

    tokens: tuple[str, ...]
    roles: dict[str, str]
    single: tuple[str, ...] = ("$A",)
    pair: tuple[str, ...] = ("$A", "$B")
    typed: bool = False
    last: tuple[str, ...] = field(default=())


_S_ROLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_ROBERTA = Specials(
    ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    {**_S_ROLES, "pad": "<pad>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"},
    ("<s>", "$A", "</s>"),
    ("<s>", "$A", "</s>", "</s>", "$B", "</s>"),
)
_CLS_SEP = {"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_CLS_A_SEP = (("[CLS]", "$A", "[SEP]"), ("[CLS]", "$A", "[SEP]", "$B", "[SEP]"))
_END = (("$A", "</s>"), ("$A", "</s>", "$B", "</s>"))
_END_ROLES = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}

STYLES: dict[Style, Specials] = {
    "gpt2": Specials(("<|endoftext|>",), {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "qwen2": Specials(("<|endoftext|>",), dict.fromkeys(("bos", "eos", "pad"), "<|endoftext|>")),
    "llama": Specials(("<unk>", "<s>", "</s>"), _S_ROLES, ("<s>", "$A"), ("<s>", "$A", "<s>", "$B")),
    "gemma": Specials(
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"},
        ("<bos>", "$A"),
        ("<bos>", "$A", "<bos>", "$B"),
    ),
    "bert": Specials(
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), {**_CLS_SEP, "pad": "[PAD]", "unk": "[UNK]"}, *_CLS_A_SEP, True
    ),
    "albert": Specials(
        ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), {**_CLS_SEP, "pad": "<pad>", "unk": "<unk>"}, *_CLS_A_SEP, True
    ),
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "marian": Specials(("</s>", "<unk>", "<pad>"), _END_ROLES, *_END),
    "t5": Specials(("<pad>", "</s>", "<unk>"), _END_ROLES, *_END),
}


def style_of(settings: TokenizerSettings) -> Style:
    """The style that the settings name, or that of their kind."""
    return settings.style or DEFAULT_STYLES[settings.kind]


def specials_of(settings: TokenizerSettings) -> Specials:
    """The special tokens that a tokenizer of these settings has.

    GPT-2's style knows no unknown token, because its bytes leave nothing unknown; kinds that need one get ``<unk>``.
    T5's sentinels close the vocabulary, ``<extra_id_0>`` last of all, as in the published models.
    """
    style = style_of(settings)
    specials = STYLES[style]
    tokens, roles = specials.tokens, specials.roles
    if "unk" not in roles and settings.kind != "byte-bpe":
        tokens, roles = (*tokens, "<unk>"), {**roles, "unk": "<unk>"}
    count = settings.sentinels if style == "t5" else 0
    last = tuple(f"<extra_id_{number}>" for number in reversed(range(count)))
    return Specials(tokens, roles, specials.single, specials.pair, specials.typed, last)


def check(settings: TokenizerSettings) -> None:
    """Refuse settings that do not go together.

    Raises:
        InputError: which one, and what to say instead.
    """
    kind = settings.kind
    if settings.vocab_size is None and kind not in ("word", "char"):
        raise InputError(f"kind {kind} needs the number of entries to learn", "vocab_size", "--vocab-size 8000")
    if settings.byte_fallback and kind not in ("bpe", "unigram"):
        hint = "leave it out" + (": byte-bpe is made of bytes anyway" if kind == "byte-bpe" else ", or choose kind bpe")
        raise InputError(f"kind {kind} cannot write unknown characters as bytes", "byte_fallback", hint)
    if style_of(settings) == "qwen2" and (kind != "byte-bpe" or settings.lowercase):
        fault = (
            "transformers reads every tokenizer of a Qwen2 as byte-level BPE that keeps its case, whatever is written"
        )
        raise InputError(fault, "kind", "--kind byte-bpe without --lowercase, or --style gpt2")
    if settings.min_frequency is not None and kind == "unigram":
        fault = "kind unigram weighs pieces by likelihood and knows no smallest frequency"
        raise InputError(fault, "min_frequency", "leave it out, or choose kind bpe")


def gguf_fault(settings: TokenizerSettings) -> str | None:
    """Why a GGUF file cannot carry such a tokenizer, with what to choose instead; None where it can.

    GGUF's tokenizers are gpt2 (byte-level BPE), llama (SentencePiece's BPE, which writes what it does not know as
    bytes), bert (WordPiece, with switches for case and accents) and t5 (Unigram without bytes); of them only bert can
    lower-case. Source: the names in gguf.constants, and llama.cpp's src/llama-vocab.cpp.
    """
    kind = settings.kind
    if kind in ("word", "char"):
        instead = "byte-bpe or wordpiece" if kind == "word" else "byte-bpe"
        return f"a GGUF file cannot carry a tokenizer of kind {kind}: choose {instead} if the model is to run as GGUF"
    if settings.lowercase and kind != "wordpiece":
        return f"a GGUF file cannot say that {kind} lower-cases texts: choose wordpiece, or leave lowercase out"
    if kind == "bpe" and not settings.falls_back:
        return "a GGUF file carries bpe only with its bytes: leave byte_fallback on, or choose byte-bpe"
    if kind == "unigram" and settings.falls_back:
        return "a GGUF file carries unigram only without bytes: leave byte_fallback off, or choose bpe"
    return None
