"""Text -> a tokenizer: word, character, BPE, byte-level BPE, WordPiece, Unigram, with a family's special tokens.

The `tokenizers` library learns the pieces; from them a core is built anew, so that the same text and settings give the
same ids on every run (some of the library's trainers walk through hash tables in an order that changes). Knows nothing
of rows and models.

BPE: Sennrich et al. 2016; byte-level: Radford et al. 2019; WordPiece: Schuster and Nakajima 2012; Unigram: Kudo 2018.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.text.assemble_tokenizer import LearnedVocabulary, assemble, prepare
from lmworks.text.plain_text import check_text
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_settings import Specials, TokenizerSettings, check, gguf_fault, specials_of, style_of

RUNS = r"[\s▁]{2,}|▁?[\p{L}\p{M}]+|▁?\p{N}+|▁?[^▁\s\p{L}\p{M}\p{N}]+|▁|\s"
"""Where pieces of bpe and unigram may not cross while they are learnt: words, numbers, other signs, white space."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
EVERYTHING = 1 << 40
GRAIN = 4096
PIECE = 10_000
"""Characters of one piece of text handed to the library, which spreads pieces over the cores."""
SAMPLE = 1_000_000
GRADE = 1000
"""Sizes that are proposed are multiples of it."""

Say = Callable[[str], None]


class TooManyEntries(InputError):
    """More entries were asked for than the text gave; ``filled`` is how many it did."""

    def __init__(self, fault: str, place: str, hint: str, filled: int) -> None:
        super().__init__(fault, place, hint)
        self.filled = filled


class TrainedTokenizer(NamedTuple):
    """A tokenizer, and what a person should know of it."""

    tokenizer: Tokenizer
    notes: list[str]


def train(
    texts: Iterable[str], settings: TokenizerSettings, style: str | None = None, say: Say | None = None
) -> TrainedTokenizer:
    """Train a tokenizer.

    Args:
        texts: what to learn from.
        settings: the kind, the size and the rest.
        style: a family's name (or a style's): whose special tokens it gets where the settings name none.
        say: receives a line before the work begins.

    Returns:
        The tokenizer, and notes: what it is made of, what it does not know, whether a GGUF file can carry it.

    Raises:
        InputError: settings that do not go together, no text, a size below what special tokens and characters need,
            or above what the text can fill.
    """
    if style is not None and settings.style is None:
        settings = build(TokenizerSettings, {**settings.model_dump(), "style": style})
    check(settings)
    parts, notes = _limited(texts, settings.limit)
    characters = sum(map(len, parts))
    if not any(text.strip() for text in parts):
        raise InputError("there is no text to learn from", "texts", "give a file with text in it")
    if say is not None:
        say(f"training a tokenizer of kind {settings.kind} on {characters:,} characters")
    specials = specials_of(settings)
    learned = _learn(parts, settings, specials)
    tokenizer = assemble(learned, settings, specials)
    own = tokenizer.vocab_size - len(learned.pieces)
    summary = (
        f"{settings.kind}, special tokens of {style_of(settings)}: {tokenizer.vocab_size:,} ids, "
        f"{own} of them special, learnt from {characters:,} characters"
    )
    notes = [
        summary,
        *notes,
        *_notes(tokenizer, settings, specials, parts),
        *_note_characters(learned, settings, parts),
    ]
    if learned.as_bytes:
        signs = " ".join(sign if sign.isprintable() else ascii(sign) for sign in learned.as_bytes[:10])
        more = ", ..." if len(learned.as_bytes) > 10 else ""
        notes.insert(1, f"the {len(learned.as_bytes)} rarest characters are written as their bytes: {signs}{more}")
    return TrainedTokenizer(tokenizer, notes)


