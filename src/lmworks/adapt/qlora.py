"""QLoRA: LoRA over a frozen base in NF4 or int8 (Dettmers et al. 2023). The storage itself is in model/blockwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.model.quant_types import QuantType

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer


class QLoRASettings(LoRASettings):
    """LoRA over a quantized base, dequantized a matrix at a time (Dettmers et al. 2023)."""

    hints: ClassVar[dict[str, str]] = {
        **{name: hint.replace("lora.", "qlora.") for name, hint in LoRASettings.hints.items()},
        "bits": "it is --qlora.quant_type: nf4 (4 bits) or int8",
        "bnb_4bit_quant_type": "it is --qlora.quant_type",
        "double_quant": "leave it out: scales are always quantized, too",
    }

    quant_type: QuantType = Field(
        "nf4", description="How the base's linears are held: nf4, in 4.1 bits a weight, or int8, in 8.1."
    )


class QLoRA(LoRA):
    """Low-rank updates of a base whose linears are quantized, in blocks of 64 with double quantization.

    The adapter is LoRA's, and its folder says how the base was quantized. As published, but for the defaults of LoRA's
    settings, which are the same here as without quantization: the paper adapts all linears.
    """

    name = "qlora"
    variants: ClassVar[dict[str, dict[str, Any]]] = {}
    summary = "LoRA over a base in 4 or 8 bits"
    settings_class = QLoRASettings
    default_for = frozenset()
    settings: QLoRASettings

    @property
    def base_precision(self) -> str:
        """See :attr:`Method.base_precision`."""
        return self.settings.quant_type

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`. The base is quantized unless it is already; its own weights are not kept."""
        from lmworks.adapt import adapters
        from lmworks.adapt.targets import matching_linears
        from lmworks.model.quantization import quantize

        adapters.refuse_second(network)  # raises, as the next two, before anything is changed
        adapters.refuse_cells(network, "QLoRA")
        matching_linears(network, self.settings.target_modules, f"{self.name}.target_modules")
        quantize(network, self.settings.quant_type)
        super().apply(network, seed, keep_base)

    def merge(self, network: Transformer) -> None:
        """See :meth:`Method.merge`: into the dequantized base, whose other weights are dequantized too."""
        from lmworks.model.stored_layers import widen

        super().merge(network)
        widen(network)
