"""ModelConfig: the architecture of a model as data. Imports no torch and knows no published family.

The names are Hugging Face's. A config describes encoder-only, decoder-only and encoder-decoder models; a
published family is a translation of its config.json into this one (families/).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from lmworks.base.settings import Settings
from lmworks.data.batch import LANGUAGE

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "gelu_tanh", "silu"]
Layer = Literal["attention", "rnn", "gru", "lstm", "convolution"]
LayerKind = Literal["full_attention", "sliding_attention"]
Positions = Literal["learned", "sinusoidal", "sinusoidal_halves", "rotary", "relative", "none"]
Initialization = Literal["normal", "truncated", "gpt2", "xavier", "t5"]
MOST_LAYERS = 10_000
"""Ten times the layers of the deepest published transformer (DeepNet, Wang et al. 2022)."""
MOST_WIDTH, MOST_HEADS, MOST_TOKENS = 2**24, 2**16, 2**32
"""With larger sizes the number of bytes of a matrix would exceed the range of a tensor's size."""
HeadKind = Literal["pooled", "first", "last", "tokens"]
ProblemType = Literal["single_label", "multi_label", "regression", "span"]


class RopeScaling(Settings):
    """How rotary positions stretch beyond the context the model was trained with.

    linear: Chen et al. 2023 (position interpolation). dynamic: NTK-aware base, chosen by the length seen.
    yarn: Peng et al. 2023. llama3: Llama 3.1's three bands of wavelengths. longrope: Ding et al. 2024, one factor
    per dimension, with separate factors for short and for long texts.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["linear", "dynamic", "yarn", "llama3", "longrope"]
    factor: float = Field(1.0, gt=0, description="How many times longer the context becomes.")
    original_max_position_embeddings: int | None = Field(None, description="Context length before scaling.")
    low_freq_factor: float = Field(1.0, description="llama3: wavelengths above original/low are fully interpolated.")
    high_freq_factor: float = Field(4.0, description="llama3: wavelengths below original/high stay as they are.")
    beta_fast: float = Field(32.0, description="yarn: rotations above which a dimension is not interpolated.")
    beta_slow: float = Field(1.0, description="yarn: rotations below which a dimension is fully interpolated.")
    attention_factor: float | None = Field(None, description="yarn: scale of the rotation; None: 0.1 ln(factor) + 1.")
    mscale: float | None = Field(None, description="yarn: DeepSeek's numerator of the attention factor.")
    mscale_all_dim: float | None = Field(None, description="yarn: DeepSeek's denominator of the attention factor.")
    truncate: bool = Field(True, description="yarn: round the edges of its bands to whole dimensions.")
    short_factor: tuple[float, ...] | None = Field(None, description="longrope: divisors of the rates, short texts.")
    long_factor: tuple[float, ...] | None = Field(None, description="longrope: divisors beyond the original context.")


class HeadConfig(Settings):
    """A head that classifies or rates, beside the language head or instead of it: see model/heads."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Names the head's labels, losses and weights.")
    kind: HeadKind = Field(
        description="What it reads: pooled: the pooler's vector of a text; first, last: that token's hidden state; "
        "tokens: each token's."
    )
    size: int = Field(gt=0, le=MOST_WIDTH, description="Number of outputs: classes, or values of a regression.")
    problem: ProblemType = Field(
        "single_label",
        description="single_label: one class a place; multi_label: any number of them; regression: a value for each "
        "output; span: the first output scores where a span starts, the second where it ends.",
    )
    labels: tuple[str, ...] = Field((), description="Names of the outputs; none: they have only numbers.")
    bias: bool = Field(True, description="Of the last linear.")
    dense: Activation | None = Field(None, description="A linear and this activation before the last linear.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the input of each linear of the head.")

    def places(self, length: int) -> range:
        """The tokens of a text of ``length`` tokens whose hidden states this head reads."""
        if self.kind == "tokens":
            return range(length)
        return range(length - 1, length) if self.kind == "last" else range(1)


