"""ModelConfig: what a model is, in numbers and words. Imports no torch and knows no published family.

The names are Hugging Face's. A config describes encoder-only, decoder-only and encoder-decoder models; a
published family is a translation of its config.json into this one (families/).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from lmworks.base.settings import Settings

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu", "gelu_tanh", "silu"]
LayerKind = Literal["full_attention", "sliding_attention"]


class RopeScaling(Settings):
    """How rotary positions stretch beyond the context the model was trained with.

    linear: Chen et al. 2023 (position interpolation). dynamic: NTK-aware base, chosen by the length seen.
    yarn: Peng et al. 2023. llama3: Llama 3.1's three bands of wavelengths.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["linear", "dynamic", "yarn", "llama3"]
    factor: float = Field(gt=0, description="How many times longer the context becomes.")
    original_max_position_embeddings: int | None = Field(None, description="Context length before scaling.")
    low_freq_factor: float = Field(1.0, description="llama3: wavelengths above original/low are fully interpolated.")
    high_freq_factor: float = Field(4.0, description="llama3: wavelengths below original/high stay as they are.")
    beta_fast: float = Field(32.0, description="yarn: rotations above which a dimension is not interpolated.")
    beta_slow: float = Field(1.0, description="yarn: rotations below which a dimension is fully interpolated.")
    attention_factor: float | None = Field(None, description="yarn: scale of the rotation; None: 0.1 ln(factor) + 1.")
    mscale: float | None = Field(None, description="yarn: DeepSeek's numerator of the attention factor.")
    mscale_all_dim: float | None = Field(None, description="yarn: DeepSeek's denominator of the attention factor.")
    truncate: bool = Field(True, description="yarn: round the borders of its bands to whole dimensions.")


class ModelConfig(Settings):
    """A transformer. Sizes count elements; rates are fractions."""

    model_config = ConfigDict(frozen=True)

    architecture: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0, description="Layers of the stack (of the encoder, where there are two).")
    num_decoder_layers: int | None = Field(None, description="Layers of the decoder of an encoder-decoder.")
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(None, description="Fewer than heads: grouped-query; 1: multi-query.")
    head_dim: int | None = Field(None, description="Default: hidden_size / num_attention_heads.")
    max_position_embeddings: int = Field(gt=0, description="The longest context, in tokens.")

    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "rotary"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None

    norm: Literal["layer", "rms"] = "rms"
    norm_eps: float = 1e-5
    norm_position: Literal["pre", "post"] = "pre"
    qk_norm: bool = Field(False, description="Normalise each head's queries and keys before rotation.")

    activation: Activation = "silu"
    gated: bool = Field(True, description="down(act(gate(x)) * up(x)) instead of down(act(up(x))).")
    qkv_bias: bool = False
    output_bias: bool = Field(False, description="Bias of the attention's output projection.")
    mlp_bias: bool = False

    sliding_window: int | None = Field(None, description="Tokens that a sliding layer looks back, itself included.")
    layer_kinds: tuple[LayerKind, ...] | None = Field(None, description="One a layer; None: all alike.")

    tie_word_embeddings: bool = True
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    hidden_dropout: float = Field(0.0, ge=0, lt=1, description="After each attention and feed-forward.")
    initializer_range: float = 0.02

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
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {self.head_size}")
        if self.layer_kinds is not None and len(self.layer_kinds) != self.num_hidden_layers:
            raise ValueError(f"layer_kinds names {len(self.layer_kinds)} layers, not {self.num_hidden_layers}")
        if self.architecture == "encoder-decoder" and self.num_decoder_layers is None:
            raise ValueError("an encoder-decoder needs num_decoder_layers")
        return self

    @property
    def head_size(self) -> int:
        """D, the size of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        """K, the number of key-value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    def window_of(self, layer: int) -> int | None:
        """The sliding window of a layer in tokens, or None where it sees everything."""
        if self.layer_kinds is None:
            return self.sliding_window
        return self.sliding_window if self.layer_kinds[layer] == "sliding_attention" else None
