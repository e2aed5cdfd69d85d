"""Learned pieces and a family's special tokens -> a tokenizer of the `tokenizers` library. Learns nothing itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Core

from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_settings import Specials, TokenizerSettings, style_of

ANY_CHARACTER = r"[\s\S]"
QWEN2_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2 cuts texts: digits one by one, line ends with what stands before them."""


class LearnedVocabulary(NamedTuple):
    """What is learned from a text.

    Attributes:
        pieces: entries in the order of their ids, without special tokens.
        scores: their log-probabilities, for kind unigram alone.
        merges: pairs of pieces in the order in which they are joined.
        as_bytes: characters of the text that have no entry and are written as their bytes.
    """

    pieces: list[str]
    scores: list[float]
    merges: list[tuple[str, str]]
    as_bytes: tuple[str, ...] = ()


def prepare(core: Core, settings: TokenizerSettings) -> None:
    """How texts are normalized and cut, and how pieces become text again."""
    steps: list[Any] = [normalizers.Lowercase()] if settings.lowercase and settings.kind != "wordpiece" else []
    if settings.kind == "word":
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif settings.kind == "char":
        core.pre_tokenizer = pre_tokenizers.Split(Regex(ANY_CHARACTER), "isolated")
        core.decoder = decoders.Fuse()
    elif settings.kind == "byte-bpe":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if style_of(settings) == "qwen2":
            steps = [normalizers.NFC()]
            cut = pre_tokenizers.Split(Regex(QWEN2_CUTS), "isolated")
            unite = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            core.pre_tokenizer = pre_tokenizers.Sequence([cut, unite])
        core.decoder = decoders.ByteLevel()
    elif settings.kind == "wordpiece":
        steps = [normalizers.BertNormalizer(lowercase=settings.lowercase)]
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
    else:  # spaces become a sign of their own, and one stands before each text
        steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        bytes_back = [decoders.ByteFallback()] if settings.falls_back else []
        back = [decoders.Replace("▁", " "), *bytes_back, decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        core.decoder = decoders.Sequence(back)
    if steps:
        core.normalizer = steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


def assemble(learned: LearnedVocabulary, settings: TokenizerSettings, specials: Specials) -> Tokenizer:
    """The tokenizer: special tokens first, then what was learned, then the sentinels."""
    tokens = [*specials.tokens, *(piece for piece in learned.pieces if piece not in specials.tokens), *specials.last]
    ids = {token: number for number, token in enumerate(tokens)}
    unknown = specials.roles.get("unk")
    if settings.kind in ("word", "char"):
        model: Any = models.WordLevel(vocab=ids, unk_token=unknown)
    elif settings.kind == "byte-bpe":
        model = models.BPE(vocab=ids, merges=learned.merges)
    elif settings.kind == "bpe":
        options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": settings.falls_back}
        model = models.BPE(vocab=ids, merges=learned.merges, **options)
    elif settings.kind == "wordpiece":
        model = models.WordPiece(vocab=ids, unk_token=unknown)
    else:
        scores = dict(zip(learned.pieces, learned.scores, strict=True))
        listed = [(token, scores.get(token, 0.0)) for token in tokens]
        model = models.Unigram(listed, ids[unknown or ""], settings.falls_back)
    core = Core(model)
    prepare(core, settings)
    mask = specials.roles.get("mask")
    spaced = settings.kind in ("bpe", "byte-bpe", "unigram")  # there the space belongs to the word that is hidden
    core.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=spaced and token == mask)
            for token in (*specials.tokens, *specials.last)
        ]
    )
    _add_frame(core, settings, specials, ids)
    inputs = ["input_ids", *(["token_type_ids"] if specials.typed else []), "attention_mask"]
    config: dict[str, Any] = {"model_input_names": inputs}
    if specials.last:
        config["additional_special_tokens"] = list(reversed(specials.last))
    roles: dict[str, Any] = {f"{role}_id": ids[token] for role, token in specials.roles.items()}
    return Tokenizer(core, config=config, **roles)


def _add_frame(core: Core, settings: TokenizerSettings, specials: Specials, ids: dict[str, int]) -> None:
    """What stands around one text and around two."""
    if specials.single == ("$A",):
        if settings.kind == "byte-bpe":
            core.post_processor = processors.ByteLevel(trim_offsets=False)
        return
    second = specials.pair.index("$B")
    pair = [
        f"{part}:{int(specials.typed and (place > second or part == '$B'))}" for place, part in enumerate(specials.pair)
    ]
    named = sorted({(token, ids[token]) for token in (*specials.single, *specials.pair) if token in ids})
    core.post_processor = processors.TemplateProcessing(" ".join(specials.single), " ".join(pair), named)
