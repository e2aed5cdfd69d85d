"""Bottleneck adapters: two small layers around an activation, after attention and after the feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lmworks.adapt.method import AdapterMethod
from lmworks.adapt.targets import matching_linears
from lmworks.base.errors import InputError
from lmworks.base.seeds import derived_seed
from lmworks.base.settings import Settings
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS

if TYPE_CHECKING:
    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.transformer import Transformer

PLACES = {"houlsby": ["o_proj", "down_proj"], "pfeiffer": ["down_proj"]}
if TYPE_CHECKING:
    Activation = str
else:
    Activation = Literal[tuple(NATIVE_ACTIVATIONS)]


class BottleneckSettings(Settings):
    """Bottleneck adapters: y + up(act(down(y))) after parts of a block, before the residual is added."""

    kind: Literal["houlsby", "pfeiffer"] = Field(
        "pfeiffer",
        description="houlsby: after attention and feed-forward (Houlsby et al. 2019); "
        "pfeiffer: after the feed-forward only (Pfeiffer et al. 2020).",
    )
    reduction_factor: float = Field(16.0, ge=1, description="The inner layer has hidden_size / this many elements.")
    size: int | None = Field(None, gt=0, description="Elements of the inner layer, instead of by reduction_factor.")
    activation: Activation = Field("gelu", description="Activation of the inner layer.")

    def inner_size(self, hidden_size: int) -> int:
        """Elements of the inner layer."""
        return self.size or max(1, round(hidden_size / self.reduction_factor))


class Bottleneck(AdapterMethod[BottleneckSettings]):
    """Small layers after the output projections of attention and feed-forward; all other weights are frozen."""

    name = "bottleneck"
    summary = "small layers after attention and feed-forward"
    settings_class = BottleneckSettings
    variants: ClassVar[dict[str, dict[str, Any]]] = {"houlsby": {"kind": "houlsby"}, "pfeiffer": {"kind": "pfeiffer"}}
    learning_rate = 1e-3
    head_learning_rate = 1e-3
    pretraining_learning_rate = 1e-3
    peft_type = "BOTTLENECK"

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`; the base is always kept. Weights are drawn from the seed and the linear's name."""
        import torch

        from lmworks.adapt.bottleneck_linear import BottleneckLinear
        from lmworks.model.surgery import put

        self.freeze_base(network, "a bottleneck adapter")
        size = self.settings.inner_size(network.config.hidden_size)
        for name in matching_linears(network, PLACES[self.settings.kind], "bottleneck.kind"):
            generator = torch.Generator().manual_seed(derived_seed(seed, name))
            linear = network.get_submodule(name)
            put(network, name, BottleneckLinear(linear, size, self.settings.activation, generator))

    @classmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """See :meth:`AdapterMethod.to_files`."""
        from lmworks.adapt import bottleneck_files
        from lmworks.adapt.adapters import adapters
        from lmworks.adapt.bottleneck_linear import BottleneckLinear
        from lmworks.model.surgery import named_linears

        modules = {name: module for name, module in adapters(network) if isinstance(module, BottleneckLinear)}
        if not modules:
            raise InputError("this network has no bottleneck adapter to save", hint="save the whole model")
        weights = {
            name: bottleneck_files.BottleneckWeights(
                *(tensor.detach() for tensor in (module.down, module.down_bias, module.up, module.up_bias))
            )
            for name, module in modules.items()
        }
        linears = [name for name, _ in named_linears(network) if not name.endswith(".base")]
        activation = next(iter(modules.values())).activation
        return bottleneck_files.to_files(weights, linears, activation, family, network.config)

    @classmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """See :meth:`AdapterMethod.from_files`."""
        from lmworks.adapt import bottleneck_files
        from lmworks.adapt.bottleneck_linear import BottleneckLinear
        from lmworks.model.surgery import put

        modules = {}
        for name, weights in bottleneck_files.read(files, family, network.config).items():
            size, activation = len(weights.down), files.config["activation"]
            module = modules[name] = BottleneckLinear(network.get_submodule(name), size, activation)
            own = (module.down, module.down_bias, module.up, module.up_bias)
            if [tensor.shape for tensor in weights] != [parameter.shape for parameter in own]:
                fault = f"the adapter of {name} is for {weights.down.shape[-1]} features, the model has {len(own[2])}"
                raise InputError(fault, str(files.folder), "load the adapter onto the base that it was trained on")
            for parameter, tensor in zip(own, weights, strict=True):
                parameter.data.copy_(tensor)
        for name, module in modules.items():
            put(network, name, module.train(network.training))