class ModelConfig(Settings):
    """A transformer, or a model of recurrent or convolutional layers. Sizes count elements; rates are fractions."""

    model_config = ConfigDict(frozen=True)

    architecture: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    layer: Layer = Field(
        "attention",
        description="What a layer is: attention and feed-forward; a recurrent cell (model/recurrent), which needs "
        "neither positions nor norms; or convolutions over neighbouring tokens (model/convolution).",
    )
    kernel_sizes: tuple[int, ...] = Field((), description="convolution: tokens that each group of filters reads.")
    max_over_time: bool = Field(
        False, description="convolution: the state of every token is the maximum over its text, of each filter."
    )
    vocab_size: int = Field(gt=0, le=MOST_WIDTH)
    hidden_size: int = Field(gt=0, le=MOST_WIDTH)
    intermediate_size: int = Field(gt=0, le=MOST_WIDTH)
    num_hidden_layers: int = Field(
        gt=0, le=MOST_LAYERS, description="Layers of the stack (of the encoder, where there are two)."
    )
    num_decoder_layers: int | None = Field(
        None, gt=0, le=MOST_LAYERS, description="Layers of the decoder of an encoder-decoder."
    )
    num_layer_groups: int | None = Field(None, gt=0, description="Blocks that the layers share; None: one each.")
    num_attention_heads: int = Field(gt=0, le=MOST_HEADS)
    num_key_value_heads: int | None = Field(
        None, gt=0, description="Fewer than heads: grouped-query; 1: multi-query; None: one each."
    )
    head_dim: int | None = Field(None, gt=0, le=MOST_HEADS, description="Default: hidden_size / num_attention_heads.")
    max_position_embeddings: int = Field(gt=0, le=MOST_TOKENS, description="The longest context, in tokens.")

    embedding_size: int | None = Field(
        None, gt=0, le=MOST_WIDTH, description="Narrower embeddings, widened by a matrix; None: none."
    )
    embedding_scale: float = Field(1.0, gt=0, description="Token embeddings are multiplied by it.")
    embedding_norm: bool = Field(False, description="Normalise the sum of the embeddings.")
    type_vocab_size: int = Field(
        0, ge=0, le=MOST_WIDTH, description="Token types that have an embedding (first, second sentence)."
    )

    positions: Positions = Field("rotary", description="sinusoidal_halves: all sines, then all cosines.")
    position_offset: int = Field(
        0, ge=0, le=MOST_TOKENS, description="Rows of the position table before that of position 0."
    )
    relative_buckets: int = Field(
        32, gt=1, le=MOST_WIDTH, description="relative: distances that have a bias of their own."
    )
    relative_max_distance: int = Field(128, gt=1, description="relative: from here on all distances share a bias.")
    rope_theta: float = Field(10_000.0, gt=0)
    rope_local_theta: float | None = Field(None, gt=0, description="Of sliding layers; None: rope_theta.")
    rope_scaling: RopeScaling | None = None
    rotary_fraction: float = Field(1.0, gt=0, le=1, description="Fraction of each head's dimensions that is rotated.")

    norm: Literal["layer", "rms", "rms_offset"] = Field(
        "rms", description="rms_offset: weights are stored as weight - 1."
    )
    norm_eps: float = Field(1e-5, gt=0)
    norm_position: Literal["pre", "post", "both"] = Field("pre", description="both: each part's input and its output.")
    qk_norm: bool = Field(False, description="Normalise each head's queries and keys before rotation.")

    attention_scale: float | None = Field(None, gt=0, description="Of the scores; None: 1 / sqrt(head_dim).")
    attention_softcap: float | None = Field(None, gt=0, description="Scores become cap * tanh(score / cap).")
    sliding_window: int | None = Field(
        None, gt=0, description="Tokens that a sliding layer attends to, with the query's own."
    )
    layer_kinds: tuple[LayerKind, ...] | None = Field(None, description="One a layer; None: all alike.")

    activation: Activation = "silu"
    gated: bool = Field(True, description="down(act(gate(x)) * up(x)) instead of down(act(up(x))).")
    qkv_bias: bool = False
    output_bias: bool = Field(False, description="Bias of the attention's output projection.")
    mlp_bias: bool = False

    tie_word_embeddings: bool = True
    language_head: bool = Field(True, description="False: the model ends with hidden states.")
    head_transform: bool = Field(False, description="A linear, the activation and a norm before the head.")
    head_bias: bool = Field(False, description="A bias of each token's logit.")
    head_scale: float = Field(1.0, gt=0, description="Hidden states are multiplied by it before the head.")
    logit_softcap: float | None = Field(None, gt=0, description="Logits become cap * tanh(logit / cap).")
    pooler: bool = Field(False, description="tanh of a linear over the first token, for whole texts.")
    heads: tuple[HeadConfig, ...] = Field((), description="Classification heads, in addition to the language head.")

    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    hidden_dropout: float = Field(0.0, ge=0, lt=1, description="After each attention and feed-forward.")
    mlp_dropout: float = Field(0.0, ge=0, lt=1, description="Inside the feed-forward, after the activation.")
    initialization: Initialization = Field("normal", description="Of new weights; see model/initialization.")
    initializer_range: float = Field(0.02, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _without_attention(cls, values: Any) -> Any:
        """Layers other than attention have no heads, positions and norms, which need not be given, and one width: a
        written recipe, in which hidden_size is changed, is no contradiction."""
        if not isinstance(values, dict) or values.get("layer", "attention") == "attention":
            return values
        unused = {"num_attention_heads": 1, "positions": "none", "norm_position": "post"}
        return unused | values | {"intermediate_size": values.get("hidden_size")}

    @model_validator(mode="after")
    def _layers_agree(self) -> Self:
        if self.layer == "attention":
            if self.kernel_sizes or self.max_over_time:
                raise ValueError("kernel_sizes and max_over_time are those of layer convolution")
            return self
        expected = "encoder" if self.layer == "convolution" else "decoder"
        if self.architecture != expected:
            raise ValueError(f"a model of layer {self.layer} is of architecture {expected}, not {self.architecture}")
        fixed: dict[str, Any] = {"positions": "none", "norm_position": "post", "num_attention_heads": 1}
        fixed |= {"num_layer_groups": None, "layer_kinds": None, "sliding_window": None}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"layer {self.layer} has no use for {name} {getattr(self, name)}: leave it out")
        if self.is_recurrent and self.max_over_time:
            raise ValueError("max_over_time is of layer convolution")
        if self.layer == "convolution" and (not self.kernel_sizes or self.hidden_size % len(self.kernel_sizes)):
            raise ValueError(
                f"hidden_size {self.hidden_size} is divided among the groups of filters, of which kernel_sizes names "
                f"{len(self.kernel_sizes)}"
            )
        if any(size < 1 for size in self.kernel_sizes):
            raise ValueError("each of kernel_sizes is at least one token")
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} does not divide hidden_size {self.hidden_size}"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.key_value_heads} does not divide "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.positions == "rotary" and (self.rotary_size < 2 or self.rotary_size % 2):
            raise ValueError(f"rotary positions turn an even number of dimensions, not {self.rotary_size} of each head")
        if self.layer_kinds is not None and len(self.layer_kinds) != self.num_hidden_layers:
            raise ValueError(f"layer_kinds names {len(self.layer_kinds)} layers, not {self.num_hidden_layers}")
        if self.architecture == "encoder-decoder" and self.num_decoder_layers is None:
            raise ValueError("an encoder-decoder needs num_decoder_layers")
        if self.num_layer_groups is not None and self.num_layer_groups > self.num_hidden_layers:
            raise ValueError(f"num_layer_groups {self.num_layer_groups} is more than the layers that share them")
        if self.embedding_size is not None and self.language_head and not self.head_transform:
            raise ValueError("embedding_size needs head_transform: the head reads as narrow rows as the embeddings are")
        if any(head.kind == "pooled" for head in self.heads) and not self.pooler:
            raise ValueError("a head of kind pooled reads what the pooler makes of a text: set pooler")
        for head in self.heads:
            if head.labels and len(head.labels) != head.size:
                raise ValueError(f"head {head.name} has {head.size} outputs and {len(head.labels)} labels")
            if head.problem == "span" and (head.size, head.kind) != (2, "tokens"):
                raise ValueError(f"head {head.name} gives spans: it reads tokens and has two outputs")
        names = [head.name for head in self.heads]
        if LANGUAGE in names or len(set(names)) < len(names):
            raise ValueError(f"each head needs a name of its own, other than {LANGUAGE}: {', '.join(names)}")
        return self

    def head(self, name: str) -> HeadConfig | None:
        """The classification head of this name; None where there is none."""
        return next((head for head in self.heads if head.name == name), None)

    @property
    def is_recurrent(self) -> bool:
        """Whether its layers are recurrent cells, which keep a state in place of a KV cache."""
        return self.layer in ("rnn", "gru", "lstm")

    @property
    def head_size(self) -> int:
        """D, the size of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_size(self) -> int:
        """Dimensions of each head that are rotated."""
        return int(self.head_size * self.rotary_fraction)

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings and of the head's input."""
        return self.embedding_size or self.hidden_size

    @property
    def key_value_heads(self) -> int:
        """K, the number of key-value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    def window_of(self, layer: int) -> int | None:
        """The sliding window of a layer in tokens, or None with full attention."""
        if self.layer_kinds is None:
            return self.sliding_window
        return self.sliding_window if self.layer_kinds[layer] == "sliding_attention" else None

    def is_local(self, layer: int) -> bool:
        """Whether a layer has a sliding window and its own rotary base (rope_local_theta)."""
        return self.rope_local_theta is not None and self.window_of(layer) is not None
