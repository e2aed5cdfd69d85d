"""Which linears a method adapts, as its settings name them: by the end of a name, a pattern, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator

from lmworks.base.errors import InputError

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer

ALL_LINEAR = "all-linear"
HEAD_NAME = "lm_head"


def split_names(value: object) -> object:
    """On the command line the names may be one comma-separated word."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _refuse_empty(value: list[str]) -> list[str]:
    if not value:
        raise ValueError("names no linear; for instance q_proj,v_proj or all-linear")
    return value


Targets = Annotated[list[str], BeforeValidator(split_names)]
"""Type of a setting that names linears: names, patterns (layers.1?.mlp.*), or all-linear."""
SomeTargets = Annotated[Targets, AfterValidator(_refuse_empty)]
"""The same, where there must be one at least."""


def matches_target(name: str, target: str) -> bool:
    """Whether a target matches a linear: by the end of its name, a pattern, or all-linear.

    Args:
        name: dotted name of the linear in the network.
        target: of the settings.
    """
    if target == ALL_LINEAR:
        return name.rpartition(".")[2] != HEAD_NAME and not name.startswith("heads.")
    return fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")


def output_sizes(network: Transformer) -> dict[str, int]:
    """out_features of each linear by its dotted name, with adapters or without."""
    from lmworks.model.surgery import named_linears

    return {
        name: int(module.out_features)  # type: ignore[arg-type]
        for name, module in named_linears(network)
        if not name.endswith(".base")
    }


def matching_linears(network: Transformer, targets: Sequence[str], setting: str) -> list[str]:
    """Dotted names of the linears that targets match.

    Args:
        network: without adapters.
        targets: of the settings.
        setting: its name, for errors.

    Raises:
        InputError: a target matches none.
    """
    from lmworks.model.surgery import named_linears

    names = [name for name, _ in named_linears(network)]
    for target in targets:
        if not any(matches_target(name, target) for name in names):
            choices = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            fault = f"{target!r} matches no linear of this network"
            raise InputError(fault, setting, f"{ALL_LINEAR}, or: {choices}")
    return [name for name in names if any(matches_target(name, target) for target in targets)]
