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
    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.transformer import Transformer


class LoRASettings(Settings):
    """Low-rank adaptation: small trainable updates of frozen linears (Hu et al. 2021)."""

    hints: ClassVar[dict[str, str]] = {
        "r": "it is --lora.rank",
        "lora_alpha": "it is --lora.alpha",
        "lora_dropout": "it is --lora.dropout",
        "targets": "it is --lora.target_modules",
    }

    rank: int = Field(16, gt=0, description="Rank r of the update B A; parameters grow with it.")
    alpha: float = Field(32.0, gt=0, description="The update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the adapter's input in training.")
    target_modules: SomeTargets = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj"],
        description=f"Linears to adapt: names, patterns (layers.1?.mlp.*), or {ALL_LINEAR}: all but the head.",
    )
    use_rslora: bool = Field(False, description="Multiply by alpha / sqrt(rank) instead (Kalajdzievski 2023).")

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

        from lmworks.adapt.low_rank import LoRALinear
        from lmworks.model.surgery import put

        self.freeze_base(network, "LoRA")
        names = matching_linears(network, self.settings.target_modules, "lora.target_modules")
        rank, scale, dropout = self.settings.rank, self.settings.scale, self.settings.dropout
        for name in names:
            generator = torch.Generator().manual_seed(derived_seed(seed, name))
            put(network, name, LoRALinear(network.get_submodule(name), rank, scale, dropout, generator))

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.adapt import lora_files
        from lmworks.adapt.adapters import adapters
        from lmworks.adapt.low_rank import LoRALinear
        from lmworks.model.surgery import named_linears

        present = {name: module for name, module in adapters(network) if isinstance(module, LoRALinear)}
        if not present:
            raise InputError("this network has no adapter to save", hint="save the whole model")
        factors = {
            name: lora_files.Factors(module.lora_A.detach(), module.lora_B.detach(), module.scale)
            for name, module in present.items()
        }
        outputs = {
            name: int(module.out_features)  # type: ignore[arg-type]
            for name, module in named_linears(network)
            if not name.endswith(".base")
        }
        dropout = next(iter(present.values())).dropout
        return lora_files.to_files(factors, outputs, family, network.config, dropout)

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.adapt import lora_files
        from lmworks.adapt.low_rank import LoRALinear
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
            module = modules[name] = LoRALinear(linear, factors.rank, factors.scale, dropout)
            module.lora_A.data.copy_(factors.a)
            module.lora_B.data.copy_(factors.b)
        for name, module in modules.items():
            put(network, name, module.train(network.training))
