"""Prompt tuning: the embeddings of virtual tokens before every text are all that is trained (Lester et al. 2021)."""

from __future__ import annotations

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

READ_KEYS = {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"}


class PromptTuningSettings(PromptLearningSettings):
    """A soft prompt: trained embeddings of virtual tokens before every text (Lester et al. 2021)."""

    init_name: ClassVar[str] = "prompt_tuning_init"

    prompt_tuning_init: Literal["TEXT", "SAMPLE_VOCAB", "RANDOM"] | None = Field(
        None,
        description="What the embeddings start as: those of a text, those of random tokens of the vocabulary, or "
        "normal numbers of the embeddings' mean and deviation; None: TEXT if there is a text, else SAMPLE_VOCAB.",
    )
    prompt_tuning_init_text: str | None = Field(
        None, description="Text to start from, for instance what the task is; repeated to num_virtual_tokens."
    )


class PromptTuning(PromptLearning[PromptTuningSettings]):
    """A soft prompt; everything else is frozen, but for the head of a task."""

    name = "prompt_tuning"
    summary = "embeddings of virtual tokens before every text"
    settings_class = PromptTuningSettings
    learning_rate = 1e-2
    head_learning_rate = 3e-3
    pretraining_learning_rate = 1e-2
    peft_type = "PROMPT_TUNING"

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """See :meth:`PromptLearning.check`: a text's first token is a virtual one for the heads that read it alone."""
        from lmworks.model.virtual_tokens import FIRST_TOKEN

        if len({head.kind in FIRST_TOKEN for head in config.heads}) > 1:
            fault = "heads that read a text's first token, which is a virtual one, are trained with heads that do not"
            raise InputError(fault, "tasks", f"train each task in a run of its own with {cls.name}; or --method lora")

    def initial(self, network: Transformer, ids: torch.Tensor, generator: torch.Generator) -> VirtualTokens:
        """See :meth:`PromptLearning.initial`."""
        import torch

        from lmworks.model.virtual_tokens import SoftPrompt

        with torch.no_grad():
            embeddings = network.token_embeddings(ids[None])[0].float()
        if self.settings.prompt_tuning_init == "RANDOM" and not embeddings.is_meta:
            sample = torch.randint(network.config.vocab_size, (1, 1000), generator=generator)
            known = network.token_embeddings(sample.to(ids.device)).detach().float()
            drawn = torch.randn(embeddings.shape, generator=generator)
            embeddings = known.mean() + known.std() * drawn.to(embeddings.device)
        return SoftPrompt(embeddings.clone())

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.model.virtual_tokens import SoftPrompt

        if not isinstance(network.virtual_tokens, SoftPrompt):
            raise InputError("this network has no soft prompt to save", hint="save the whole model")
        config = {
            "token_dim": network.config.embedding_width,
            "num_attention_heads": network.config.num_attention_heads,
            "prompt_tuning_init": "RANDOM",  # peft would look for a tokenizer, and start from its text, at each TEXT
            "prompt_tuning_init_text": None,
            "tokenizer_name_or_path": None,
        }
        return cls._files(network, network.virtual_tokens.embeddings, config)

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.model.virtual_tokens import SoftPrompt

        tensor = cls._tensor(network, files, network.config.embedding_width, READ_KEYS)
        network.virtual_tokens = SoftPrompt(tensor.to(network.device)).train(network.training)
