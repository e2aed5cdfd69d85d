"""The transformer: encoder-only, decoder-only and encoder-decoder, from a ModelConfig.

The file follows the model: embeddings, a stack of blocks, a norm, a head. Recurrent or convolutional layers may stand
in place of the blocks (``config.layer``). It does not depend on families, texts, losses or adapters. It offers them
these inputs: embeddings instead of ids, an additive attention bias, a cache, segments (documents packed in a row), and
logits of selected tokens only. It may have virtual tokens in front of every document (model/virtual_tokens).
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lmworks.base.errors import InputError
from lmworks.kernels.activations import activate
from lmworks.kernels.dropout import dropout
from lmworks.model import convolution, recurrent
from lmworks.model.accumulation import embed
from lmworks.model.attention import Rotation
from lmworks.model.block import Block, BlockInputs
from lmworks.model.cache import Cache
from lmworks.model.config import ModelConfig
from lmworks.model.convolution import ConvolutionLayer
from lmworks.model.heads import Heads
from lmworks.model.linear import Linear, linear
from lmworks.model.masks import AttentionMask, document_lengths
from lmworks.model.norm import make_norm
from lmworks.model.positions import Rotary, sinusoids
from lmworks.model.recurrent import RecurrentLayer
from lmworks.model.relative import RelativeBias
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear
from lmworks.model.stored_layers import linear as stored_linear
from lmworks.model.token_rows import base_bias, base_table, rows_of
from lmworks.model.virtual_tokens import ExpandedRows, Prefix, Prefixes, SoftPrompt, VirtualTokens


class Output(NamedTuple):
    """Logits (B, T, V), or (N, V) with ``logits_to_keep``, and hidden states (B, T, E)."""

    logits: torch.Tensor
    hidden: torch.Tensor


class Inputs(TypedDict, total=False):
    """Inputs of a forward pass besides token ids; each may be left out or None.

    Attributes:
        embeddings: (B, T, embedding_width) instead of those of ids.
        positions: (B, T) int64, without virtual tokens; default: counted from the end of the cache.
        segments: (B, T) int64 document numbers: tokens attend within their own, 0 is padding; default: each row is one
            document.
        types: (B, T) int64 token types (first or second sentence), where the model has their embeddings; default 0.
        attention_bias: (B or 1, H or 1, T, S) added to the scores of self-attention.
        cache: keys and values of earlier tokens, virtual ones among them; extended by this call.
        memory: (B, S, E) output of :meth:`Transformer.encode`, for an encoder-decoder.
        memory_segments: (B, S) document numbers of the sources, 0 is padding; each document attends to the source with
            its number.
    """

    embeddings: torch.Tensor | None
    positions: torch.Tensor | None
    segments: torch.Tensor | None
    types: torch.Tensor | None
    attention_bias: torch.Tensor | None
    cache: Cache | None
    memory: torch.Tensor | None
    memory_segments: torch.Tensor | None


class Stack(nn.Module):
    """Positions, blocks in sequence, and a final norm where the blocks do not end with one."""

    def __init__(self, config: ModelConfig, layers: int, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.causal, self.depth = config, causal, layers
        self.recompute = 0  # activation checkpointing: number of lowest blocks that are recomputed in the backward pass
        learned, places = config.positions == "learned", config.max_position_embeddings + config.position_offset
        self.embed_positions = nn.Embedding(places, config.embedding_width) if learned else None
        self.embed_norm = make_norm(config, config.embedding_width) if config.embedding_norm else None
        self.relative_bias = RelativeBias(config, causal) if config.positions == "relative" else None
        groups = config.num_layer_groups or layers
        self.layers = nn.ModuleList(_make_layer(config, layer, cross) for layer in range(groups))
        self.norm = make_norm(config) if config.norm_position != "post" else None
        self._sinusoids = torch.empty(0, 0)

    def enter(self, embeddings: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Add positions (B, T) to token embeddings (B, T, embedding_width), then norm and dropout."""
        x = embeddings
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions + self.config.position_offset)
        elif self.config.positions in ("sinusoidal", "sinusoidal_halves"):
            x = x + self._sines(positions).to(x)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        return dropout(x, self.config.embedding_dropout) if self.training else x

    def run(
        self, x: torch.Tensor, shared: BlockInputs, cache: Cache | None = None, prefixes: Prefixes | None = None
    ) -> torch.Tensor:
        """Input embeddings (B, T, E) -> hidden states (B, T, E)."""
        if self.config.is_recurrent:
            states = None if cache is None else cache.states
            return recurrent.run(self.layers, x, shared.mask.query_segments, states, self.recompute)
        if self.config.layer == "convolution":
            return convolution.run(self.layers, x, shared.mask.query_segments, self.config)
        if self.relative_bias is not None:
            shared = shared._replace(relative=self.relative_bias.bias_of(shared.mask))
        for index in range(self.depth):
            layer = self.layers[index * len(self.layers) // self.depth]
            if prefixes is not None:
                shared = shared._replace(prefix=prefixes[index])
            if index < self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, shared, use_reentrant=False)
            else:
                x = layer(x, shared, None if cache is None else cache.layers[index])
        return x if self.norm is None else self.norm(x)

    def _sines(self, positions: torch.Tensor) -> torch.Tensor:
        length = int(positions.max()) + 1
        if len(self._sinusoids) < length or self._sinusoids.device != positions.device:
            table = sinusoids(1 << (length - 1).bit_length(), self.config.embedding_width)
            if self.config.positions == "sinusoidal_halves":
                table = torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)
            self._sinusoids = table.to(positions.device)
        return self._sinusoids[positions]


