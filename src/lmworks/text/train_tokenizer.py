"""Text -> a tokenizer: word, character, BPE, byte-level BPE, WordPiece, Unigram, with a family's special tokens.

The `tokenizers` library learns the pieces; from them a core is built anew, so that the same text and settings give the
same ids on every run (some of the library's trainers walk through hash tables in an order that changes). Knows nothing
of rows and models.

BPE: Sennrich et al. 2016; byte-level: Radford et al. 2019; WordPiece: Schuster and Nakajima 2012; Unigram: Kudo 2018.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Core

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.text.plain_text import check_text
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_settings import Specials, TokenizerSettings, check, gguf_fault, specials_of, style_of

ANY_CHARACTER = r"[\s\S]"
RUNS = r"[\s▁]{2,}|▁?[\p{L}\p{M}]+|▁?\p{N}+|▁?[^▁\s\p{L}\p{M}\p{N}]+|▁|\s"
"""Where pieces of bpe and unigram may not cross while they are learnt: words, numbers, other signs, white space."""
QWEN2_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2 cuts texts: digits one by one, line ends with what stands before them."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
EVERYTHING = 1 << 40
GRAIN = 4096
PIECE = 10_000
"""Characters of one piece of text handed to the library, which spreads pieces over the cores."""
SAMPLE = 1_000_000

Say = Callable[[str], None]


class TooManyEntries(InputError):
    """More entries were asked for than the text gave; ``filled`` is how many it did."""

    def __init__(self, fault: str, place: str, hint: str, filled: int) -> None:
        super().__init__(fault, place, hint)
        self.filled = filled


class Trained(NamedTuple):
    """A tokenizer, and what a person should know of it."""

    tokenizer: Tokenizer
    notes: list[str]


class Learnt(NamedTuple):
    """What a text taught: entries in the order of their ids, without special tokens; scores for unigram alone."""

    pieces: list[str]
    scores: list[float]
    merges: list[tuple[str, str]]


def train(
    texts: Iterable[str], settings: TokenizerSettings, style: str | None = None, say: Say | None = None
) -> Trained:
    """Train a tokenizer.

    Args:
        texts: what to learn from.
        settings: the kind, the size and the rest.
        style: a family's name (or a style's): whose special tokens it gets where the settings name none.
        say: told what is done before it takes its time.

    Returns:
        The tokenizer, and notes: what it is made of, what it does not know, whether a GGUF file can carry it.

    Raises:
        InputError: settings that do not go together, no text, a size below what special tokens and characters need,
            or above what the text can fill.
    """
    if style is not None and settings.style is None:
        settings = build(TokenizerSettings, {**settings.model_dump(), "style": style})
    check(settings)
    kept, notes = _limited(texts, settings.limit)
    characters = sum(map(len, kept))
    if not any(text.strip() for text in kept):
        raise InputError("there is no text to learn from", "texts", "give a file with text in it")
    if say is not None:
        say(f"training a tokenizer of kind {settings.kind} on {characters:,} characters")
    specials = specials_of(settings)
    learnt = _learn(kept, settings, specials)
    tokenizer = _assemble(learnt, settings, specials)
    own = tokenizer.vocab_size - len(learnt.pieces)
    told = (
        f"{settings.kind}, special tokens of {style_of(settings)}: {tokenizer.vocab_size:,} ids, {own} of them special"
    )
    notes = [f"{told}, learnt from {characters:,} characters", *notes, *_notes(tokenizer, settings, specials, kept)]
    return Trained(tokenizer, notes)


def texts_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every text in the values of rows of any kind, in order; of messages, their contents."""
    for values in rows:
        for value in values.values():
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                yield from (str(message["content"]) for message in value if message.get("content"))