def _note_characters(learned: LearnedVocabulary, settings: TokenizerSettings, texts: Sequence[str]) -> list[str]:
    """A note where single characters take most of the vocabulary, so that texts fall apart into them."""
    if settings.vocab_size is None or settings.kind in ("word", "char"):
        return []
    signs = set(learned.pieces) - set(BYTES)
    longer = {piece for piece in signs if len(piece.removeprefix("##")) > 1}
    singles = len(signs) - len(longer) + len(learned.as_bytes)
    if len(longer) >= singles:
        return []
    size = _fillable(settings, texts, GRADE * math.ceil((settings.vocab_size - len(longer) + singles) / GRADE))
    unit = "bytes" if settings.kind == "byte-bpe" else "characters"
    fault = f"{settings.vocab_size:,} entries leave room for {len(longer)} merges; the text has {singles} {unit}"
    return [f"{fault}: {f'--vocab-size {size} or more' if size > settings.vocab_size else 'give more text'}"]


def _fillable(settings: TokenizerSettings, texts: Sequence[str], size: int) -> int:
    """This size, or a smaller one that the beginning of the texts fills."""
    most = max(1, SAMPLE // PIECE)
    try:
        _learn(texts[:most], settings.model_copy(update={"vocab_size": size}), specials_of(settings))
    except TooManyEntries as error:
        return error.filled
    return size


def texts_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every text in the values of rows of any kind, in order; of messages, their contents."""
    for values in rows:
        for value in values.values():
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                yield from (str(entry["content"]) for entry in value if isinstance(entry, dict) and entry["content"])


def _limited(texts: Iterable[str], limit: int | None) -> tuple[list[str], list[str]]:
    """The first characters of the texts, in pieces that end where a line does, and a note if something was left out."""
    parts: list[str] = []
    remaining = limit
    cut = False
    for number, text in enumerate(texts, 1):
        if remaining is not None and len(text) > remaining:
            text, cut = text[:remaining], True
        parts.extend(_pieces(check_text(text, f"text {number}")))
        if remaining is not None:
            remaining -= len(text)
        if cut:
            break
    return parts, [f"only the first {limit:,} characters are read (limit)"] if cut else []


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


# Learning


def _learn(texts: Sequence[str], settings: TokenizerSettings, specials: Specials) -> LearnedVocabulary:
    own = len(specials.tokens) + len(specials.last)
    if settings.kind in ("word", "char"):
        return _whole(texts, settings, own)
    assert settings.vocab_size is not None  # check() has seen to it
    byte_pieces = BYTES if settings.falls_back else ()
    num_pieces = settings.vocab_size - own - len(byte_pieces)
    alphabet = _alphabet(texts, settings)
    if settings.falls_back and 0 < num_pieces < len(alphabet):
        learned = _learn_part(texts, settings, alphabet, num_pieces)
    elif num_pieces < len(alphabet):
        raise _too_small(settings, specials, own, len(byte_pieces), len(alphabet))
    else:
        learned = _learn_pieces(_learning(settings), texts, settings, alphabet, num_pieces)
    if len(learned.pieces) < num_pieces:
        raise _too_large(settings, settings.vocab_size - num_pieces + len(learned.pieces))
    floor = min(learned.scores, default=0.0)
    scores = [floor] * len(byte_pieces) + learned.scores if learned.scores else []
    return LearnedVocabulary([*byte_pieces, *learned.pieces], scores, learned.merges, learned.as_bytes)


def _learn_pieces(
    core: Core, texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], num_pieces: int
) -> LearnedVocabulary:
    return (_unigram if settings.kind == "unigram" else _merged)(core, texts, settings, alphabet, num_pieces)


def _learn_part(
    texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], num_pieces: int
) -> LearnedVocabulary:
    """Pieces where not every character fits: half of them are the most frequent characters, more if pieces are left.

    The others are written as their bytes, as SentencePiece does with what its character coverage leaves out.
    """
    core = _learning(settings)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(core.normalizer.normalize_str(text))
    ordered = sorted(alphabet, key=lambda sign: (-counts[sign], sign))
    size = max(1, num_pieces // 2)
    while True:
        core = _learning(settings)
        cut = pre_tokenizers.Split(Regex("|".join(map(re.escape, ordered[size:]))), "removed")
        core.pre_tokenizer = pre_tokenizers.Sequence([cut, core.pre_tokenizer])
        first = [sign for sign in alphabet if sign in ordered[:size]]
        learned = _learn_pieces(core, texts, settings, first, num_pieces)
        if len(learned.pieces) >= num_pieces:
            return learned._replace(as_bytes=tuple(ordered[size:]))
        size += num_pieces - len(learned.pieces)


def _too_small(
    settings: TokenizerSettings, specials: Specials, own: int, byte_pieces: int, alphabet: int
) -> InputError:
    """What does not fit into the vocabulary, and the smallest size that works."""
    if byte_pieces:
        parts, least = [f"{own} special tokens", "256 bytes to fall back on", "a piece"], own + byte_pieces + 1
    else:
        signs = f"{alphabet} {'bytes' if settings.kind == 'byte-bpe' else 'characters'}"
        parts, least = [f"{own} special tokens", signs], own + alphabet
    contents = " and ".join([", ".join(parts[:-1]), parts[-1]])
    if settings.kind == "wordpiece":
        contents += " (counted apart at the beginning of a word and within)"
    hint = f"--vocab-size {least} or more" + _smaller(settings, specials, least)
    return InputError(f"{settings.vocab_size} entries do not hold {contents}", "vocab_size", hint)


def _smaller(settings: TokenizerSettings, specials: Specials, least: int) -> str:
    """Further advice where a vocabulary is too small."""
    ways = []
    if specials.last and least - len(specials.last) < (settings.vocab_size or 0):
        ways.append("fewer --sentinels")
    if settings.kind != "byte-bpe" and least > len(specials.tokens) + len(specials.last) + 256:
        ways.append("--kind byte-bpe, whose alphabet is 256 bytes")
    return "".join(f"; or {way}" for way in ways)


def _too_large(settings: TokenizerSettings, filled: int) -> TooManyEntries:
    rarer = (
        f", or a smaller --min-frequency (now {settings.rarest})"
        if settings.rarest > 1 and settings.kind != "unigram"
        else ""
    )
    fault = f"{settings.vocab_size:,} entries are more than the text can fill: it gave {filled:,}"
    return TooManyEntries(fault, "vocab_size", f"--vocab-size {filled} or less, more text{rarer}", filled)


def _whole(texts: Sequence[str], settings: TokenizerSettings, own: int) -> LearnedVocabulary:
    """Words or characters as they are, the most frequent first."""
    if settings.vocab_size is not None and settings.vocab_size <= own:
        fault = f"{settings.vocab_size} entries have no room for more than the {own} special tokens"
        raise InputError(fault, "vocab_size", f"--vocab-size {own + 1} or more, or leave it out: all there are")
    size = EVERYTHING if settings.vocab_size is None else settings.vocab_size - own
    core = Core(models.WordLevel(unk_token=""))
    prepare(core, settings)
    trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=settings.rarest, show_progress=False)
    core.train_from_iterator(texts, trainer)
    pieces = _by_id(core)
    if settings.vocab_size is not None and len(pieces) < size:
        raise _too_large(settings, own + len(pieces))
    if not pieces:
        fault = f"no {settings.kind} occurs {settings.rarest} times"
        raise InputError(fault, "min_frequency", "a smaller --min-frequency, or more text")
    return LearnedVocabulary(pieces, [], [])


def _bpe_trainer(settings: TokenizerSettings, size: int, first: Sequence[str] = ()) -> Any:
    """The library's trainer of merges. ``first`` are entries to stand at the beginning."""
    options: dict[str, Any] = {"vocab_size": size, "min_frequency": settings.rarest, "show_progress": False}
    if settings.kind == "wordpiece":
        options["continuing_subword_prefix"] = "##"
    if settings.kind == "byte-bpe":
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(special_tokens=list(first), **options)


def _learning(settings: TokenizerSettings) -> Core:
    """A core that cuts texts as they are cut while pieces are learnt."""
    core = Core(models.BPE(continuing_subword_prefix="##") if settings.kind == "wordpiece" else models.BPE())
    prepare(core, settings)
    if settings.kind in ("bpe", "unigram"):
        core.pre_tokenizer = pre_tokenizers.Split(Regex(RUNS), "isolated")
    return core


def _alphabet(texts: Sequence[str], settings: TokenizerSettings) -> list[str]:
    """Every character (wordpiece: also every ``##`` and character) of the texts, sorted."""
    core = _learning(settings)
    core.train_from_iterator(texts, _bpe_trainer(settings, 0))
    return sorted(core.get_vocab(), key=lambda piece: (len(piece), piece))


def _merged(
    core: Core, texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], num_pieces: int
) -> LearnedVocabulary:
    """Characters, and what their most frequent neighbours make.

    The alphabet is handed to the trainer in its order: left to itself, it numbers continuing characters by chance, and
    by the numbers it decides between pairs of equal frequency.
    """
    core.train_from_iterator(texts, _bpe_trainer(settings, num_pieces, alphabet))
    pieces = _by_id(core)
    if settings.kind == "byte-bpe":
        return LearnedVocabulary(pieces, [], [tuple(pair) for pair in _model(core)["merges"]])
    return LearnedVocabulary(pieces, [], _every_merge(pieces) if settings.kind == "bpe" else [])