def _make_layer(config: ModelConfig, layer: int, cross: bool) -> nn.Module:
    if config.is_recurrent:
        return RecurrentLayer(config)
    return ConvolutionLayer(config) if config.layer == "convolution" else Block(config, layer, cross)


class HeadTransform(nn.Module):
    """norm(act(dense(x))) before the head, as BERT's masked-word head has it: (..., E) -> (..., embedding_width)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.dense = Linear(config.hidden_size, config.embedding_width)
        self.norm = make_norm(config, config.embedding_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(activate(self.activation, self.dense(x)))


class Transformer(Stack):
    """Token ids -> logits over the vocabulary.

    Args:
        config: the architecture. An encoder-decoder has its encoder as ``.encoder``; its own layers are the decoder.
    """

    def __init__(self, config: ModelConfig) -> None:
        has_encoder = config.architecture == "encoder-decoder"
        layers = (config.num_decoder_layers if has_encoder else None) or config.num_hidden_layers
        super().__init__(config, layers, causal=config.architecture != "encoder", cross=has_encoder)
        hidden, vocab_size, width = config.hidden_size, config.vocab_size, config.embedding_width
        self.embed_tokens: nn.Module = nn.Embedding(vocab_size, width)
        self.embed_types = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.embed_project = Linear(width, hidden) if config.embedding_size else None
        self.encoder = Stack(config, config.num_hidden_layers, causal=False) if has_encoder else None
        headed = config.language_head
        self.head_transform = HeadTransform(config) if headed and config.head_transform else None
        untied = headed and not config.tie_word_embeddings
        self.lm_head: nn.Module | None = Linear(width, vocab_size, bias=False) if untied else None
        self.head_bias = nn.Parameter(torch.zeros(vocab_size)) if headed and config.head_bias else None
        self.pooler = Linear(hidden, hidden) if config.pooler else None
        self.heads = Heads(config)
        self.grown_from: int | None = None  # the size of the vocabulary before tokens were added to it
        self.virtual_tokens: VirtualTokens | None = None
        # of layers whose weights were dequantized, by name: the quantized blocks
        self.dequantized_from: dict[str, WeightStorage] = {}
        rotary = config.positions == "rotary"
        self.rotary = Rotary(config) if rotary else None
        self.local_rotary = Rotary(config, local=True) if rotary and config.rope_local_theta is not None else None

    def forward(
        self, ids: torch.Tensor | None = None, *, logits_to_keep: torch.Tensor | None = None, **inputs: Unpack[Inputs]
    ) -> Output:
        """Hidden states and logits.

        Args:
            ids: (B, T) int64 token ids, or give ``embeddings``.
            logits_to_keep: (N,) int64 flat indices into B*T: compute logits of these tokens only.
            inputs: see :class:`Inputs`.
        """
        hidden = self.hidden_states(ids, **inputs)
        picked = hidden if logits_to_keep is None else hidden.flatten(0, 1).index_select(0, logits_to_keep)
        return Output(self.head(picked), hidden)

    def hidden_states(self, ids: torch.Tensor | None = None, **inputs: Unpack[Inputs]) -> torch.Tensor:
        """(B, T, E): the head's input. Arguments as in :meth:`forward`."""
        segments, cache, types = inputs.get("segments"), inputs.get("cache"), inputs.get("types")
        x = self.token_embeddings(ids, inputs.get("embeddings"))
        positions, count = inputs.get("positions"), self.num_virtual_tokens
        if positions is None:
            begin = 0 if cache is None else max(0, cache.length - count)
            positions = torch.arange(begin, begin + x.shape[1], device=x.device).expand(x.shape[:2])
        positions = positions + count if count else positions
        placed, numbers, rows = positions, segments, None  # of all tokens, and the rows that virtual ones are put into
        if count and (cache is None or not cache.length):
            rows = ExpandedRows.of(count, positions, segments)
            placed, numbers = rows.positions(positions), rows.segments(segments)
        virtual, prefixes = self.virtual_tokens, None
        if rows is not None and isinstance(virtual, SoftPrompt):
            x, positions = rows.insert(x, virtual.embeddings), placed
            types = None if types is None else rows.insert(types)
        elif rows is not None and isinstance(virtual, Prefix):
            prefixes = virtual.of_layers(rows)
        x = self._enter(self, x, positions, types)
        mask, memory_mask = self._mask(placed, numbers, cache), None
        memory = inputs.get("memory")
        if memory is not None:
            memory_mask = _memory_mask(positions, segments, memory, inputs.get("memory_segments"))
        rotations, bias = self._rotations(positions, cache, x.dtype), inputs.get("attention_bias")
        x = self.run(x, BlockInputs(mask, *rotations, bias, None, memory, memory_mask), cache, prefixes)
        return x if rows is None or prefixes is not None else rows.hidden_states_of(x, self.config)

    def token_embeddings(self, ids: torch.Tensor | None, embeddings: torch.Tensor | None = None) -> torch.Tensor:
        """The scaled embeddings of tokens alone, without positions and types: (B, T, embedding_width)."""
        if (ids is None) == (embeddings is None):
            raise ValueError("give either ids or embeddings")
        x = embeddings
        if x is None:
            assert ids is not None
            layer = self.embed_tokens
            try:
                x = embed(layer.weight, ids) if type(layer) is nn.Embedding else layer(ids)
            except IndexError as error:
                size = self.config.vocab_size
                wrong = int(ids.max() if ids.max() >= size else ids.min())
                hint = f"give ids from 0 to {size - 1}, as the model's own tokenizer does"
                fault = f"there is no token with id {wrong}: the embedding has {size} rows"
                raise InputError(fault, hint=hint) from error
        if self.config.embedding_scale != 1.0:
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype)  # rounded to the embeddings' width
        return x

    def recompute_lowest(self, blocks: int) -> None:
        """Activation checkpointing: the lowest ``blocks`` blocks, the encoder's first, save only their input and
        recompute their activations in the backward pass."""
        self.recompute = blocks
        if self.encoder is not None:
            self.encoder.recompute, self.recompute = blocks, max(0, blocks - self.encoder.depth)

    def keep_encoder(self) -> None:
        """Take the decoder away: the encoder's blocks become the model's own, which is an encoder alone then."""
        encoder = self.encoder
        if encoder is None:
            raise ValueError(f"a {self.config.architecture} has no separate encoder")
        self.encoder, self.causal, self.depth = None, False, encoder.depth
        self.layers, self.norm, self.embed_norm = encoder.layers, encoder.norm, encoder.embed_norm
        self.embed_positions, self.relative_bias = encoder.embed_positions, encoder.relative_bias

    def encode(
        self, ids: torch.Tensor, segments: torch.Tensor | None = None, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, S) source ids -> (B, S, E) memory for the decoder."""
        if self.encoder is None:
            raise ValueError(f"a {self.config.architecture} has no separate encoder")
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        x = self._enter(self.encoder, self.token_embeddings(ids), positions, None)
        lengths = document_lengths(segments) if segments is not None and len(segments) == 1 else ()
        mask = AttentionMask(False, positions, positions, segments, segments, lengths)
        return self.encoder.run(x, BlockInputs(mask, *self._rotations(positions, None, x.dtype)))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., E) hidden states -> (..., V) logits; the hidden states themselves where there is no head."""
        if not self.config.language_head:
            return hidden
        rows = self.before_head(hidden)
        if self.lm_head is None:
            storage, updates, bias = self.head_storage, rows_of(self.embed_tokens), self.head_bias
            own = base_bias(bias, len(self.head_weight) if storage is None else storage.shape[0])
            logits = linear(rows, self.head_weight, own) if storage is None else stored_linear(rows, storage, own)
            return self.softcap(logits if updates is None else updates.put(logits, rows, bias))
        logits = self.lm_head(rows)
        return self.softcap(logits if self.head_bias is None else logits + self.head_bias)

    def before_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., E) hidden states -> (..., embedding_width) input of the head's matrix."""
        if self.head_transform is not None:
            hidden = self.head_transform(hidden)
        return hidden if self.config.head_scale == 1.0 else hidden * self.config.head_scale

    def softcap(self, logits: torch.Tensor) -> torch.Tensor:
        """cap * tanh(logits / cap), with the config's cap; the logits themselves without one."""
        cap = self.config.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def head_logits(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """(N, E) hidden states of the tokens that a classification head reads -> (N, C) logits of its classes."""
        return self.heads.logits(name, hidden, self.pooler)

    @property
    def head_weight(self) -> torch.Tensor:
        """(V, embedding_width): the head's matrix; that of the embeddings if they are tied."""
        return self.head_table.get_parameter("weight")

    @property
    def head_storage(self) -> WeightStorage | None:
        """The storage of the head's matrix, if it has one; else None."""
        layer = self.head_table
        return layer.storage if isinstance(layer, StoredEmbedding | StoredLinear) else None

    @property
    def head_table(self) -> nn.Module:
        """The module that has the head's matrix, beneath rows that an adapter puts into it."""
        return base_table(self.embed_tokens if self.lm_head is None else self.lm_head)

    @property
    def num_virtual_tokens(self) -> int:
        """Virtual tokens that it reads before every text."""
        virtual = self.virtual_tokens
        return virtual.count if virtual is not None and virtual.enabled else 0

    @property
    def soft_prompt_length(self) -> int:
        """Those among them that pass through the layers."""
        return self.num_virtual_tokens if isinstance(self.virtual_tokens, SoftPrompt) else 0

    @property
    def max_text_tokens(self) -> int:
        """Tokens of the longest text: the context without virtual tokens."""
        return self.config.max_position_embeddings - self.num_virtual_tokens

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its embeddings and of the blocks' input."""
        table = base_table(self.embed_tokens)
        return torch.float32 if isinstance(table, StoredEmbedding) else table.get_parameter("weight").dtype

    def _enter(
        self, stack: Stack, x: torch.Tensor, positions: torch.Tensor, types: torch.Tensor | None
    ) -> torch.Tensor:
        """Embeddings of tokens -> the input of a stack's first block: (B, T, E)."""
        if self.embed_types is not None:
            x = x + (self.embed_types.weight[0] if types is None else self.embed_types(types))
        x = stack.enter(x, positions)
        return x if self.embed_project is None else self.embed_project(x)

    def _mask(self, positions: torch.Tensor, segments: torch.Tensor | None, cache: Cache | None) -> AttentionMask:
        if cache is None:
            lengths: tuple[int, ...] = ()
            if segments is not None and len(segments) == 1:
                lengths = document_lengths(segments)
            return AttentionMask(self.causal, positions, positions, segments, segments, lengths)
        fresh = cache.length == 0
        cache.append_positions(positions, segments)
        if fresh:
            return AttentionMask(self.causal, positions, positions, segments, segments)
        query_segments = segments
        if cache.segments is not None and segments is None:
            query_segments = torch.ones_like(positions)
        step = positions.shape[1] == 1 and cache.segments is None
        return AttentionMask(self.causal, positions, cache.positions, query_segments, cache.segments, all_visible=step)

    def _rotations(self, positions: torch.Tensor, cache: Cache | None, dtype: torch.dtype) -> tuple[Rotation, Rotation]:
        """Rotations of layers with full attention, and of sliding layers if these have their own base."""
        return tuple(_rotation(rotary, positions, cache, dtype) for rotary in (self.rotary, self.local_rotary))  # type: ignore[return-value]


def _rotation(rotary: Rotary | None, positions: torch.Tensor, cache: Cache | None, dtype: torch.dtype) -> Rotation:
    if rotary is None:
        return Rotation()
    if cache is None or not rotary.depends_on_length:
        return Rotation(rotary.cos_sin(positions, dtype))
    # The rates depend on the length so far, for queries and for all cached keys.
    cos, sin = rotary.cos_sin(cache.positions, dtype)
    length = positions.shape[1]
    return Rotation((cos[:, -length:], sin[:, -length:]), (cos, sin))


def _memory_mask(
    positions: torch.Tensor,
    segments: torch.Tensor | None,
    memory: torch.Tensor,
    memory_segments: torch.Tensor | None,
) -> AttentionMask:
    """Tokens of the decoder attend to the source of their document, without its padding."""
    keys = torch.arange(memory.shape[1], device=memory.device).expand(memory.shape[:2])
    if memory_segments is None:
        return AttentionMask(False, positions, keys)
    own = (
        torch.ones_like(positions) if segments is None else segments.clamp(min=1)
    )  # padding needs a key to attend to as well
    flat = len(own) == 1 and torch.equal(own.unique_consecutive(), memory_segments.unique_consecutive())
    lengths = (document_lengths(own), document_lengths(memory_segments)) if flat else ((), ())
    return AttentionMask(False, positions, keys, own, memory_segments, *lengths)
