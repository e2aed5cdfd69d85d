"""The Stepper over a PyTorch network: one cache of keys and values for all rows, padded on the left.

The decoder of an encoder-decoder looks at what the encoder, run once for each row, made of its source; sources are
padded on the right. Attention never sees padding, so a row gets what it would get alone. What prompts of a decoder
share at their beginning is read once, and kept for the next prompts that begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from lmworks.base.errors import InputError
from lmworks.generate.encode import context_of, encode_texts
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.prefixes import keeps_keys, read_prefix
from lmworks.generate.stepper import RESERVE, RowStart, Usage
from lmworks.model.cache import Cache
from lmworks.model.transformer import Transformer


class TorchStepper:
    """A batch of rows on its way through a network; the interface is explained in generate/stepper.py.

    Args:
        network: a decoder or an encoder-decoder, in evaluation mode.

    Raises:
        InputError: the network writes no texts.
    """

    _ids: list[list[int]]
    _logits: torch.Tensor
    _cache: Cache | None
    _memory: _Memory | None

    def __init__(self, network: Transformer) -> None:
        check_writes(network)
        self.network = network
        self.usage = Usage()
        self._prefix: tuple[list[int], Cache] | None = None
        self._clear()

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.network.config.vocab_size

    @property
    def context(self) -> int | None:
        """Tokens that a row may hold; None where positions are relative."""
        return context_of(self.network)

    @property
    def has_encoder(self) -> bool:
        """Whether the network is an encoder-decoder."""
        return self.network.encoder is not None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, of the decoder alone."""
        return [len(row) for row in self._ids]

    @property
    def logits(self) -> torch.Tensor:
        """(B, V) logits of each row's next token, in the network's precision."""
        return self._logits

    def prefill(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts, all at once, in place of earlier rows."""
        self._clear()
        self.add(prompts, reserve)

    @torch.inference_mode()
    def add(self, prompts: Sequence[RowStart], reserve: int = RESERVE) -> None:
        """Read the prompts in a cache of their own, which then joins the cache of the rows that are there."""
        if not prompts:
            return
        ids = [list(prompt.ids) for prompt in prompts]
        memory = self._encode([prompt.source for prompt in prompts]) if self.has_encoder else None
        cache, logits = self._read(ids, memory, reserve)
        self.usage.prompt_tokens += sum(len(prompt.ids) + len(prompt.source) for prompt in prompts)
        if self._cache is None:
            self._ids, self._cache, self._memory, self._logits = ids, cache, memory, logits
            return
        self._ids += ids
        self._cache.join(cache, max(self._cache.width, cache.width), reserve)
        self._logits = torch.cat((self._logits, logits))
        if self._memory is not None and memory is not None:
            self._memory = _join(self._memory, memory)

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""
        self.append([[token] for token in tokens])

    @torch.inference_mode()
    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append one token or more to each row, in one pass; rows with fewer are padded on the left."""
        lengths = self.lengths
        for row, added in zip(self._ids, tokens, strict=True):
            row.extend(added)
        self.usage.completion_tokens += sum(map(len, tokens))
        rotary, virtual = self.network.rotary, self.network.num_virtual_tokens
        if rotary is not None and any(
            rotary.outgrows(virtual + begin, virtual + len(row)) for begin, row in zip(lengths, self._ids, strict=True)
        ):
            # longrope: what is cached was computed with the rates of short texts
            self._cache, self._logits = self._read(self._ids, self._memory, RESERVE)
            return
        if self._cache is not None:
            self._logits = self._compute(tokens, lengths, self._cache, self._memory)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if list(rows) == list(range(len(self._ids))):
            return
        if not rows or self._cache is None:
            self._clear()
            return
        index = torch.tensor(rows, device=self._logits.device)
        self._ids = [list(self._ids[row]) for row in rows]
        self._logits = self._logits[index]
        self._cache.keep_rows(index)
        if self._memory is not None:
            states, segments = self._memory
            self._memory = (states[index], None if segments is None else segments[index])

    def _clear(self) -> None:
        self._ids, self._cache, self._memory = [], None, None
        self._logits = torch.empty(0, self.vocab_size, dtype=self.network.dtype, device=self.network.device)

    def _encode(self, sources: Sequence[Sequence[int]]) -> _Memory:
        states = encode_texts(self.network, sources)
        if len({len(state) for state in states}) == 1:
            return torch.stack(states), None
        masks = [torch.ones(len(state), dtype=torch.int64, device=state.device) for state in states]
        return pad_sequence(states, batch_first=True), pad_sequence(masks, batch_first=True)

    def _read(self, rows: list[list[int]], memory: _Memory | None, reserve: int) -> tuple[Cache, torch.Tensor]:
        """A cache of these rows, and the logits (B, V) after the last token of each: the head runs there alone."""
        network, width, context = self.network, max(map(len, rows)), self.context
        device = network.device
        reserve = min(reserve, RESERVE)
        if context is not None:
            reserve = max(0, min(reserve, context - min(map(len, rows))))
        known, prefix = self._shared(rows)
        width, virtual = width - known, network.num_virtual_tokens
        if prefix is None:
            cache = Cache(network.config, len(rows), virtual + width + reserve, network.dtype, device)
        else:
            cache = prefix.of_rows(torch.zeros(len(rows), dtype=torch.int64, device=device), width + reserve)
        return cache, self._compute([row[known:] for row in rows], [known] * len(rows), cache, memory)

    def _compute(
        self, rows: Sequence[Sequence[int]], begins: Sequence[int], cache: Cache, memory: _Memory | None
    ) -> torch.Tensor:
        """The logits (B, V) after the last of these tokens, which follow what is cached; the head runs there alone.

        Args:
            rows: one token or more each; they are padded on the left.
            begins: the position of each row's first token.
        """
        width, device = max(map(len, rows)), self.network.device
        padding = [[0] * (width - len(row)) for row in rows]
        places = [range(begin, begin + len(row)) for row, begin in zip(rows, begins, strict=True)]
        ids, positions, segments = (
            torch.tensor([[*pad, *part] for pad, part in zip(padding, parts, strict=True)], device=device)
            for parts in (rows, places, [[1] * len(row) for row in rows])
        )
        states, memory_segments = memory or (None, None)
        output = self.network(
            ids,
            positions=positions,
            segments=segments if any(padding) else None,
            cache=cache,
            memory=states,
            memory_segments=memory_segments,
            logits_to_keep=torch.arange(1, len(rows) + 1, device=device) * width - 1,
        )
        return output.logits

    def _shared(self, rows: list[list[int]]) -> tuple[int, Cache | None]:
        """How many tokens all rows begin with whose cache is there or worth to be made, and that cache."""
        if not keeps_keys(self.network):
            return 0, None
        if self._prefix is not None:
            begin = self._prefix[0]
            if all(len(row) > len(begin) and row[: len(begin)] == begin for row in rows):
                return len(begin), self._prefix[1]
        length = shared_length(rows)
        if not length:
            return 0, None
        self._prefix = (rows[0][:length], read_prefix(self.network, rows[0][:length]))
        return length, self._prefix[1]


_Memory = tuple[torch.Tensor, torch.Tensor | None]  # (B, S, E) encoded sources; (B, S) segments where there is padding


def _join(first: _Memory, second: _Memory) -> _Memory:
    """Encoded sources of all rows, padded on the right to one length."""
    states = [state for part, _ in (first, second) for state in part]
    if first[1] is None and second[1] is None and first[0].shape[1] == second[0].shape[1]:
        return torch.stack(states), None
    segments = [
        row
        for part, known in (first, second)
        for row in (torch.ones(part.shape[:2], dtype=torch.int64, device=part.device) if known is None else known)
    ]
    return pad_sequence(states, batch_first=True), pad_sequence(segments, batch_first=True)


def check_writes(network: Transformer) -> None:
    """Refuse a network that writes no texts.

    Raises:
        InputError: it is an encoder, or has no language head.
    """
    if not network.config.language_head and network.config.heads:
        heads = " and ".join(head.name.replace("_", " ") for head in network.config.heads)
        raise InputError(f"the model writes no texts: it has a head for {heads}", hint="lmworks predict MODEL FILE")
    if network.config.architecture == "encoder":
        raise InputError(
            "the model is an encoder: it reads texts and writes none",
            hint="lmworks fill fills its blanks, lmworks embed gives vectors of texts",
        )
    if not network.config.language_head:
        raise InputError("the model has no language head, so it writes no text", hint="open the model with its head")
