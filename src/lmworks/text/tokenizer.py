"""Text -> token ids and back: the `tokenizers` library with the special tokens and template of one model.

Opens and writes the files of a Hugging Face folder. Knows nothing of messages (text/chat.py) nor of models.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import processors

from lmworks.base import files
from lmworks.base.errors import InputError
from lmworks.text import tokenizer_folder
from lmworks.text.plain_text import check_text, cut_between_words
from lmworks.text.tokenizer_folder import ROLES

PIECE = 1_000_000
"""Characters of a text that are encoded at once; PIECES_AT_ONCE of them on all cores."""
PIECES_AT_ONCE = 8


class Tokenizer:
    """A tokenizer core and what its model says about it.

    Args:
        core: the `tokenizers` object. Its own truncation and padding are switched off: nothing is cut silently.
        bos_id, eos_id, pad_id, unk_id, mask_id, cls_id, sep_id: ids of the special tokens, or None where the model has
            none.
        chat_template: the model's Jinja template, or None.
        adds_bos: whether ``encode(text, special=True)`` begins with BOS; None takes the core's post-processor as it is.
        end_ids: further ids that end a turn or a text; eos_id is always among them.
        config: all other values of tokenizer_config.json; `save` writes them back.
    """

    def __init__(
        self,
        core: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
        pad_id: int | None = None,
        unk_id: int | None = None,
        mask_id: int | None = None,
        cls_id: int | None = None,
        sep_id: int | None = None,
        chat_template: str | None = None,
        adds_bos: bool | None = None,
        end_ids: Iterable[int] = (),
        config: dict[str, Any] | None = None,
    ) -> None:
        core.no_truncation()
        core.no_padding()
        self.core = core
        self.bos_id, self.eos_id, self.pad_id, self.unk_id, self.mask_id = bos_id, eos_id, pad_id, unk_id, mask_id
        self.cls_id, self.sep_id = cls_id, sep_id
        self.chat_template = chat_template
        self.end_ids = set(end_ids) | ({eos_id} if eos_id is not None else set())
        self.config = dict(config or {})
        self.rows: int | None = None  # of the model's embedding, where they are fewer than the ids here
        self.opening, self.closing = self._added()
        has_bos = bos_id is not None and self.opening[:1] == [bos_id]
        if adds_bos is not None and bos_id is not None and adds_bos != has_bos:
            self._set_opening([bos_id] if adds_bos else [])
            has_bos = adds_bos
        self.adds_bos = has_bos

    # Opening and saving

    @classmethod
    def open(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a Hugging Face folder.

        Reads tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja and the end ids of
        generation_config.json.

        Raises:
            InputError: a file is missing or cannot be read.
        """
        return cls(**tokenizer_folder.read(Path(folder)))

    def save(self, folder: str | Path, compact: bool = False) -> None:
        """Write tokenizer.json and tokenizer_config.json; `transformers` opens them to the same ids and template.

        Further end ids belong into generation_config.json, which whoever saves the model writes. ``compact``: write
        tokenizer.json for programs, which open it in two thirds of the time, rather than for people.

        Raises:
            InputError: no room, or the folder cannot be written.
        """
        folder = Path(folder)
        # What the post-processor adds stands in tokenizer.json; said twice, the two could disagree.
        dropped = {"add_bos_token", "add_eos_token", "added_tokens_decoder", "named_templates", "name_or_path"}
        config = {key: value for key, value in self.config.items() if key not in dropped}
        for role in ROLES:
            token_id = getattr(self, f"{role}_id")
            if token_id is not None or role not in ("cls", "sep"):
                config[f"{role}_token"] = self.core.id_to_token(token_id) if token_id is not None else None
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config.setdefault("clean_up_tokenization_spaces", False)
        named = self.config.get("named_templates")
        if named or self.chat_template is not None:
            config["chat_template"] = named or self.chat_template
        text = json.dumps(config, ensure_ascii=False, indent=2)
        core = tokenizer_folder.compact(self.core) if compact else self.core.to_str(pretty=True)
        files.atomic_write(folder / "tokenizer.json", core)
        files.atomic_write(folder / "tokenizer_config.json", text + "\n")

    def add_tokens(self, tokens: Sequence[str]) -> list[int]:
        """Add tokens; where they are written in a text, they are one token each, and they are shown in decoded texts.

        Returns:
            Their ids, in this order; of a token that is there already the one that it has.
        """
        new = [
            token for token in tokens if self.core.token_to_id(token) is None
        ]  # added again, a special one is no more
        self.core.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in new])
        for name in ("specials", "_continuing"):  # computed from the core
            self.__dict__.pop(name, None)
        ids = (self.core.token_to_id(token) for token in tokens)
        return [number for number in ids if number is not None]

    # Text -> ids

    def encode(self, text: str, special: bool = False, after: str = "") -> list[int]:
        """The ids of a text.

        Args:
            text: what to encode. Special tokens written out in it become those tokens, as everywhere.
            special: add what the post-processor adds (BOS, or [CLS] and [SEP]).
            after: the text that stands before this one, if any. Some tokenizers put a space before the beginning of
                a text; a piece that continues another must not get one.

        Raises:
            InputError: the text has a character that UTF-8 cannot write (half of a surrogate pair).
        """
        core = self.core if not after or special else self.core_after(after)
        try:
            ids = core.encode(text, add_special_tokens=special).ids
        except TypeError:
            check_text(text, "the text")
            raise
        return self.check_rows(ids, text)

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The same as ``encode(text, special=True)`` one by one, on all cores."""
        encoded = _checked(self.core.encode_batch_fast, list(texts), special=True)
        return [self.check_rows(encoding.ids, text) for encoding, text in zip(encoded, texts, strict=True)]

    def encode_many(self, texts: Sequence[str], after: Sequence[str] | None = None) -> list[list[int]]:
        """The same as ``encode(text, after=...)`` one by one, on all cores."""
        result: list[list[int]] = [[] for _ in texts]
        groups: dict[int, list[int]] = {}
        cores = [self.core_after(before) if before else self.core for before in after] if after else None
        for index in range(len(texts)):
            groups.setdefault(id(cores[index]) if cores else 0, []).append(index)
        for indices in groups.values():
            core = cores[indices[0]] if cores else self.core
            short = [index for index in indices if len(texts[index]) <= PIECE]
            encoded = _checked(core.encode_batch_fast, [texts[index] for index in short])
            for index, encoding in zip(short, encoded, strict=True):
                result[index] = self.check_rows(encoding.ids, texts[index])
            for index in set(indices).difference(short):
                for _, encoding in self._pieces(texts[index], core):
                    result[index] += self.check_rows(encoding.ids, texts[index])
        return result

    def encode_prompt(self, text: str) -> list[int]:
        """A prompt without template as ids: BOS where the family has it, no end. For training and generation alike."""
        return [*self.opening, *self.encode(text)]

    def spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text its ids and the character at which each token begins, both (T,) int32; nothing is added."""
        result = []
        for text, pieces in zip(texts, self.encodings(texts), strict=True):
            ids, starts = [], []
            for begin, encoding in pieces:
                ids.append(np.array(self.check_rows(encoding.ids, text), dtype=np.int32))
                starts.append(np.array([begin + start for start, _ in encoding.offsets], dtype=np.int32))
            result.append((np.concatenate(ids), np.concatenate(starts)))
        return result

    def encodings(self, texts: Sequence[str]) -> Iterator[Iterable[tuple[int, tokenizers.Encoding]]]:
        """The encodings of each text, in order: of a long one those of its pieces, each with the character where it
        begins. Pieces are made while they are asked for: an encoding takes some hundred bytes a token."""
        whole = iter(_checked(self.core.encode_batch, [text for text in texts if len(text) <= PIECE]))
        for text in texts:
            yield [(0, next(whole))] if len(text) <= PIECE else self._pieces(text)

    def _pieces(self, text: str, core: tokenizers.Tokenizer | None = None) -> Iterator[tuple[int, tokenizers.Encoding]]:
        """``core`` encodes the first piece; default: the one for texts that continue none."""
        begins = [*cut_between_words(text, PIECE), len(text)]
        pieces = list(itertools.pairwise(begins))
        for number in range(0, len(pieces), PIECES_AT_ONCE):
            group = pieces[number : number + PIECES_AT_ONCE]
            parts = [text[begin:end] for begin, end in group]
            encoded = _checked((core or self.core).encode_batch, parts[:1]) if number == 0 else []
            encoded += _checked(self._continuing[0].encode_batch, parts[len(encoded) :])
            yield from zip((begin for begin, _ in group), encoded, strict=True)

    def check_rows(self, ids: list[int], text: str = "") -> list[int]:
        """The ids, unless the model's embedding has no row for one of them.

        Raises:
            InputError: it has none; names the token, its id and the text.
        """
        if self.rows is None or not ids or max(ids) < self.rows:
            return ids
        token = next(token for token in ids if token >= (self.rows or 0))
        name = self.core.id_to_token(token)
        fault = f"the token {name!r} has id {token}, but the model's embedding has {self.rows} rows"
        line = " ".join(text.split())
        place = repr(line if len(line) <= 60 else f"{line[:57]}...")
        raise InputError(fault, place, "leave the token out of the text, or take a model that has a row for it")

    def fit(self, rows: int, place: str) -> list[str]:
        """Say how many rows the model's embedding has; notes where there are ids beyond them.

        Published models often have tokenizers with a few added tokens that were never given rows. They open; a text
        that holds such a token is refused when it is encoded.

        Raises:
            InputError: every text begins or ends with such a token, so that none could be read.
        """
        highest = self.highest_id
        if highest < rows:
            return []
        self.rows = rows
        self.check_rows([*self.opening, *self.closing], place)
        names = [token for token, index in self.added.items() if index >= rows]
        few = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        return [
            f"the tokenizer has ids up to {highest}, the embedding {rows} rows: texts with tokens beyond them "
            f"({few or 'none of them added'}) are refused"
        ]

    # Ids -> text

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids. Bytes that are not whole characters become U+FFFD."""
        return self.core.decode(list(ids), skip_special_tokens=skip_special)

    def piece(self, token_id: int) -> str:
        """One token as a person reads it: spaces as spaces, bytes of a split character as ``\\xe2``."""
        if self.core.id_to_token(token_id) is None:
            return f"<no token {token_id}>"
        return self.token_bytes(token_id).decode("utf-8", errors="backslashreplace")

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds within a text, in UTF-8: a part of a character may be a token. Of a special token its
        name; empty where there is no such token."""
        token = self.core.id_to_token(token_id)
        if token is None:
            return b""
        if token in self.specials:
            return token.encode()
        if self._byte_level:
            signs = (bytes([_SIGN_TO_BYTE[sign]]) if sign in _SIGN_TO_BYTE else sign.encode() for sign in token)
            return b"".join(signs)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens among them. A model's embedding may have more rows."""
        return self.core.get_vocab_size(with_added_tokens=True)

    @property
    def highest_id(self) -> int:
        """The largest id. Added tokens may leave gaps below them."""
        return max(self.vocab_size - 1, *self.core.get_added_tokens_decoder(), 0)

    @property
    def added(self) -> dict[str, int]:
        """Added tokens: text -> id."""
        return {token.content: index for index, token in self.core.get_added_tokens_decoder().items()}

    @cached_property
    def specials(self) -> dict[str, int]:
        """Added tokens that are special: text -> id."""
        return {token.content: index for index, token in self.core.get_added_tokens_decoder().items() if token.special}

    # Inside

    def _added(self) -> tuple[list[int], list[int]]:
        """What special=True puts before and after a text."""
        plain = self.core.encode("a", add_special_tokens=False).ids
        full = self.core.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return full[:start], full[start + len(plain) :]
        return [], []

    def _set_opening(self, ids: list[int]) -> None:
        """Change what special=True puts before a text; what it puts after stays."""
        before, after = ([self._token(index) for index in part] for part in (ids, self.closing))
        single = " ".join([*before, "$A", *after])
        named = [(self._token(index), index) for index in dict.fromkeys([*ids, *self.closing])]
        if named:
            pair = f"{single} {' '.join([*before, '$B:1', *after])}"
            template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=named)
            self.core.post_processor = template
        else:
            self.core.post_processor = processors.ByteLevel(trim_offsets=False)  # adds nothing
        self.opening = list(ids)

    def _token(self, token_id: int) -> str:
        token = self.core.id_to_token(token_id)
        if token is None:
            raise InputError(f"the tokenizer has no token with id {token_id}", hint="check the ids of special tokens")
        return token

    @cached_property
    def _byte_level(self) -> bool:
        return '"ByteLevel"' in _state(self.core.decoder)

    def core_after(self, before: str) -> tokenizers.Tokenizer:
        """The `tokenizers` object for a text that continues another one: it puts no space before it."""
        continuing, at_specials = self._continuing
        return self.core if at_specials and before.endswith(tuple(self.specials)) else continuing

    @cached_property
    def _continuing(self) -> tuple[tokenizers.Tokenizer, bool]:
        """A core that puts no space before a text, and whether the ordinary one would put it after special tokens too.

        SentencePiece-like cores do it by a Prepend normalizer or by Metaspace; byte-level ones by add_prefix_space.
        """
        steps = [step for part in ("normalizer", "pre_tokenizer") for step in _steps(_part(self.core, part))]
        if not any(_puts_space(step) for step in steps):
            return self.core, True
        state = json.loads(self.core.to_str())
        for part in ("normalizer", "pre_tokenizer"):
            state[part] = _without_space(state[part])
        first_only = any(step.get("prepend_scheme") == "first" for step in steps)
        return tokenizers.Tokenizer.from_str(json.dumps(state)), not first_only


