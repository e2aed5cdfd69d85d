"""Prefill and steps over a batch: ids in, ids out. Knows nothing of texts and tokenizers.

A decoder continues its prompts; they are padded on the left where their lengths differ. The decoder of an
encoder-decoder begins with its start token and looks at what the encoder, run once, made of the prompts. Padding is
never seen, so a batch gives what each prompt would give alone. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from lmworks.base.errors import InputError
from lmworks.generate.sampling import Rules, SamplingSettings, pick, ruled
from lmworks.model.cache import Cache
from lmworks.model.transformer import Transformer

Steps = Generator[list[int | None], set[int] | None, None]
ROW_TOKENS = 1024  # tokens of several texts that pass through an encoder at a time


def decode(
    network: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    end_ids: set[int],
    rules: Rules | None = None,
) -> Steps:
    """Yield, step by step, one new id for each prompt; None for those that have ended.

    The id that ends a row is yielded too. A row also ends after ``max_tokens`` and at the end of the context.
    A consumer may end rows early by sending a set of row numbers.

    Args:
        network: a decoder, or an encoder-decoder: then the prompts are its sources.
        prompts: token ids.
        settings: without beams (generate/beam.py has those).
        end_ids: what ends a text.
        rules: what the model's publisher demands; an encoder-decoder needs ``rules.start``.

    Raises:
        InputError: a prompt is empty or leaves no room in the context; the network does not write.
    """
    rules = rules or Rules()
    generators = [torch.Generator().manual_seed(settings.seed) for _ in prompts]
    alive = list(range(len(prompts)))
    rows = Rows(network, prompts, rules, settings.max_tokens)
    while alive:
        scores = ruled(rows.logits, settings, rules, rows.texts, rows.new, rows.limits, end_ids)
        chosen = pick(scores, settings, [generators[row] for row in alive], rows.texts)
        step: list[int | None] = [None] * len(prompts)
        for row, token in zip(alive, chosen, strict=True):
            step[row] = token
        stopped = yield step
        ended = stopped or set()
        keep = [
            place
            for place, row in enumerate(alive)
            if chosen[place] not in end_ids and rows.limits[place] > 1 and row not in ended
        ]
        alive = [alive[place] for place in keep]
        if alive:
            rows.step(keep, [chosen[place] for place in keep])


class Rows:
    """A batch on its way through the network, one token at a time.

    Args:
        network: a decoder, or an encoder-decoder.
        prompts: what is continued, or the sources.
        rules: of them the start.
        new_tokens: how many may come.
        begun: of an encoder-decoder: ids after the start that each text begins with.

    Attributes:
        texts: for each row all ids so far, the prompt or the decoder's start among them.
        new: for each row how many of them are new.
        limits: for each row how many more may come.
        logits: (B, V) of each row's next token.
    """

    @torch.inference_mode()
    def __init__(
        self,
        network: Transformer,
        prompts: Sequence[Sequence[int]],
        rules: Rules,
        new_tokens: int,
        begun: Sequence[Sequence[int]] | None = None,
    ) -> None:
        check_prompts(network, prompts)
        self.network = network
        self.memory: torch.Tensor | None = None
        self.memory_segments: torch.Tensor | None = None
        self.texts = [list(prompt) for prompt in prompts]
        if network.config.architecture == "encoder-decoder":
            start = start_of(rules)
            self.texts = [[start, *part] for part in begun or [()] * len(prompts)]
            states = hidden_of(network, prompts)
            self.memory = pad_sequence(states, batch_first=True)
            if len({len(state) for state in states}) > 1:
                ones = [torch.ones(len(state), dtype=torch.int64, device=state.device) for state in states]
                self.memory_segments = pad_sequence(ones, batch_first=True)
        room = longest(network)
        self.new = [0] * len(prompts)
        self.limits = [new_tokens if room is None else min(new_tokens, room - len(text)) for text in self.texts]
        self.cache, self.logits = self._prefill()

    @torch.inference_mode()
    def step(self, keep: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with these rows, in this order and as often as they are named; each takes one more token."""
        if list(keep) != list(range(len(self.texts))):
            self._keep(keep)
        places = [len(text) for text in self.texts]
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)
        self.new = [count + 1 for count in self.new]
        self.limits = [left - 1 for left in self.limits]
        rotary = self.network.rotary
        if rotary is not None and any(rotary.outgrows(place, place + 1) for place in places):
            self.cache, self.logits = self._prefill()  # what was cached has been read as the beginning of short texts
            return
        device = self.network.device
        output = self.network(
            torch.tensor(tokens, device=device)[:, None],
            positions=torch.tensor(places, device=device)[:, None],
            cache=self.cache,
            memory=self.memory,
            memory_segments=self.memory_segments,
        )
        self.logits = output.logits[:, -1]

    def _keep(self, rows: Sequence[int]) -> None:
        self.texts = [list(self.texts[row]) for row in rows]
        self.new, self.limits = [self.new[row] for row in rows], [self.limits[row] for row in rows]
        index = torch.tensor(rows, device=self.logits.device)
        self.cache.keep_rows(index)
        self.memory = None if self.memory is None else self.memory[index]
        self.memory_segments = None if self.memory_segments is None else self.memory_segments[index]

    def _prefill(self) -> tuple[Cache, torch.Tensor]:
        """Run all texts at once; the head is computed for each one's last token alone: logits (B, V)."""
        network, texts = self.network, self.texts
        width = max(map(len, texts))
        cache = Cache(network.config, len(texts), width + min(max(self.limits), 256), network.dtype, network.device)
        ids = torch.zeros(len(texts), width, dtype=torch.int64)
        segments = torch.zeros_like(ids)
        positions = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, width - len(text) :] = torch.tensor(text)
            segments[row, width - len(text) :] = 1
            positions[row, width - len(text) :] = torch.arange(len(text))
        padded = bool((segments == 0).any())
        ids, segments, positions = (part.to(network.device) for part in (ids, segments, positions))
        last = torch.arange(1, len(texts) + 1, device=network.device) * width - 1
        output = network(
            ids,
            positions=positions,
            segments=segments if padded else None,
            cache=cache,
            memory=self.memory,
            memory_segments=self.memory_segments,
            only=last,
        )
        return cache, output.logits


