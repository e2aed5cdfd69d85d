"""The interface of a method: how a network is adapted, what that trains, and how the result is saved.

A method's file imports torch only inside functions, so that recipes, help texts and schemas cost nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeVar

from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.adapt.adapter_folder import LoadedAdapter
    from lmworks.families.family import Family
    from lmworks.model.config import ModelConfig
    from lmworks.model.trained_parameters import TrainedParameters
    from lmworks.model.transformer import Transformer
    from lmworks.text.tokenizer import Tokenizer

S = TypeVar("S", bound=Settings)
ModelKind = Literal["opened", "new"]


class NoSettings(Settings):
    """Of a method that has nothing to set."""


class AdaptedModel(Protocol):
    """What saving needs of a language model."""

    network: Transformer
    family: Family

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""

    def save(self, folder: Path) -> object:
        """Write the whole model, adapters merged."""


class Method(ABC, Generic[S]):
    """A way of adapting a network; an object is one adaptation of one network.

    Class attributes:
        name: as recipes and ``--method`` say it; its settings are the recipe's group of that name.
        summary: one line for help texts.
        settings_class: its settings; :class:`NoSettings` where it has none.
        default_for: the models, "opened" or "new", for which it is the method where a recipe names none.
        learning_rate: default peak rate for an opened model. pretraining_learning_rate: for a model from scratch.
        peft_type: what PEFT's adapter_config.json calls it; None where the result is a whole model.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    settings_class: ClassVar[type[Settings]] = NoSettings
    default_for: ClassVar[frozenset[ModelKind]] = frozenset()
    learning_rate: ClassVar[float]
    pretraining_learning_rate: ClassVar[float]
    peft_type: ClassVar[str | None] = None

    def __init__(self, settings: S | None = None) -> None:
        self.settings: S = self.settings_class() if settings is None else settings  # type: ignore[assignment]

    @abstractmethod
    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """Change a network in place so that what this method trains, and nothing else, requires a gradient.

        Args:
            network: may lie on the device ``meta``, where only names and shapes are of interest.
            seed: of whatever is drawn at random.
            keep_base: copy the base's weights that training will overwrite, so that :meth:`disabled` and
                :meth:`detach` can give them back: 4 bytes for each of them. Not needed to train.

        Raises:
            InputError: the method does not fit this network.
        """

    @abstractmethod
    def disabled(self, network: Transformer) -> AbstractContextManager[None]:
        """Within this block the network computes what its base computes, bit for bit."""

    @abstractmethod
    def detach(self, network: Transformer) -> None:
        """Give the base back, bit for bit."""

    @abstractmethod
    def merge(self, network: Transformer) -> None:
        """Make the adaptation part of plain weights: a model without adapters that computes the same."""

    @abstractmethod
    def save(self, model: AdaptedModel, folder: Path, base: str) -> None:
        """Write the result into a folder that ``lmworks`` and others open.

        Args:
            model: adapted by this method.
            folder: appears whole or not at all.
            base: source of the model that was adapted.
        """

    @classmethod
    def load(cls, network: Transformer, folder: Path, family: Family, trainable: bool) -> LoadedAdapter:
        """Put a saved adapter on its base; only of methods with a ``peft_type``. See ``registry.load_adapter``."""
        raise TypeError(f"{cls.name} is saved as a whole model, which has no adapter to load")

    def trained_parameters(self, config: ModelConfig) -> TrainedParameters:
        """What this method trains of a model, from its config alone: applied to a network without storage.

        Raises:
            InputError: the method does not fit such a network.
        """
        from lmworks.model.trained_parameters import TrainedParameters, without_storage

        network = without_storage(config)
        self.apply(network)
        return TrainedParameters.of(network)

    def default_learning_rate(self, from_scratch: bool) -> float:
        """The peak rate where nobody sets one."""
        return self.pretraining_learning_rate if from_scratch else self.learning_rate