def _checked(encode_batch: Callable[..., list[Any]], texts: list[str], special: bool = False) -> list[Any]:
    """The encodings of texts; the library's TypeError at half of a surrogate pair becomes an InputError."""
    try:
        return encode_batch(texts, add_special_tokens=special)
    except TypeError:
        for number, text in enumerate(texts, 1):
            check_text(text, f"text {number} of {len(texts)}" if len(texts) > 1 else "the text")
        raise


def _sign_to_byte() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for signs from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}


_SIGN_TO_BYTE = _sign_to_byte()


def _state(part: Any) -> str:
    return part.__getstate__().decode() if part is not None else ""


def _part(core: tokenizers.Tokenizer, name: str) -> dict[str, Any] | None:
    text = _state(getattr(core, name))
    return json.loads(text) if text else None


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part.get("normalizers") or part.get("pretokenizers") or [] for step in _steps(inner)]
    return [part]


def _puts_space(step: dict[str, Any]) -> bool:
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space") else "never")
    return step["type"] == "Prepend" or (step["type"] in ("Metaspace", "ByteLevel") and scheme != "never")


def _without_space(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if part is None or part["type"] == "Prepend":
        return None
    changed = dict(part)
    for key in ("normalizers", "pretokenizers"):
        if key in part:
            changed[key] = [step for step in map(_without_space, part[key]) if step is not None]
    if "prepend_scheme" in part:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in part:
        changed["add_prefix_space"] = False
    return changed
