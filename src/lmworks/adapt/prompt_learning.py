"""Base class of methods that learn virtual tokens in front of every text (model/virtual_tokens) and freeze all weights.

PEFT calls them prompt learning. In its folders they are one tensor, ``prompt_embeddings``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from lmworks.adapt.method import AdapterMethod
from lmworks.base.errors import InputError
from lmworks.base.seeds import derived_seed
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    import torch

    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer
    from lmworks.model.virtual_tokens import VirtualTokens
    from lmworks.text.tokenizer import Tokenizer

TENSOR = "prompt_embeddings"
READ_KEYS = {"num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"}


class PromptLearningSettings(Settings):
    """Settings of virtual tokens. A subclass has the settings of their start: ``init_name``, what they start as, and
    the text of ``init_name`` + ``_text``."""

    init_name: ClassVar[str]

    num_virtual_tokens: int = Field(20, gt=0, description="Virtual tokens before every text; they use up its context.")

    @property
    def text_name(self) -> str:
        """The name of the setting of the text to start from."""
        return f"{self.init_name}_text"

    @property
    def text(self) -> str | None:
        """The text to start from."""
        return getattr(self, self.text_name)

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        start = getattr(self, self.init_name)
        if self.text is None and start == "TEXT":
            raise ValueError(f"{self.init_name} TEXT needs {self.text_name}, the text to start from")
        if self.text is not None and start not in (None, "TEXT"):
            raise ValueError(f"{self.text_name} is not used with {self.init_name} {start}: leave one of them out")
        return self


P = TypeVar("P", bound=PromptLearningSettings)


class PromptLearning(AdapterMethod[P]):
    """Trains virtual tokens, and the head of a task where there is one."""

    _ids: list[int] | None = None  # of the text to start from

    @property
    def num_virtual_tokens(self) -> int:
        """See :attr:`Method.num_virtual_tokens`."""
        return self.settings.num_virtual_tokens

    @abstractmethod
    def initial(self, network: Transformer, ids: torch.Tensor, generator: torch.Generator) -> VirtualTokens:
        """The virtual tokens before training.

        Args:
            network: the base.
            ids: (P,) token ids to start from.
            generator: for random values.
        """

    @classmethod
    @abstractmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse what this method does not fit, besides what no method of virtual tokens fits.

        Raises:
            InputError: it does not fit.
        """

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """See :meth:`Method.use_tokenizer`: the tokens of the text to start from, repeated to the number of virtual
        tokens, as PEFT does; PEFT cuts a longer text, here it is refused."""
        text, place = self.settings.text, f"{self.name}.{self.settings.text_name}"
        if text is None:
            return
        ids, count = tokenizer.encode(text), self.num_virtual_tokens
        if not ids:
            raise InputError("the text has no token", place, "give a text, for instance what the task is")
        if len(ids) > count:
            fault = f"the text has {len(ids)} tokens, more than the {count} virtual tokens"
            raise InputError(fault, place, f"--{self.name}.num_virtual_tokens {len(ids)}, or a shorter text")
        self._ids = (ids * -(-count // len(ids)))[:count]

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`; the base is always kept."""
        import torch

        from lmworks.adapt import adapters
        from lmworks.adapt.head_weights import head_parameters

        adapters.refuse_second(network)
        self._refuse(network.config)
        if self.num_virtual_tokens >= network.config.max_position_embeddings:
            context = network.config.max_position_embeddings
            fault = (
                f"{self.num_virtual_tokens} virtual tokens leave no room for a text in a context of {context} tokens"
            )
            hint = f"--{self.name}.num_virtual_tokens {max(1, context // 4)}"
            raise InputError(fault, f"{self.name}.num_virtual_tokens", hint)
        generator = torch.Generator().manual_seed(derived_seed(seed, self.name))
        network.requires_grad_(False)
        network.virtual_tokens = self.initial(network, self._start(network, generator), generator)
        network.virtual_tokens.train(network.training)
        for parameter in head_parameters(network).values():
            parameter.requires_grad_(True)

    def _start(self, network: Transformer, generator: torch.Generator) -> torch.Tensor:
        """(P,) ids of the tokens to start from: of the text, or drawn from the vocabulary."""
        import torch

        if self.settings.text is not None and self._ids is None and network.device.type != "meta":
            fault, place = "the text to start from was not encoded", f"{self.name}.{self.settings.text_name}"
            raise InputError(fault, place, "call use_tokenizer(model.tokenizer) before apply")
        if self._ids is not None:
            return torch.tensor(self._ids, device=network.device)
        drawn = torch.randint(network.config.vocab_size, (self.num_virtual_tokens,), generator=generator)
        return drawn.to(network.device)

    @classmethod
    def _refuse(cls, config: ModelConfig) -> None:
        """Refuse a model that this method does not fit.

        Raises:
            InputError: it does not fit.
        """
        if config.layer != "attention":
            fault = f"{cls.name} puts virtual tokens before the text for attention, and {config.layer} layers have none"
            raise InputError(fault, "method", "--method full trains such a model whole, as it was trained before")
        if config.architecture == "encoder-decoder":
            fault = f"{cls.name} is for decoders and encoders, and the model is an encoder-decoder"
            raise InputError(fault, "method", "--method lora")
        cls.check(config)

    @classmethod
    def write(cls, network: Transformer, folder: Path, family: Family, base: str = "") -> None:
        """See :meth:`AdapterMethod.write`."""
        from lmworks.adapt import adapter_folder, peft_files

        assert cls.peft_type is not None
        files = cls.to_files(network, family)
        adapter_folder.save(network, folder, family, files, cls.peft_type, base, peft_files.PROMPT_PREFIX)

    @classmethod
    def _files(cls, network: Transformer, tensor: torch.Tensor, config: dict[str, Any]) -> PeftFiles:
        """The files of an adapter: the tensor, and the keys that all these methods have besides the given ones."""
        from lmworks.adapt.peft_files import PeftFiles

        sizes: dict[str, Any] = {
            "num_virtual_tokens": len(tensor),
            "num_layers": network.config.num_hidden_layers,
            "num_transformer_submodules": 1,
        }
        if network.config.architecture == "encoder" and (network.config.language_head or not network.config.heads):
            sizes["task_type"] = "FEATURE_EXTRACTION"  # the one class of PEFT that puts prompts before such a model
        return PeftFiles({**sizes, **config}, {TENSOR: tensor.detach().contiguous()})

    @classmethod
    def _tensor(cls, network: Transformer, files: PeftFiles, width: int, read_keys: set[str]) -> torch.Tensor:
        """The tensor of an adapter's file.

        Args:
            network: the base.
            files: of the adapter.
            width: numbers of a virtual token in this model.
            read_keys: keys of the config that the method reads or may ignore, besides those of all these methods.

        Raises:
            InputError: the file has others, it is not for this model, or it uses features that are not computed here.
        """
        kinds: dict[str, tuple[type, ...]] = dict.fromkeys(READ_KEYS, (int,))
        files.check(kinds, READ_KEYS | read_keys)
        cls._refuse(network.config)
        hint = "load the adapter onto the base that it was trained on"
        if unexpected := sorted(files.tensors.keys() - {TENSOR}):
            raise InputError(
                f"unexpected tensor {unexpected[0]}", files.weights_path, "fetch or save the adapter again"
            )
        tensor = files.tensors.get(TENSOR)
        if tensor is None:
            raise InputError(f"{TENSOR} is missing", files.weights_path, "fetch or save the adapter again")
        count = files.config.get("num_virtual_tokens")
        if files.config.get("num_transformer_submodules") not in (None, 1):
            fault = f"num_transformer_submodules is {files.config['num_transformer_submodules']}, of an encoder-decoder"
            raise InputError(fault, files.config_path, hint)
        if tuple(tensor.shape) != (count, width):
            fault = f"{TENSOR} has the shape {tuple(tensor.shape)}, this model and config ask for {(count, width)}"
            raise InputError(fault, files.weights_path, hint)
        return tensor.float()