def hidden_of(network: Transformer, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The last hidden states of each text, (tokens, E): of an encoder-decoder those of its encoder.

    Texts are packed into flat rows without padding.
    """
    device = network.device
    found: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    for group in _groups([len(text) for text in texts]):
        sizes = [len(texts[index]) for index in group]
        ids = torch.tensor([token for index in group for token in texts[index]], device=device)[None]
        positions = torch.cat([torch.arange(size, device=device) for size in sizes])[None]
        segments = torch.arange(1, len(group) + 1, device=device).repeat_interleave(torch.tensor(sizes, device=device))
        read = network.encode if network.config.architecture == "encoder-decoder" else network.hidden_states
        hidden = read(ids, positions=positions, segments=segments[None])[0]
        for index, part in zip(group, hidden.split(sizes), strict=True):
            found[index] = part
    return found


def longest(network: Transformer) -> int | None:
    """Tokens that a text may have; None where positions are relative and never end."""
    return None if network.config.positions == "relative" else network.config.max_position_embeddings


def check_writes(network: Transformer) -> None:
    """Refuse a network that writes no texts.

    Raises:
        InputError: it is an encoder, or has no head.
    """
    if network.config.architecture == "encoder":
        raise InputError(
            "the model is an encoder: it reads texts and writes none",
            hint="lmworks fill fills its blanks, lmworks embed gives vectors of texts",
        )
    if not network.config.language_head:
        raise InputError("the model has no head for words, so it writes none", hint="take it with its head")


def check_prompts(network: Transformer, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse what cannot be continued.

    Raises:
        InputError: the network writes no texts; a prompt is empty or too long.
    """
    check_writes(network)
    both, most = network.config.architecture == "encoder-decoder", longest(network)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError("the prompt is empty", f"prompt {number + 1}", "give at least one token to continue from")
        if most is not None and len(prompt) >= most + both:  # a decoder needs room for one more
            raise InputError(
                f"the prompt has {len(prompt)} tokens, the model's context holds {most}",
                f"prompt {number + 1}",
                f"shorten it to fewer than {most + both} tokens",
            )


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of texts, neighbours in length together, as many as a row holds."""
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if not groups or sizes[index] > room:
            groups.append([])
            room = ROW_TOKENS
        groups[-1].append(index)
        room -= sizes[index]
    return groups


def start_of(rules: Rules) -> int:
    """What the decoder of an encoder-decoder begins with.

    Raises:
        InputError: nothing says it.
    """
    if rules.start is None:
        raise InputError(
            "it is not said what the decoder begins with",
            "generation_config.json",
            'write there "decoder_start_token_id", as the model was trained',
        )
    return rules.start
