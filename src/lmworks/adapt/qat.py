"""Quantization-aware training: every weight is trained, and the linears compute with rounded ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lmworks.adapt.targets import ALL_LINEAR, SomeTargets, matching_linears
from lmworks.adapt.weights import WeightsMethod
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.model.config import ModelConfig
    from lmworks.model.transformer import Transformer

BLOCK, TERNARY_BLOCK = 32, 256  # columns of a block of Q4_0, and of one of TQ2_0


class QATSettings(Settings):
    """Training with rounded weights, whose gradients pass to the exact ones (Bengio et al. 2013)."""

    hints: ClassVar[dict[str, str]] = {
        "bits": "it is --qat.weights: int4, or ternary (1.58 bits)",
        "group_size": "leave it out: int4 has groups of 32, as Q4_0 has, and ternary one scale a matrix",
    }

    weights: Literal["int4", "ternary"] = Field(
        "int4",
        description="What linears compute with: int4, levels of Q4_0 in groups of 32, or ternary, -1, 0 and 1 times "
        "the mean magnitude of the matrix (BitNet b1.58).",
    )
    inputs: Literal["auto", "int8", "exact"] = Field(
        "auto",
        description="What they read: int8, each token's inputs in eight bits; auto: int8 beside ternary weights.",
    )
    target_modules: SomeTargets = Field(
        [ALL_LINEAR], description="Which linears: by the end of their name, as q_proj, a pattern, or all-linear."
    )


class QAT(WeightsMethod[QATSettings]):
    """Trains every weight while linears compute with weights rounded to four bits or to three values.

    The result is a whole model with rounded weights: Q4_0 holds those of int4 exactly, TQ2_0 ternary ones. Embeddings,
    head, norms and biases stay exact. Inputs of q_proj, k_proj, v_proj, gate_proj and up_proj come out of the norms of
    a pre-norm block, as BitLinear's do; those of o_proj and down_proj are not normalized again, since Llama's folder
    and GGUF's have no place for such norms.
    """

    name = "qat"
    summary = "every weight, with linears rounded to 4 bits or to -1, 0, 1"
    settings_class = QATSettings
    learning_rate = 2e-5
    head_learning_rate = 1e-4
    pretraining_learning_rate = 1.5e-3
    is_compared = False

    def parameters(self, network: Transformer) -> Iterable[str]:
        """All parameters."""
        return [name for name, _ in network.named_parameters()]

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """See :meth:`Method.apply`."""
        from lmworks.adapt import adapters
        from lmworks.adapt.rounded_linear import RoundedLinear
        from lmworks.model.surgery import put

        adapters.refuse_second(network)  # raises, as the next three, before anything is changed
        adapters.refuse_cells(network, "QAT")
        self._refuse_stored(network)
        names = self._linears(network)
        settings = (self.settings.weights, self._rounds_inputs)
        wrapped = [RoundedLinear(network.get_submodule(name), *settings) for name in names]
        for name, linear in zip(names, wrapped, strict=True):
            put(network, name, linear)
        super().apply(network, seed, keep_base)
        for linear in wrapped:
            linear.widen_ternary()

    @contextmanager
    def disabled(self, network: Transformer) -> Iterator[None]:
        """See :meth:`Method.disabled`; needs ``keep_base``."""
        from lmworks.adapt import adapters

        with adapters.disabled(network), super().disabled(network):
            yield

    def detach(self, network: Transformer) -> None:
        """See :meth:`Method.detach`; needs ``keep_base``."""
        from lmworks.adapt import adapters

        for _, linear in adapters.adapters(network):
            linear.unmerge()
        super().detach(network)
        adapters.detach(network)

    def merge(self, network: Transformer) -> None:
        """Plain linears with the rounded weights; inputs that were rounded are exact then."""
        from lmworks.adapt import adapters

        adapters.merge(network)
        super().merge(network)

    def notes(self, config: ModelConfig) -> list[str]:
        """See :meth:`Method.notes`."""
        if self.settings.weights != "ternary":
            return []
        from lmworks.model.sizes import linears

        others = [linear.name for linear in linears(config) if linear.inputs % TERNARY_BLOCK]
        if not others:
            return []
        count = count_of(len(others), "linear")
        return [
            f"columns of {count} are no multiple of {TERNARY_BLOCK} (first: {others[0]}): TQ2_0 has no place for their "
            "ternary weights; float16 holds them exactly"
        ]

    @property
    def _rounds_inputs(self) -> bool:
        inputs = self.settings.inputs
        return inputs == "int8" or (inputs == "auto" and self.settings.weights == "ternary")

    def _linears(self, network: Transformer) -> list[str]:
        """Names of the linears to round.

        Raises:
            InputError: the columns of one are no whole number of blocks.
        """
        names = matching_linears(network, self.settings.target_modules, "qat.target_modules")
        columns = {name: int(network.get_submodule(name).in_features) for name in names}  # type: ignore[arg-type]
        odd = [name for name, count in columns.items() if count % BLOCK]
        if odd:
            usable = sorted({_end(name) for name in names} - {_end(name) for name in odd})
            hint = f"--qat.target_modules {','.join(usable)}" if usable else "--method full trains it exactly"
            fault = f"{odd[0]} has {columns[odd[0]]} columns, which are no whole number of blocks of {BLOCK}"
            raise InputError(fault, "qat.target_modules", hint)
        return names


def _end(name: str) -> str:
    """The last part of a linear's name."""
    return name.rpartition(".")[2]