def _every_merge(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, in the order in which the pieces were learnt.

    SentencePiece joins by piece, not by pair: two neighbours that make a piece are joined whichever pair it was learnt
    from. So do llama.cpp and whoever reads a GGUF file; with all pairs listed, the ids here are theirs.
    """
    index = {piece: number for number, piece in enumerate(pieces)}
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in index and pair[1] in index]
        merges += sorted(pairs, key=lambda pair: (index[pair[0]], index[pair[1]]))
    return merges


def _unigram(
    core: Core, texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], num_pieces: int
) -> LearnedVocabulary:
    """Pieces with their log-probabilities.

    The trainer's sums come out in an order that changes from run to run. So it is asked for a few pieces more than are
    wanted, their scores are rounded to 1/4096 (sums of such numbers are exact in any order, in GGUF's float32 too), the
    best are kept, and ids follow the alphabet instead of the last digits of a score.
    """
    core.model = models.Unigram()
    trainer = trainers.UnigramTrainer(vocab_size=num_pieces + num_pieces // 20 + 8, show_progress=False)
    core.train_from_iterator(texts, trainer)
    weights = {piece: round(score * GRAIN) / GRAIN for piece, score in _model(core)["vocab"]}
    lowest = min(weights.values())
    # Characters that no likely piece needs all get the lowest score; the library parts them by chance.
    signs = {sign: weights[sign] if weights.get(sign, lowest) > lowest + 0.1 else lowest for sign in alphabet}
    longer = sorted((item for item in weights.items() if item[0] not in signs), key=lambda item: (-item[1], item[0]))
    scores = dict(sorted({**signs, **dict(longer[: num_pieces - len(signs)])}.items()))
    return LearnedVocabulary(list(scores), list(scores.values()), [])


def _model(core: Core) -> dict[str, Any]:
    return json.loads(core.to_str())["model"]


def _by_id(core: Core) -> list[str]:
    vocabulary = core.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _notes(
    tokenizer: Tokenizer, settings: TokenizerSettings, specials: Specials, texts: Sequence[str]
) -> Iterator[str]:
    """What a person should know."""
    if "<unk>" in specials.tokens and style_of(settings) == "gpt2":
        yield "this style has no unknown token of its own; <unk> was added"
    unknown, count, read = 0, 0, 0
    for text in texts if tokenizer.unk_id is not None else ():
        ids = tokenizer.encode(text)
        unknown, count, read = unknown + ids.count(tokenizer.unk_id or 0), count + len(ids), read + len(text)
        if read > SAMPLE:
            break
    if unknown:
        share = f"{unknown:,} of {count:,} tokens ({unknown / count:.1%})"
        of = "" if read <= SAMPLE else f" of its first {read:,} characters"
        yield f"the text itself has words that are not in the vocabulary{of}: {share} become {specials.roles['unk']}"
    fault = gguf_fault(settings)
    if fault is not None:
        yield fault
