"""The interface of a method: how a network is adapted, what that trains, and how the result is saved.

A method's file imports torch only inside functions, so that recipes, help texts and schemas load fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from lmworks.base.files import atomic_folder
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.adapt.peft_files import PeftFiles
    from lmworks.families.family import Family
    from lmworks.model.config import ModelConfig
    from lmworks.model.trained_parameters import TrainedParameters
    from lmworks.model.transformer import Transformer
    from lmworks.text.tokenizer import Tokenizer

S = TypeVar("S", bound=Settings)
ModelKind = Literal["opened", "new"]


class NoSettings(Settings):
    """Settings of a method that has none."""


class AdaptedModel(Protocol):
    """The parts of a language model that saving needs."""

    network: Transformer
    family: Family

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""

    def save(self, folder: Path) -> object:
        """Write the whole model, adapters merged."""


class Method(ABC, Generic[S]):
    """A way to adapt a network; an instance adapts one network.

    Class attributes:
        name: in recipes and ``--method``; the recipe's group of this name has its settings.
        summary: one line for help texts.
        settings_class: its settings; :class:`NoSettings` if it has none.
        trains: whether it trains anything; else a run chooses a prompt.
        default_for: the models, "opened" or "new", for which it is the default method.
        learning_rate: default peak rate for an opened model.
        head_learning_rate: the same where the model was given a new head, which learns nothing at the rates of weights
            that only change a little; None: ``learning_rate``.
        pretraining_learning_rate: default peak rate for a new model.
        peft_type: its name in PEFT's adapter_config.json; None if the result is a whole model.
        is_compared: whether a comparison of methods tries it without being told to.
        variants: what a comparison of methods tries of it: name -> its settings; empty: itself by its defaults.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    settings_class: ClassVar[type[Settings]] = NoSettings
    trains: ClassVar[bool] = True
    default_for: ClassVar[frozenset[ModelKind]] = frozenset()
    learning_rate: ClassVar[float]
    head_learning_rate: ClassVar[float | None] = None
    pretraining_learning_rate: ClassVar[float]
    peft_type: ClassVar[str | None] = None
    is_compared: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, settings: S | None = None) -> None:
        self.settings: S = self.settings_class() if settings is None else settings  # type: ignore[assignment]

    @property
    def base_precision(self) -> str:
        """How it holds the model's own weights, as in ``train.base_precision``; auto: as that setting says."""
        return "auto"

    @property
    def num_virtual_tokens(self) -> int:
        """Tokens that it puts in front of every text, which leave less of the context for the text."""
        return 0

    def max_text_tokens(self, config: ModelConfig) -> int:
        """Tokens of the longest text that a model reads once it is adapted."""
        return config.max_position_embeddings - self.num_virtual_tokens

    def use_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Encode what the settings have of texts; called before :meth:`apply`.

        Raises:
            InputError: a text does not fit the other settings.
        """

    @abstractmethod
    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """Change a network in place, so that exactly the parameters that this method trains require a gradient.

        Args:
            network: may be on the device ``meta``, without data.
            seed: of random initial values.
            keep_base: copy the base's weights that training will overwrite (4 bytes per weight), so that
                :meth:`disabled` and :meth:`detach` can restore them. Not needed for training.

        Raises:
            InputError: the method does not fit this network.
        """

    @abstractmethod
    def disabled(self, network: Transformer) -> AbstractContextManager[None]:
        """Within this block the network computes what its base computes, bit for bit."""

    @abstractmethod
    def detach(self, network: Transformer) -> None:
        """Restore the base, bit for bit."""

    @abstractmethod
    def merge(self, network: Transformer) -> None:
        """Merge the adaptation into plain weights: a model without adapters that computes the same.

        Raises:
            InputError: there is no such model.
        """

    @abstractmethod
    def save(self, model: AdaptedModel, folder: Path, base: str) -> None:
        """Write the result into a folder that ``lmworks`` and other libraries open.

        Args:
            model: adapted by this method.
            folder: written completely or not at all.
            base: source of the base model.
        """

    @classmethod
    def load(cls, network: Transformer, folder: Path, family: Family, trainable: bool) -> list[str]:
        """Put a saved adapter on its base; returns notes. Only of methods with a ``peft_type``: see
        ``registry.load_adapter``."""
        raise TypeError(f"{cls.name} is saved as a whole model, which has no adapter to load")

    def trained_parameters(self, config: ModelConfig) -> TrainedParameters:
        """The parameters of a model that this method trains, from the config alone.

        Raises:
            InputError: the method does not fit such a network.
        """
        from lmworks.model.trained_parameters import TrainedParameters, meta_network

        network = meta_network(config)
        self.apply(network)
        return TrainedParameters.of(network)

    def notes(self, config: ModelConfig) -> list[str]:
        """What a user should know of this training before it starts.

        Args:
            config: of the model, with the head of the task.
        """
        return []

    def learning_rate_factors(self, network: Transformer) -> dict[str, float]:
        """What the learning rate of a parameter is multiplied by, by its name; 1 where nothing is said.

        Args:
            network: adapted by this method.
        """
        return {}

    @property
    def new_tokens(self) -> Sequence[str]:
        """Tokens that the model's tokenizer gets before anything else, so that examples have them; their rows in the
        network are trained."""
        return ()

    def train_tokens(self, ids: Sequence[int]) -> None:
        """Train the rows of these tokens; only of methods with ``new_tokens``."""
        raise TypeError(f"{self.name} has no new tokens")

    def default_learning_rate(self, from_scratch: bool, has_new_head: bool = False) -> float:
        """The default peak learning rate.

        Args:
            from_scratch: of a new model.
            has_new_head: of an opened model with a head that has random weights.
        """
        if from_scratch:
            return self.pretraining_learning_rate
        return (has_new_head and self.head_learning_rate) or self.learning_rate


class AdapterMethod(Method[S]):
    """A method that leaves the model's own weights frozen and adds parameters, which are saved as PEFT saves them."""

    def freeze_base(self, network: Transformer, title: str) -> None:
        """Freeze a network, but for the head of a task.

        Args:
            network: changed in place.
            title: the method's, for errors.

        Raises:
            InputError: it has an adapter already, or no linears to adapt.
        """
        from lmworks.adapt import adapters
        from lmworks.adapt.head_weights import head_parameters

        adapters.refuse_second(network)
        adapters.refuse_cells(network, title)
        network.requires_grad_(False)
        for parameter in head_parameters(network).values():
            parameter.requires_grad_(True)

    @classmethod
    @abstractmethod
    def to_files(cls, network: Transformer, family: Family) -> PeftFiles:
        """The adapter of a network as PEFT keeps it, without the head of a task.

        Args:
            network: with an adapter of this method.
            family: gives the tensors' names.

        Raises:
            InputError: there is none, or the format has no place for it.
        """

    @classmethod
    @abstractmethod
    def from_files(cls, network: Transformer, files: PeftFiles, family: Family) -> None:
        """Put a saved adapter on its base.

        Args:
            network: the base, frozen, with the adapter's head; changed in place.
            files: of the adapter.
            family: of the base.

        Raises:
            InputError: the adapter is not for this model, or uses features that are not computed here.
        """

    @classmethod
    def write(cls, network: Transformer, folder: Path, family: Family, base: str = "") -> None:
        """Write the adapter of a network into a folder that ``peft`` loads, with a record of the base.

        Args:
            network: with an adapter of this method.
            folder: created if it does not exist.
            family: gives the tensors' names.
            base: source of the base model.

        Raises:
            InputError: as :meth:`to_files`.
        """
        from lmworks.adapt import adapter_folder

        assert cls.peft_type is not None
        adapter_folder.save(network, folder, family, cls.to_files(network, family), cls.peft_type, base)

    def save(self, model: AdaptedModel, folder: Path, base: str) -> None:
        """Write an adapter's folder that ``peft`` loads, with the tokenizer and the name of the base."""
        if Path(base).exists():
            base = str(Path(base).resolve())
        with atomic_folder(folder) as aside:
            self.write(model.network, aside, model.family, base)
            model.tokenizer.save(aside)

    @classmethod
    def load(cls, network: Transformer, folder: Path, family: Family, trainable: bool) -> list[str]:
        """See :meth:`Method.load`."""
        from lmworks.adapt import adapter_folder, adapters
        from lmworks.adapt.head_weights import head_parameters

        adapters.refuse_second(network)
        files = adapter_folder.read(network, folder, family)
        network.requires_grad_(False)
        before = {id(parameter) for parameter in network.parameters()}
        cls.from_files(network, files, family)
        head = {id(parameter) for parameter in head_parameters(network).values()}
        for parameter in network.parameters():
            parameter.requires_grad_(trainable and (id(parameter) not in before or id(parameter) in head))
        return adapter_folder.notes(network, folder)

    def disabled(self, network: Transformer) -> AbstractContextManager[None]:
        """See :meth:`Method.disabled`."""
        from lmworks.adapt import adapters

        return adapters.disabled(network)

    def detach(self, network: Transformer) -> None:
        """See :meth:`Method.detach`."""
        from lmworks.adapt import adapters

        adapters.detach(network)

    def merge(self, network: Transformer) -> None:
        """See :meth:`Method.merge`."""
        from lmworks.adapt import adapters

        adapters.merge(network)
