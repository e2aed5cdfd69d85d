"""The one transformer: encoder-only, decoder-only and encoder-decoder, from a ModelConfig.

Reads as the model does: embeddings, a stack of blocks, a norm, a head. Knows nothing of published families, texts,
losses or adapters; its openings serve those: input embeddings in place of ids (soft prompts), additive attention bias
(relative positions), a cache with a prefix, segments (documents packed in a row), logits for picked places only.

    pre-norm block                          post-norm block
    x -+- norm - attention -- + -           x -+- attention -- + - norm -
       +----------------------+                +---------------+
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lmworks.model.attention import Attention, Turns
from lmworks.model.cache import Cache, LayerCache
from lmworks.model.config import ModelConfig
from lmworks.model.feedforward import FeedForward
from lmworks.model.masks import Sight, spans_of
from lmworks.model.norm import make_norm
from lmworks.model.positions import Rotary, sinusoids


class Output(NamedTuple):
    """What a forward pass gives: logits (B, T, V), or (N, V) where places were picked; hidden states (B, T, E)."""

    logits: torch.Tensor
    hidden: torch.Tensor


class Pass(NamedTuple):
    """What every block of one forward pass shares."""

    sight: Sight
    turns: Turns | None = None
    key_turns: Turns | None = None
    bias: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    memory_sight: Sight | None = None


class Block(nn.Module):
    """Attention and feed-forward with residuals round them; cross-attention between them where there is memory."""

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.dropout = config.hidden_dropout
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, window=config.window_of(layer))
        self.cross_attention_layernorm = make_norm(config) if cross else None
        self.cross_attn = Attention(config, cross=True) if cross else None
        self.post_attention_layernorm = make_norm(config)
        self.mlp = FeedForward(config)

    def forward(self, x: torch.Tensor, shared: Pass, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, E) -> (B, T, E)."""
        attend = self.self_attn
        x = self._residual(
            x,
            self.input_layernorm,
            lambda y: attend(y, shared.sight, shared.turns, shared.key_turns, shared.bias, cache),
        )
        cross = self.cross_attn
        if cross is not None and self.cross_attention_layernorm is not None:
            sight = shared.memory_sight
            assert sight is not None, "a block with cross-attention needs memory"
            x = self._residual(
                x, self.cross_attention_layernorm, lambda y: cross(y, sight, cache=cache, memory=shared.memory)
            )
        return self._residual(x, self.post_attention_layernorm, self.mlp)

    def _residual(self, x: torch.Tensor, norm: nn.Module, part: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        y = part(norm(x)) if self.pre_norm else part(x)
        if self.dropout and self.training:
            y = functional.dropout(y, self.dropout)
        return x + y if self.pre_norm else norm(x + y)


class Stack(nn.Module):
    """Blocks one upon another, and the norm that ends a pre-norm stack."""

    def __init__(self, config: ModelConfig, layers: int, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.recompute = False  # activation checkpointing: keep each block's input, compute the rest again
        self.layers = nn.ModuleList(Block(config, layer, cross) for layer in range(layers))
        self.norm = make_norm(config) if config.norm_position == "pre" else None

    def run(self, x: torch.Tensor, shared: Pass, cache: Cache | None = None) -> torch.Tensor:
        """Input embeddings (B, T, E) -> hidden states (B, T, E)."""
        for index, layer in enumerate(self.layers):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, shared, use_reentrant=False)
            else:
                x = layer(x, shared, None if cache is None else cache.layers[index])
        return x if self.norm is None else self.norm(x)


class Transformer(Stack):
    """Token ids -> logits over the vocabulary.

    Args:
        config: the whole description. An encoder-decoder has its encoder as ``.encoder``; its own layers decode.
    """

    def __init__(self, config: ModelConfig) -> None:
        both = config.architecture == "encoder-decoder"
        layers = (config.num_decoder_layers if both else None) or config.num_hidden_layers
        super().__init__(config, layers, causal=config.architecture != "encoder", cross=both)
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.positions == "learned"
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.encoder = Stack(config, config.num_hidden_layers, causal=False) if both else None
        tied = config.tie_word_embeddings
        self.lm_head: nn.Module | None = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = Rotary(config) if config.positions == "rotary" else None

    def forward(
        self,
        ids: torch.Tensor | None = None,
        *,
        embeddings: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        segments: torch.Tensor | None = None,
        attention_bias: torch.Tensor | None = None,
        cache: Cache | None = None,
        memory: torch.Tensor | None = None,
        memory_segments: torch.Tensor | None = None,
        only: torch.Tensor | None = None,
    ) -> Output:
        """Hidden states and logits.

        Args:
            ids: (B, T) int64 token ids, or give ``embeddings``.
            embeddings: (B, T, E) in place of ids.
            positions: (B, T) int64; default: counted from the end of the cache.
            segments: (B, T) int64: equal numbers see each other, 0 is padding; default: each row is one document.
            attention_bias: (B or 1, H or 1, T, S) added to the scores of self-attention.
            cache: what came before; extended by this call.
            memory: (B, S, E) output of :meth:`encode`, for an encoder-decoder.
            memory_segments: (B, S): 0 is padding.
            only: (N,) int64 flat indices into B*T: make logits there alone.
        """
        hidden = self.hidden_states(
            ids,
            embeddings=embeddings,
            positions=positions,
            segments=segments,
            attention_bias=attention_bias,
            cache=cache,
            memory=memory,
            memory_segments=memory_segments,
        )
        picked = hidden if only is None else hidden.flatten(0, 1).index_select(0, only)
        return Output(self.head(picked), hidden)

    def hidden_states(
        self,
        ids: torch.Tensor | None = None,
        *,
        embeddings: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        segments: torch.Tensor | None = None,
        attention_bias: torch.Tensor | None = None,
        cache: Cache | None = None,
        memory: torch.Tensor | None = None,
        memory_segments: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, T, E): what the head reads. Arguments as in :meth:`forward`."""
        if (ids is None) == (embeddings is None):
            raise ValueError("give either ids or embeddings")
        batch, length = (ids if embeddings is None else embeddings).shape[:2]  # type: ignore[union-attr]
        device = self.embed_tokens.weight.device
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + length, device=device).expand(batch, length)
        x = self._embed(ids, embeddings, positions)
        sight = self._sight(positions, segments, cache)
        turns, key_turns = self._turns(positions, cache, x.dtype)
        memory_sight = None
        if memory is not None:
            memory_sight = _memory_sight(positions, segments, memory, memory_segments)
        shared = Pass(sight, turns, key_turns, attention_bias, memory, memory_sight)
        return self.run(x, shared, cache)

    def encode(self, ids: torch.Tensor, segments: torch.Tensor | None = None) -> torch.Tensor:
        """(B, S) source ids -> (B, S, E) memory for the decoder."""
        if self.encoder is None:
            raise ValueError(f"a {self.config.architecture} has no encoder beside it")
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        x = self._embed(ids, None, positions)
        sight = Sight(False, positions, positions, segments, segments)
        turns, _ = self._turns(positions, None, x.dtype)
        return self.encoder.run(x, Pass(sight, turns))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., E) hidden states -> (..., V) logits."""
        return functional.linear(hidden, self.head_weight) if self.lm_head is None else self.lm_head(hidden)

    @property
    def head_weight(self) -> torch.Tensor:
        """(V, E): the head's matrix, which is the embedding's where they are tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.get_parameter("weight")

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every matrix anew from N(0, initializer_range); norms become 1, biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _embed(
        self, ids: torch.Tensor | None, embeddings: torch.Tensor | None, positions: torch.Tensor
    ) -> torch.Tensor:
        x = self.embed_tokens(ids) if embeddings is None else embeddings
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions)
        elif self.config.positions == "sinusoidal":
            table = sinusoids(int(positions.max()) + 1, x.shape[-1]).to(x)
            x = x + table[positions]
        if self.config.embedding_dropout and self.training:
            x = functional.dropout(x, self.config.embedding_dropout)
        return x

    def _sight(self, positions: torch.Tensor, segments: torch.Tensor | None, cache: Cache | None) -> Sight:
        if cache is None:
            spans: tuple[int, ...] = ()
            if segments is not None and len(segments) == 1:
                spans = spans_of(segments)
            return Sight(self.causal, positions, positions, segments, segments, spans)
        fresh = cache.length == 0
        cache.note(positions, segments)
        if fresh:
            return Sight(self.causal, positions, positions, segments, segments)
        query_segments = segments
        if cache.segments is not None and segments is None:
            query_segments = torch.ones_like(positions)
        step = positions.shape[1] == 1 and cache.segments is None
        return Sight(self.causal, positions, cache.positions, query_segments, cache.segments, step=step)

    def _turns(
        self, positions: torch.Tensor, cache: Cache | None, dtype: torch.dtype
    ) -> tuple[Turns | None, Turns | None]:
        if self.rotary is None:
            return None, None
        if cache is None or not self.rotary.depends_on_length:
            return self.rotary.turns(positions, dtype), None
        # Dynamic NTK: queries and all keys turn by the rates of the longest position seen by now.
        everywhere = self.rotary.turns(cache.positions, dtype)
        here = (everywhere[0][:, -positions.shape[1] :], everywhere[1][:, -positions.shape[1] :])
        return here, everywhere


def _memory_sight(
    positions: torch.Tensor,
    segments: torch.Tensor | None,
    memory: torch.Tensor,
    memory_segments: torch.Tensor | None,
) -> Sight:
    places = torch.arange(memory.shape[1], device=memory.device).expand(memory.shape[:2])
    if memory_segments is None:
        memory_segments = torch.ones_like(places)
    # every query, padding too, looks at the real tokens of the source
    return Sight(False, positions, places, torch.ones_like(positions), memory_segments)
