"""LoRA: trainable low-rank updates of frozen linears (Hu et al. 2021). The layer itself is in adapt/low_rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from lmworks.adapt.method import AdapterMethod
from lmworks.adapt.targets import ALL_LINEAR, SomeTargets, matching_linears
from lmworks.base.errors import InputError
from lmworks.base.seeds import derived_seed
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    import torch

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

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`; the base is always kept. Each A is drawn from the seed and its linear's name."""
        import torch

        from lmworks.adapt.low_rank import DoRALinear, LoRALinear
        from lmworks.model.surgery import put

        self.freeze_base(network, "LoRA")
        names = matching_linears(network, self.settings.target_modules, "lora.target_modules")
        rank, scale, dropout = self.settings.rank, self.settings.scale, self.settings.dropout
        kind = DoRALinear if self.settings.use_dora else LoRALinear
        for name in names:
            generator = torch.Generator().manual_seed(derived_seed(seed, name))
            put(network, name, kind(network.get_submodule(name), rank, scale, dropout, generator))

    def notes(self, config: ModelConfig) -> list[str]:
        """See :meth:`Method.notes`."""
        ratio = self.settings.loraplus_lr_ratio
        return [f"LoRA+: the learning rate of lora_B is {ratio:g} times that of all else"] if ratio != 1 else []

    def learning_rate_factors(self, network: Transformer) -> dict[str, float]:
        """See :meth:`Method.learning_rate_factors`."""
        ratio = self.settings.loraplus_lr_ratio
        return {name: ratio for name, _ in network.named_parameters() if ratio != 1 and name.endswith(".lora_B")}

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.adapt import lora_files
        from lmworks.adapt.adapters import adapters
        from lmworks.adapt.low_rank import DoRALinear, LoRALinear, weight_of
        from lmworks.model.row_factors import row_norms
        from lmworks.model.surgery import named_linears

        present = {name: module for name, module in adapters(network) if isinstance(module, LoRALinear)}
        if not present:
            raise InputError("this network has no adapter to save", hint="save the whole model")
        factors = {}
        for name, module in present.items():
            magnitude = module.lora_magnitude_vector.detach() if isinstance(module, DoRALinear) else None
            factors[name] = lora_files.Factors(module.lora_A.detach(), module.lora_B.detach(), module.scale, magnitude)
        outputs = {
            name: int(module.out_features)  # type: ignore[arg-type]
            for name, module in named_linears(network)
            if not name.endswith(".base")
        }
        first = next(iter(present.values()))

        def norms(name: str) -> torch.Tensor:
            return row_norms(weight_of(network.get_submodule(name)))

        of_rows = norms if isinstance(first, DoRALinear) else None
        return lora_files.to_files(factors, outputs, family, network.config, first.dropout, of_rows)

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.adapt import lora_files
        from lmworks.adapt.low_rank import DoRALinear, LoRALinear
        from lmworks.model.surgery import put

        dropout = float(files.config.get("lora_dropout") or 0.0)
        modules = {}
        for name, factors in lora_files.read(files, family, network.config).items():
            linear = network.get_submodule(name)
            shape, expected = (len(factors.b), factors.a.shape[1]), (linear.out_features, linear.in_features)
            if shape != expected:
                fault, hint = (
                    f"the adapter's {name} is {shape}, the model's {expected}",
                    "load the adapter onto the base that it was trained on",
                )
                raise InputError(fault, str(files.folder), hint)
            kind = LoRALinear if factors.magnitude is None else DoRALinear
            module = modules[name] = kind(linear, factors.rank, factors.scale, dropout)
            module.lora_A.data.copy_(factors.a)
            module.lora_B.data.copy_(factors.b)
            if isinstance(module, DoRALinear) and factors.magnitude is not None:
                module.lora_magnitude_vector.data.copy_(factors.magnitude)
        for name, module in modules.items():
            put(network, name, module.train(network.training))
