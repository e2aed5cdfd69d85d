"""LoRA: trainable low-rank updates of frozen linears (Hu et al. 2021). The layer itself is in adapt/low_rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from lmworks.adapt.method import AdapterMethod
from lmworks.adapt.targets import ALL_LINEAR, SomeTargets, matching_linears, output_sizes, split_names
from lmworks.base.errors import InputError
from lmworks.base.seeds import derived_seed
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    import torch

    from lmworks.adapt.lora_files import Factors
    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer


class LoRASettings(Settings):
    """Low-rank adaptation: small trainable updates of frozen linears (Hu et al. 2021)."""

    hints: ClassVar[dict[str, str]] = {
        "r": "it is --lora.rank",
        "lora_alpha": "it is --lora.alpha",
        "lora_dropout": "it is --lora.dropout",
        "targets": "it is --lora.target_modules",
        "bias": "biases stay frozen; --method bitfit trains them",
    }

    rank: int = Field(16, gt=0, description="Rank r of the update B A; parameters grow with it.")
    alpha: float = Field(32.0, gt=0, description="The update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the adapter's input in training.")
    target_modules: SomeTargets = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj"],
        description=f"Linears to adapt: names, patterns (layers.1?.mlp.*), or {ALL_LINEAR}: all but the head.",
    )
    use_rslora: bool = Field(False, description="Multiply by alpha / sqrt(rank) instead (Kalajdzievski 2023).")
    use_dora: bool = Field(
        False, description="DoRA (Liu et al. 2024): train the length of each row of the updated weight as well."
    )
    loraplus_lr_ratio: float = Field(
        1.0, ge=1, description="LoRA+ (Hayou et al. 2024): the learning rate of B is this many times that of A."
    )
    trainable_token_indices: list[int] = Field(
        default=[],
        description="Ids of tokens whose rows of embeddings and head are trained; those of new_tokens are added.",
    )
    new_tokens: list[str] = Field(
        default=[], description="Tokens that the tokenizer gets; their rows begin as the mean of all and are trained."
    )

    @field_validator("trainable_token_indices", "new_tokens", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_names(value)

    @field_validator("new_tokens")
    @classmethod
    def _whole_tokens(cls, value: list[str]) -> list[str]:
        if any(not token or token != token.strip() for token in value):
            raise ValueError("a token is a text without spaces around it")
        return list(dict.fromkeys(value))

    @field_validator("trainable_token_indices")
    @classmethod
    def _ids(cls, value: list[int]) -> list[int]:
        if any(index < 0 for index in value):
            raise ValueError("ids of tokens are 0 or more")
        return sorted(set(value))

    @property
    def scale(self) -> float:
        """Factor of the update B A."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


