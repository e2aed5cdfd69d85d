"""A model with several adapters by name, of which it uses at most one at a time. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from lmworks.base.errors import InputError
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.language_model.input_format import InputFormat
from lmworks.text.tokenizer import Tokenizer


class Inputs(NamedTuple):
    """How a model reads texts, with one adapter or without: see the attributes of LanguageModel."""

    tokenizer: Tokenizer | None
    input_format: InputFormat | None
    pooling: SentencePooling | None = None


class AdapterNames(ABC):
    """The names of a model's adapters, and which one it uses."""

    @property
    @abstractmethod
    def adapters(self) -> list[str]:
        """The names of its adapters."""

    @property
    @abstractmethod
    def active_adapter(self) -> str | None:
        """The name of the adapter that it uses; None: it is the base."""

    @abstractmethod
    def use_adapter(self, name: str | None) -> None:
        """Use an adapter from now on; None: none, so that the model is its base.

        Raises:
            InputError: there is no such adapter.
        """

    @contextmanager
    def adapter(self, name: str | None) -> Iterator[Self]:
        """Within this block the model uses an adapter (None: none), afterwards the one before.

        A stream of text is computed while it is read, so it is to be read within the block.

        Raises:
            InputError: there is no such adapter.
        """
        before = self.active_adapter
        self.use_adapter(name)
        try:
            yield self
        finally:
            self.use_adapter(before if before in self.adapters else None)

    def _check_known(self, name: str) -> None:
        """Refuse a name that no adapter has."""
        if name not in self.adapters:
            raise InputError(f"there is no adapter {name!r}", "name", self._known())

    def _known(self) -> str:
        """A hint: the names that there are."""
        names = ", ".join(map(repr, self.adapters))
        return f"there are: {names}" if names else 'there are none; load one: add_adapter("NAME", FOLDER)'

    def _check_new(self, name: str) -> None:
        """Refuse a name that no new adapter can have."""
        if not isinstance(name, str) or not name:
            raise InputError(f"{name!r} is no name", "name", "give a text that is not empty")
        if name in self.adapters:
            hint = f"choose another name, or remove_adapter({name!r}) first"
            raise InputError(f"there is an adapter {name!r} already", "name", hint)
