"""Prefix tuning: in each layer the keys and values of virtual tokens before every text are all that is trained
(Li & Liang 2021)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lmworks.adapt.prompt_learning import PromptLearning, PromptLearningSettings
from lmworks.base.errors import InputError

if TYPE_CHECKING:
    import torch

    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer
    from lmworks.model.virtual_tokens import VirtualTokens

# With prefix_projection peft trains a network that gives the prefix, and saves what it gives.
READ_KEYS = {"prefix_projection", "encoder_hidden_size", "init_weights"}


class PrefixTuningSettings(PromptLearningSettings):
    """A prefix: trained keys and values of virtual tokens in each layer (Li & Liang 2021)."""

    init_name: ClassVar[str] = "prefix_tuning_init"

    prefix_tuning_init: Literal["TEXT", "SAMPLE_VOCAB", "RANDOM"] | None = Field(
        None,
        description="What they start as: the model's own keys and values of a text (section 7.4), those of random "
        "tokens of the vocabulary, or small normal numbers; None: TEXT if there is a text, else SAMPLE_VOCAB.",
    )
    prefix_tuning_init_text: str | None = Field(
        None, description="Text to start from, for instance what the task is; repeated to num_virtual_tokens."
    )


class PrefixTuning(PromptLearning[PrefixTuningSettings]):
    """A prefix; everything else is frozen, but for the head of a task."""

    name = "prefix_tuning"
    summary = "keys and values of virtual tokens before every text"
    settings_class = PrefixTuningSettings
    learning_rate = 1e-2
    head_learning_rate = 3e-3
    pretraining_learning_rate = 1e-2
    peft_type = "PREFIX_TUNING"

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """See :meth:`PromptLearning.check`: keys are rotated before they are cached, or not at all."""
        kind = None if config.rope_scaling is None else config.rope_scaling.kind
        if kind in ("dynamic", "longrope"):
            fault = f"{cls.name} does not fit rotations that change with the length of a text ({kind})"
            raise InputError(fault, "method", "--method prompt_tuning")
        if config.positions == "relative":
            raise InputError(f"{cls.name} does not fit relative positions", "method", "--method prompt_tuning")

    def initial(self, network: Transformer, ids: torch.Tensor, generator: torch.Generator) -> VirtualTokens:
        """See :meth:`PromptLearning.initial`."""
        import torch

        from lmworks.model.cache import Cache
        from lmworks.model.virtual_tokens import Prefix

        config = network.config
        shape = (network.depth, 2, len(ids), config.key_value_heads, config.head_size)
        if ids.is_meta:
            return Prefix(torch.empty(shape, device=ids.device))
        if self.settings.prefix_tuning_init == "RANDOM":
            return Prefix(0.02 * torch.randn(shape, generator=generator).to(ids.device))
        training = network.training
        cache = Cache(config, 1, len(ids), network.dtype, ids.device)
        with torch.no_grad():
            network.eval().hidden_states(ids[None], cache=cache)
        network.train(training)
        layers = [torch.stack(layer.keys_and_values)[:, 0].transpose(1, 2) for layer in cache.layers]
        return Prefix(torch.stack(layers).float())

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.model.virtual_tokens import Prefix

        if not isinstance(network.virtual_tokens, Prefix):
            raise InputError("this network has no prefix to save", hint="save the whole model")
        heads, size = network.config.key_value_heads, network.config.head_size
        config = {"token_dim": heads * size, "num_attention_heads": heads, "prefix_projection": False}
        by_token = network.virtual_tokens.keys_and_values.permute(2, 0, 1, 3, 4)
        return cls._files(network, by_token.flatten(1), {**config, "encoder_hidden_size": None})

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.model.virtual_tokens import Prefix

        config = network.config
        shape = (network.depth, 2, config.key_value_heads, config.head_size)
        tensor = cls._tensor(network, files, math.prod(shape), READ_KEYS)
        if files.config.get("num_attention_heads") not in (None, config.key_value_heads):
            given, own = files.config["num_attention_heads"], config.key_value_heads
            fault = f"num_attention_heads is {given}, and the model has {own} key-value heads"
            raise InputError(fault, files.config_path, "load the adapter onto the base that it was trained on")
        by_layer = tensor.unflatten(1, shape).permute(1, 2, 0, 3, 4).contiguous()
        network.virtual_tokens = Prefix(by_layer.to(network.device)).train(network.training)
