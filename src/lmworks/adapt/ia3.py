"""(IA)3: learned vectors that scale keys, values and the inner activations of the feed-forward (Liu et al. 2022).

The places are the paper's for every family, as PEFT has them for Llama, Mistral and T5; for some (Qwen, Gemma,
BART) PEFT scales queries instead of keys. Folders of either are opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lmworks.adapt.method import AdapterMethod
from lmworks.adapt.targets import SomeTargets, Targets, matching_linears, output_sizes
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.transformer import Transformer

SHARED_INPUT = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")


class IA3Settings(Settings):
    """(IA)3: a factor for each output of some linears, and for each input of others (Liu et al. 2022)."""

    target_modules: SomeTargets = Field(
        default=["k_proj", "v_proj", "down_proj"],
        description="Linears to scale: names, patterns (layers.1?.mlp.*), or all-linear.",
    )
    feedforward_modules: Targets = Field(
        default=["down_proj"], description="Those of target_modules whose input is scaled instead of the output."
    )


class IA3(AdapterMethod[IA3Settings]):
    """Scales of the linears that ``target_modules`` match; all other weights are frozen."""

    name = "ia3"
    summary = "learned scales of keys, values and feed-forward activations"
    settings_class = IA3Settings
    learning_rate = 3e-3
    head_learning_rate = 3e-3
    pretraining_learning_rate = 3e-3
    peft_type = "IA3"

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`; the base is always kept, and nothing is random."""
        from lmworks.adapt.scaled_linear import ScaledLinear
        from lmworks.model.surgery import put

        self.freeze_base(network, "(IA)3")
        names = matching_linears(network, self.settings.target_modules, "ia3.target_modules")
        of_input = set(matching_linears(network, self.settings.feedforward_modules, "ia3.feedforward_modules"))
        for name in sorted(of_input):
            self._check_input(name, names)
        for name in names:
            put(network, name, ScaledLinear(network.get_submodule(name), name in of_input))

    def _check_input(self, name: str, names: list[str]) -> None:
        """Raise if the input of a linear cannot be scaled."""
        last, place = name.rpartition(".")[2], "ia3.feedforward_modules"
        if name not in names:
            raise InputError(
                f"{name} is not among ia3.target_modules", place, f"add {last} there, or leave it out here"
            )
        if last in SHARED_INPUT:
            fault = f"{last} reads the same input as other linears, and some formats have them as one matrix"
            raise InputError(fault, place, f"leave {last} out: its output is scaled")

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.adapt import ia3_files
        from lmworks.adapt.adapters import adapters
        from lmworks.adapt.scaled_linear import ScaledLinear

        scales = {
            name: ia3_files.Scale(module.ia3_l.detach(), module.of_input)
            for name, module in adapters(network)
            if isinstance(module, ScaledLinear)
        }
        if not scales:
            raise InputError("this network has no (IA)3 to save", hint="save the whole model")
        return ia3_files.to_files(scales, output_sizes(network), family, network.config)

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.adapt import ia3_files
        from lmworks.adapt.scaled_linear import ScaledLinear
        from lmworks.model.surgery import put

        modules = {}
        for name, scale in ia3_files.read(files, family, network.config, output_sizes(network)).items():
            module = modules[name] = ScaledLinear(network.get_submodule(name), scale.of_input)
            if module.ia3_l.shape != scale.factors.shape:
                fault = f"the adapter has {len(scale.factors)} factors for {name}, the model {len(module.ia3_l)}"
                raise InputError(fault, str(files.folder), "load the adapter onto the base that it was trained on")
            module.ia3_l.data.copy_(scale.factors)
        for name, module in modules.items():
            put(network, name, module.train(network.training))