def _limited(texts: Iterable[str], limit: int | None) -> tuple[list[str], list[str]]:
    """The first characters of the texts, in pieces that end where a line does, and a note if something was left out."""
    kept: list[str] = []
    left = limit
    cut = False
    for number, text in enumerate(texts, 1):
        if left is not None and len(text) > left:
            text, cut = text[:left], True
        kept.extend(_pieces(check_text(text, f"text {number}")))
        if left is not None:
            left -= len(text)
        if cut:
            break
    return kept, [f"only the first {limit:,} characters are read (limit)"] if cut else []


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


# What is learnt


def _learn(texts: Sequence[str], settings: TokenizerSettings, specials: Specials) -> Learnt:
    own = len(specials.tokens) + len(specials.last)
    if settings.kind in ("word", "char"):
        return _whole(texts, settings, own)
    assert settings.vocab_size is not None  # check() has seen to it
    byte_pieces = BYTES if settings.falls_back else ()
    alphabet = _alphabet(texts, settings)
    least = own + len(byte_pieces) + len(alphabet)
    if settings.vocab_size < least:
        parts = [f"{own} special tokens", f"{len(alphabet)} {'bytes' if settings.kind == 'byte-bpe' else 'characters'}"]
        parts[1:1] = ["256 bytes to fall back on"] if byte_pieces else []
        what = " and ".join([", ".join(parts[:-1]), parts[-1]])
        if settings.kind == "wordpiece":
            what += " (counted apart at the beginning of a word and within)"
        hint = f"--vocab-size {least} or more" + _smaller(settings, specials, least)
        raise InputError(f"{settings.vocab_size} entries do not hold {what}", "vocab_size", hint)
    room = settings.vocab_size - own - len(byte_pieces)
    learnt = (_unigram if settings.kind == "unigram" else _merged)(texts, settings, alphabet, room)
    if len(learnt.pieces) < room:
        raise _too_large(settings, settings.vocab_size - room + len(learnt.pieces))
    floor = min(learnt.scores, default=0.0)
    scores = [floor] * len(byte_pieces) + learnt.scores if learnt.scores else []
    return Learnt([*byte_pieces, *learnt.pieces], scores, learnt.merges)


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


def _whole(texts: Sequence[str], settings: TokenizerSettings, own: int) -> Learnt:
    """Words or characters as they are, the most frequent first."""
    if settings.vocab_size is not None and settings.vocab_size <= own:
        fault = f"{settings.vocab_size} entries leave no room beside {own} special tokens"
        raise InputError(fault, "vocab_size", f"--vocab-size {own + 1} or more, or leave it out: all there are")
    size = EVERYTHING if settings.vocab_size is None else settings.vocab_size - own
    core = Core(models.WordLevel(unk_token=""))
    _prepare(core, settings)
    trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=settings.rarest, show_progress=False)
    core.train_from_iterator(texts, trainer)
    pieces = _by_id(core)
    if settings.vocab_size is not None and len(pieces) < size:
        raise _too_large(settings, own + len(pieces))
    if not pieces:
        fault = f"no {settings.kind} occurs {settings.rarest} times"
        raise InputError(fault, "min_frequency", "a smaller --min-frequency, or more text")
    return Learnt(pieces, [], [])


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
    _prepare(core, settings)
    if settings.kind in ("bpe", "unigram"):
        core.pre_tokenizer = pre_tokenizers.Split(Regex(RUNS), "isolated")
    return core


def _alphabet(texts: Sequence[str], settings: TokenizerSettings) -> list[str]:
    """Every character (wordpiece: also every ``##`` and character) of the texts, sorted."""
    core = _learning(settings)
    core.train_from_iterator(texts, _bpe_trainer(settings, 0))
    return sorted(core.get_vocab(), key=lambda piece: (len(piece), piece))


def _merged(texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], room: int) -> Learnt:
    """Characters, and what their most frequent neighbours make.

    The alphabet is handed to the trainer in its order: left to itself, it numbers continuing characters by chance, and
    by the numbers it decides between pairs of equal frequency.
    """
    core = _learning(settings)
    core.train_from_iterator(texts, _bpe_trainer(settings, room, alphabet))
    pieces = _by_id(core)
    if settings.kind == "byte-bpe":
        return Learnt(pieces, [], [tuple(pair) for pair in _model(core)["merges"]])
    return Learnt(pieces, [], _every_merge(pieces) if settings.kind == "bpe" else [])


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


