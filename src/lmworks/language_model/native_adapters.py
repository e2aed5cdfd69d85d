"""LoRA adapters of a model in the native engine, beside one copy of its weights: each text is computed with its own.

The names are those of language_model/named_adapters. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.adapt.adapter_base import base_notes, check_base, is_adapter
from lmworks.adapt.native_lora import WITH_TORCH, NotComputed, check_computed, read_updates
from lmworks.base.errors import InputError
from lmworks.language_model import few_shot
from lmworks.language_model.adapter_names import AdapterNames, Inputs
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.saved_source import find_saved
from lmworks.model.config import ModelConfig
from lmworks.text.tokenizer import Tokenizer


def check_adapter(path: Path) -> None:
    """Check that the engine computes the adapter in a folder and what is asked of it, as far as its settings say.

    Raises:
        NotComputed: it does not.
        InputError: the settings cannot be read.
    """
    check_computed(path)
    if (path / few_shot.FILE).is_file():
        raise NotComputed("it stands behind a prompt with examples", str(path), WITH_TORCH)


class NativeAdapters(AdapterNames):
    """A model in the native engine that may have adapters; see the attributes of NativeModel.

    A text is computed to its end with the adapter that was in use when it was begun, whichever is used meanwhile.
    """

    engine: Any
    config: ModelConfig
    family: str
    fingerprint: str
    weight_sample: list[float]
    own_tokenizer: Tokenizer | None
    input_format: InputFormat | None
    notes: list[str]
    _active: str | None
    _inputs: dict[str | None, Inputs]  # of each adapter, and of the base (None) once an adapter is used

    @property
    def adapters(self) -> list[str]:
        """The names of its adapters."""
        return [name for name in self._inputs if name is not None]

    @property
    def active_adapter(self) -> str | None:
        """The name of the adapter that it uses; None: it is the base."""
        return self._active

    def add_adapter(self, name: str, source: str | Path, *, offline: bool | None = None) -> None:
        """Load a LoRA adapter beside those that the model has. It is used from :meth:`use_adapter` on.

        It brings its own tokenizer and format of inputs. What there is to say of it is added to ``notes``.

        Args:
            name: by which it is called here.
            source: the folder of an adapter, or of a run that has one as its result.
            offline: fetch nothing; default: as LMWORKS_OFFLINE says.

        Raises:
            NotComputed: it has more than low-rank updates of the layers' linears.
            InputError: the name is taken, there is no adapter, or it is not for this base.
        """
        self._check_new(name)
        path = find_saved(source, offline).path
        if not is_adapter(path):
            hint = "give the folder of an adapter; lmworks.load opens a whole model"
            raise InputError("holds no adapter", str(source), hint)
        before = len(self.notes)
        self.put_adapter(name, path)
        self.notes[before:] = [f"adapter {name}: {note}" for note in self.notes[before:]]

    def use_adapter(self, name: str | None) -> None:
        """Use an adapter for texts from now on; None: none. Only references are set."""
        if name == self._active:
            return
        if name is not None:
            self._check_known(name)
        self._inputs[self._active] = Inputs(self.own_tokenizer, self.input_format)
        self.own_tokenizer, self.input_format, _ = self._inputs[name]
        self._active = name

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter; if it is in use, the model is its base then.

        Raises:
            InputError: there is no such adapter.
        """
        self._check_known(name)
        if name == self._active:
            self.use_adapter(None)
        self.engine.remove_adapter(name)
        del self._inputs[name]

    def put_adapter(self, name: str, path: Path) -> None:
        """As :meth:`add_adapter`, of a new name and of a folder with an adapter's files."""
        from lmworks.families.registry import FAMILIES

        check_adapter(path)
        check_base(path, self.weight_sample)
        updates = read_updates(path, FAMILIES[self.family], self.config)
        tokenizer, notes = self._tokenizer_in(path)
        try:
            self.engine.add_adapter(name, updates)
        except ValueError as error:
            hint = "load the adapter onto the base that it was trained on"
            raise InputError(str(error), str(path), hint) from error
        self._inputs[name] = Inputs(tokenizer, InputFormat.read(path))
        self.notes += [*notes, *base_notes(path, self.fingerprint)]

    def _tokenizer_in(self, path: Path) -> tuple[Tokenizer | None, list[str]]:
        """The tokenizer in an adapter's folder, or the base's, and notes on it."""
        with self.adapter(None):
            base = self.own_tokenizer
        if not (path / "tokenizer.json").is_file():
            return base, []
        tokenizer = Tokenizer.open(path)
        tokenizer.end_ids |= base.end_ids if base is not None else set()
        return tokenizer, tokenizer.fit(self.config.vocab_size, str(path))
