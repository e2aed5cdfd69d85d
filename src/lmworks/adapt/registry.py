"""The methods by name: recipes, help texts and schemas are built from METHODS. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, create_model

from lmworks.adapt.bitfit import BitFit
from lmworks.adapt.bottleneck import Bottleneck
from lmworks.adapt.full import Full
from lmworks.adapt.head import LinearProbe
from lmworks.adapt.ia3 import IA3
from lmworks.adapt.last_layers import LastLayers
from lmworks.adapt.lora import LoRA
from lmworks.adapt.method import Method, ModelKind, NoSettings
from lmworks.adapt.prefix_tuning import PrefixTuning
from lmworks.adapt.prompt_tuning import PromptTuning
from lmworks.adapt.prompting import Prompting
from lmworks.adapt.qat import QAT
from lmworks.adapt.qlora import QLoRA
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, spelled

if TYPE_CHECKING:
    from lmworks.families.family import Family
    from lmworks.model.transformer import Transformer

S = TypeVar("S", bound=Settings)
METHODS: dict[str, type[Method[Any]]] = {
    method.name: method
    for method in (
        LoRA,
        QLoRA,
        Full,
        QAT,
        LastLayers,
        BitFit,
        LinearProbe,
        IA3,
        Bottleneck,
        PromptTuning,
        PrefixTuning,
        Prompting,
    )
}
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]  # annotation of a setting, which is checked and listed in help and schema


def make(name: str, settings: Settings | None = None) -> Method[Any]:
    """A method by its name.

    Args:
        name: a key of METHODS, in which hyphens count as underscores.
        settings: of its settings class; None: the defaults.

    Raises:
        InputError: there is no such method.
    """
    name = spelled(name, METHODS)
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}", "method", f"one of: {', '.join(METHODS)}")
    return METHODS[name](settings)


def default(kind: ModelKind) -> type[Method[Any]]:
    """The default method for an opened or a new model."""
    return next(method for method in METHODS.values() if kind in method.default_for)


def names_with_adapters() -> list[str]:
    """Names of the methods that freeze the model's own weights and save an adapter instead of a whole model."""
    return [name for name, method in METHODS.items() if method.peft_type is not None]


def method_of(recipe: Settings) -> Method[Any]:
    """The method that a recipe names, with its settings from the recipe."""
    name = getattr(recipe, "method")  # noqa: B009 - a recipe's fields are made from this registry
    return make(name, getattr(recipe, name, None))


def with_settings(base: type[S]) -> type[S]:
    """A settings class with the fields of ``base`` and a group of settings for each method that has settings."""
    groups: dict[str, Any] = {
        name: (method.settings_class, Field(default_factory=method.settings_class))
        for name, method in METHODS.items()
        if method.settings_class is not NoSettings
    }
    return create_model(f"{base.__name__}WithMethods", __base__=base, **groups)


def summaries() -> str:
    """All methods in one line of help: ``lora: ...; full: ...``."""
    return "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items()) + "."


def load_adapter(network: Transformer, folder: Path, family: Family, trainable: bool = False) -> list[str]:
    """Load an adapter of any method onto its base.

    Args:
        network: the base; changed in place and frozen.
        folder: with adapter_config.json, which names the method by ``peft_type``.
        family: of the base.
        trainable: whether its parameters require a gradient.

    Returns:
        Notes for the user, for example that the base has other weights.

    Raises:
        InputError: no method has adapters of this type, or the adapter is not for this model.
    """
    return adapter_method(folder).load(network, folder, family, trainable)


def adapter_method(folder: Path) -> type[Method[Any]]:
    """The method of the adapter in a folder.

    Raises:
        InputError: there is no adapter, or no method has adapters of this type.
    """
    from lmworks.adapt.peft_files import read_config

    kind = read_config(folder).get("peft_type")
    with_adapters = [method for method in METHODS.values() if method.peft_type is not None]
    by_type = {method.peft_type: method for method in reversed(with_adapters)}  # of those that share one, the first
    if kind not in by_type:
        place = str(folder / "adapter_config.json")
        raise InputError(f"peft_type is {kind!r}", place, f"give an adapter of type {' or '.join(by_type)}")
    return by_type[kind]