def _unigram(texts: Sequence[str], settings: TokenizerSettings, alphabet: list[str], room: int) -> Learnt:
    """Pieces with their log-probabilities.

    The trainer's sums come out in an order that changes from run to run. So it is asked for a few pieces more than are
    wanted, their scores are rounded to 1/4096 (sums of such numbers are exact in any order, in GGUF's float32 too), the
    best are kept, and ids follow the alphabet instead of the last digits of a score.
    """
    core = _learning(settings)
    core.model = models.Unigram()
    trainer = trainers.UnigramTrainer(vocab_size=room + room // 20 + 8, show_progress=False)
    core.train_from_iterator(texts, trainer)
    found = {piece: round(score * GRAIN) / GRAIN for piece, score in _model(core)["vocab"]}
    lowest = min(found.values())
    # Characters that no likely piece needs all get the lowest score; the library parts them by chance.
    signs = {sign: found[sign] if found.get(sign, lowest) > lowest + 0.1 else lowest for sign in alphabet}
    longer = sorted((item for item in found.items() if item[0] not in signs), key=lambda item: (-item[1], item[0]))
    scores = dict(sorted({**signs, **dict(longer[: room - len(signs)])}.items()))
    return Learnt(list(scores), list(scores.values()), [])


def _model(core: Core) -> dict[str, Any]:
    return json.loads(core.to_str())["model"]


def _by_id(core: Core) -> list[str]:
    vocabulary = core.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=vocabulary.__getitem__)


# What is built of it


def _prepare(core: Core, settings: TokenizerSettings) -> None:
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


def _assemble(learnt: Learnt, settings: TokenizerSettings, specials: Specials) -> Tokenizer:
    """The tokenizer: special tokens first, then what was learnt, then the sentinels."""
    tokens = [*specials.tokens, *(piece for piece in learnt.pieces if piece not in specials.tokens), *specials.last]
    ids = {token: number for number, token in enumerate(tokens)}
    unknown = specials.roles.get("unk")
    if settings.kind in ("word", "char"):
        model: Any = models.WordLevel(vocab=ids, unk_token=unknown)
    elif settings.kind == "byte-bpe":
        model = models.BPE(vocab=ids, merges=learnt.merges)
    elif settings.kind == "bpe":
        options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": settings.falls_back}
        model = models.BPE(vocab=ids, merges=learnt.merges, **options)
    elif settings.kind == "wordpiece":
        model = models.WordPiece(vocab=ids, unk_token=unknown)
    else:
        scores = dict(zip(learnt.pieces, learnt.scores, strict=True))
        listed = [(token, scores.get(token, 0.0)) for token in tokens]
        model = models.Unigram(listed, ids[unknown or ""], settings.falls_back)
    core = Core(model)
    _prepare(core, settings)
    mask = specials.roles.get("mask")
    spaced = settings.kind in ("bpe", "byte-bpe", "unigram")  # there the space belongs to the word that is hidden
    core.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=spaced and token == mask)
            for token in (*specials.tokens, *specials.last)
        ]
    )
    _frame(core, settings, specials, ids)
    inputs = ["input_ids", *(["token_type_ids"] if specials.typed else []), "attention_mask"]
    config: dict[str, Any] = {"model_input_names": inputs}
    if specials.last:
        config["additional_special_tokens"] = list(reversed(specials.last))
    roles: dict[str, Any] = {f"{role}_id": ids[token] for role, token in specials.roles.items()}
    return Tokenizer(core, config=config, **roles)


def _frame(core: Core, settings: TokenizerSettings, specials: Specials, ids: dict[str, int]) -> None:
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