class LoRA(AdapterMethod[LoRASettings]):
    """Low-rank updates of the linears that ``target_modules`` match; all other weights are frozen."""

    name = "lora"
    summary = "small low-rank updates of frozen weights"
    settings_class = LoRASettings
    default_for = frozenset({"opened"})
    learning_rate = 2e-4
    head_learning_rate = 1e-3
    pretraining_learning_rate = 2e-4
    peft_type = "LORA"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"lora": {}, "dora": {"use_dora": True}}

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`; the base is always kept. Each A is drawn from the seed and its linear's name."""
        import torch

        from lmworks.adapt.low_rank import DoRALinear, LoRALinear
        from lmworks.model.surgery import put

        self.freeze_base(network, "LoRA")
        names = matching_linears(network, self.settings.target_modules, f"{self.name}.target_modules")
        rank, scale, dropout = self.settings.rank, self.settings.scale, self.settings.dropout
        kind = DoRALinear if self.settings.use_dora else LoRALinear
        for name in names:
            generator = torch.Generator().manual_seed(derived_seed(seed, name))
            put(network, name, kind(network.get_submodule(name), rank, scale, dropout, generator))
        if self.settings.trainable_token_indices:
            self._train_rows(network)

    @property
    def new_tokens(self) -> list[str]:
        """See :attr:`Method.new_tokens`."""
        return self.settings.new_tokens

    def train_tokens(self, ids: Sequence[int]) -> None:
        """See :meth:`Method.train_tokens`."""
        self.settings.trainable_token_indices = sorted({*self.settings.trainable_token_indices, *ids})

    def notes(self, config: ModelConfig) -> list[str]:
        """See :meth:`Method.notes`."""
        ratio = self.settings.loraplus_lr_ratio
        return [f"LoRA+: the learning rate of lora_B is {ratio:g} times that of all else"] if ratio != 1 else []

    def learning_rate_factors(self, network: Transformer) -> dict[str, float]:
        """See :meth:`Method.learning_rate_factors`."""
        ratio = self.settings.loraplus_lr_ratio
        return {name: ratio for name, _ in network.named_parameters() if ratio != 1 and name.endswith(".lora_B")}

    def _train_rows(self, network: Transformer) -> None:
        """Make rows trainable, in the embeddings and in a head with a matrix of its own."""
        from lmworks.adapt.token_rows_files import TABLES
        from lmworks.model.surgery import put

        ids, size, place = (
            self.settings.trainable_token_indices,
            network.config.vocab_size,
            f"{self.name}.trainable_token_indices",
        )
        if ids[-1] >= size:
            hint = f"give ids below {size}; {self.name}.new_tokens adds tokens"
            raise InputError(f"there is no token with id {ids[-1]}: the model has {size}", place, hint)
        if network.encoder is not None:
            fault = "rows of tokens are trained in decoders and encoders; this is both"
            raise InputError(fault, place, "leave it out, or take --method full")
        for name, rows in TABLES.items():
            table = getattr(network, name)
            if hasattr(table, "lora_A"):
                hint = f"leave {name} out of {self.name}.target_modules"
                raise InputError(f"{name} has an update of the whole matrix already", place, hint)
            if table is not None:
                put(network, name, rows(table, ids).train(network.training))

    def detach(self, network: Transformer) -> None:
        """See :meth:`Method.detach`; tokens that a loaded adapter added go with it."""
        from lmworks.adapt.token_rows import table_size
        from lmworks.model import vocabulary

        super().detach(network)
        if (size := table_size(network.embed_tokens)) < network.config.vocab_size:
            vocabulary.set_size(network, size)

    @classmethod
    def factors(cls, network: Transformer) -> dict[str, Factors]:
        """The updates of a network, by the names of the adapted linears; their tensors are the network's own."""
        from lmworks.adapt.adapters import adapters
        from lmworks.adapt.lora_files import Factors
        from lmworks.adapt.low_rank import DoRALinear, LoRALinear

        updates = {}
        for name, module in adapters(network):
            if isinstance(module, LoRALinear):
                magnitude = module.lora_magnitude_vector.detach() if isinstance(module, DoRALinear) else None
                updates[name] = Factors(module.lora_A.detach(), module.lora_B.detach(), module.scale, magnitude)
        return updates

    @classmethod
    def put(cls, network: Transformer, updates: Mapping[str, Factors], dropout: float, place: str = "") -> None:
        """Put updates around the linears of a network that has no adapter.

        Args:
            network: changed in place.
            updates: by our names of the linears; their tensors are copied.
            dropout: of further training.
            place: where the updates are from, for errors.

        Raises:
            InputError: a linear has another shape; the network is left as it was.
        """
        from lmworks.adapt.low_rank import DoRALinear, LoRALinear
        from lmworks.model.surgery import put

        modules = {}
        for name, update in updates.items():
            linear = network.get_submodule(name)
            shape, expected = (len(update.b), update.a.shape[1]), (linear.out_features, linear.in_features)
            if shape != expected:
                fault = f"the adapter's {name} is {shape}, the model's {expected}"
                raise InputError(fault, place, "load the adapter onto the base that it was trained on")
            kind = LoRALinear if update.magnitude is None else DoRALinear
            module = modules[name] = kind(linear, update.rank, update.scale, dropout)
            module.lora_A.data.copy_(update.a)
            module.lora_B.data.copy_(update.b)
            if isinstance(module, DoRALinear) and update.magnitude is not None:
                module.lora_magnitude_vector.data.copy_(update.magnitude)
        for name, module in modules.items():
            put(network, name, module.train(network.training))

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.adapt import lora_files, token_rows_files
        from lmworks.adapt.low_rank import weight_of
        from lmworks.adapt.peft_files import PeftFiles
        from lmworks.model.row_factors import row_norms

        updates = cls.factors(network)
        if not updates:
            raise InputError("this network has no adapter to save", hint="save the whole model")
        dropout = float(network.get_submodule(next(iter(updates))).dropout)  # type: ignore[arg-type]

        def norms(name: str) -> torch.Tensor:
            return row_norms(weight_of(network.get_submodule(name)))

        files = lora_files.to_files(updates, output_sizes(network), family, network.config, dropout, norms)
        rows = token_rows_files.to_files(network, family)
        return PeftFiles({**files.config, **rows.config}, {**files.tensors, **rows.tensors})

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.adapt import lora_files, token_rows_files

        tables, rest = token_rows_files.read(network, files, family)
        updates = lora_files.read(rest, family, network.config)
        cls.put(network, updates, float(files.config.get("lora_dropout") or 0.0), str(files.folder))
        token_rows_files.put_rows(network, tables)
