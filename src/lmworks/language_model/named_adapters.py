"""Several adapters on one base: the methods of LanguageModel that add, switch, sum and save them.

An adapter is the change that it makes to the network's modules (model/surgery), of whatever method, with the tokenizer,
the format of inputs and the pooling that belong to it. At most one is in the network; switching sets references alone.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lmworks.adapt import registry
from lmworks.adapt.adapters import Adapter
from lmworks.adapt.lora import LoRA
from lmworks.adapt.lora_files import Factors
from lmworks.adapt.lora_sum import Combination, weighted_sum
from lmworks.adapt.low_rank import LoRALinear
from lmworks.adapt.method import Method
from lmworks.adapt.peft_files import CONFIG
from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.folder import check_place
from lmworks.families.sentence_pooling import MODULES, SentencePooling, read_pooling, write_pooling
from lmworks.language_model.adapter_names import AdapterNames, Inputs
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.saved_source import find_saved
from lmworks.model.surgery import Change, snapshot
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter of a model.

    Attributes:
        change: what it changes in the network.
        method: that it was trained by.
    """

    change: Change
    method: type[Method[Any]]


@dataclass
class Adapters:
    """The adapters of a model.

    Attributes:
        by_name: all of them.
        active: the name of the one that is in the network; None: the network is the base.
        inputs: how texts are read with each of those that are not in the network, and without any (None).
        are_merged: whether the network was prepared for generation, which merges the active one.
    """

    by_name: dict[str, NamedAdapter] = field(default_factory=dict)
    active: str | None = None
    inputs: dict[str | None, Inputs] = field(default_factory=dict)
    are_merged: bool = False


class AdapterMethods(AdapterNames):
    """A model whose network may have adapters."""

    network: Transformer
    own_tokenizer: Tokenizer | None
    family: Family
    source: str
    base: str
    notes: list[str]
    input_format: InputFormat | None
    pooling: SentencePooling | None
    _adapters: Adapters

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids."""

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write the whole model."""

    @property
    def adapters(self) -> list[str]:
        """The names of its adapters."""
        return list(self._adapters.by_name)

    @property
    def active_adapter(self) -> str | None:
        """The name of the adapter that it uses; None: it is the base."""
        return self._adapters.active

    def add_adapter(
        self, name: str, source: str | Path, *, head: str | None = None, offline: bool | None = None
    ) -> None:
        """Load an adapter beside those that the model has. It is used from :meth:`use_adapter` on.

        The base's weights are not copied. An adapter brings its own head, tokenizer, format of inputs and pooling.
        What there is to say of it is added to ``notes``.

        Args:
            name: by which it is called here.
            source: the folder of an adapter, of any method, or of a run that has one as its result.
            head: of a run of several tasks: the task whose adapter it is.
            offline: fetch nothing; default: as LMWORKS_OFFLINE says.

        Raises:
            InputError: the name is taken, there is no adapter, or it is not for this base.
        """
        self._check_new(name)
        path = find_saved(source, offline, head).path
        if not (path / CONFIG).is_file():
            hint = "give the folder of an adapter; lmworks.load opens a whole model"
            raise InputError("holds no adapter", str(source), hint)
        before = len(self.notes)
        self.put_adapter(name, path)
        self.notes[before:] = [f"adapter {name}: {note}" for note in self.notes[before:]]

    def use_adapter(self, name: str | None) -> None:
        """Use an adapter from now on; None: none, so that the model is its base, bit for bit.

        The weights of linears stay where they are: it takes milliseconds. One model is switched for all its callers, so
        threads must take turns.

        Raises:
            InputError: there is no such adapter.
        """
        state = self._adapters
        if name == state.active:
            return
        self._check_separate()
        adapter = None if name is None else self._adapter(name)
        device = self.network.device
        if state.active is not None:
            current = state.by_name[state.active].change
            for module in current.modules:
                if isinstance(module, Adapter):
                    module.unmerge()
            current.undo(device)
        state.inputs[state.active] = Inputs(self.own_tokenizer, self.input_format, self.pooling)
        if adapter is not None:
            adapter.change.redo(device)
        self.own_tokenizer, self.input_format, self.pooling = state.inputs.pop(name)
        state.active = name

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter; if it is in use, the model is its base then.

        Raises:
            InputError: there is no such adapter.
        """
        self._check_separate()
        self._adapter(name)
        if name == self.active_adapter:
            self.use_adapter(None)
        del self._adapters.by_name[name], self._adapters.inputs[name]

    def combine_adapters(
        self, weights: Mapping[str, float], name: str, how: Combination = "cat", rank: int | None = None
    ) -> None:
        """Add an adapter that is a weighted sum of others, as PEFT's ``add_weighted_adapter`` computes it.

        Tokenizer, format of inputs and pooling are those of the first one.

        Args:
            weights: by the names of the adapters: LoRA of any ranks and targets, without heads.
            name: of the sum.
            how: "cat" is exactly the sum, with the sum of the ranks; "svd" the nearest update of a rank; "linear" adds
                the factors instead (adapt/lora_sum).
            rank: of svd; default: the largest rank of the adapters.

        Raises:
            InputError: an adapter is not there or has more than low-rank updates, or the factors cannot be added so.
        """
        self._check_new(name)
        if not isinstance(weights, Mapping) or not weights:
            raise InputError(f"{weights!r} names no adapters", "weights", 'give {"NAME": weight, ...}')
        for part, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise InputError(f"{weight!r} is no weight", f"weights, {part}", "give a finite number, such as 0.5")
        updates = {part: self._updates(part) for part in weights}
        total = weighted_sum(updates, weights, how, rank)
        with self.adapter(next(iter(weights))):
            inputs = Inputs(self.own_tokenizer, self.input_format, self.pooling)
        change, _ = self._record_change(lambda: LoRA.put(self.network, total, dropout=0.0))
        for module in change.modules:
            module.requires_grad_(False)
        self._adapters.by_name[name], self._adapters.inputs[name] = NamedAdapter(change, LoRA), inputs

    def save_adapter(self, folder: str | Path, name: str | None = None, *, overwrite: bool = False) -> Path:
        """Write an adapter as a folder that lmworks opens, and ``peft``, if it has the method.

        Args:
            folder: where to: a new or empty folder.
            name: of the adapter; default: the one in use.
            overwrite: replace what was saved there.

        Returns:
            The folder.

        Raises:
            InputError: there is no such adapter, or the folder holds something else.
        """
        folder = Path(folder)
        check_place(folder, overwrite)
        if name is None and self.active_adapter is None:
            raise InputError("no adapter is in use", "name", self._known())
        self._check_separate()
        with self.adapter(name or self.active_adapter):
            adapter = self._adapter(str(self.active_adapter))
            adapter.method().save(self, folder, self.base)
            if self.pooling is not None and not (folder / MODULES).exists():
                write_pooling(folder, self.pooling, self.network.config.hidden_size)
            if self.input_format is not None:
                self.input_format.save(folder)
        return folder

    def put_adapter(self, name: str, path: Path) -> None:
        """As :meth:`add_adapter`, of a new name and of a folder with an adapter's files."""
        method = registry.adapter_method(path)

        def load() -> tuple[list[str], Inputs]:
            return method.load(self.network, path, self.family, trainable=False), self._inputs_in(path)

        change, (notes, inputs) = self._record_change(load)
        self._adapters.by_name[name], self._adapters.inputs[name] = NamedAdapter(change, method), inputs
        self.notes += notes

    def _inputs_in(self, path: Path) -> Inputs:
        """How texts are read with the adapter in a folder, which is in the network; of the base what it lacks."""
        tokenizer = self.own_tokenizer
        if (path / "tokenizer.json").is_file():
            tokenizer = Tokenizer.open(path)
            tokenizer.end_ids |= self.own_tokenizer.end_ids if self.own_tokenizer is not None else set()
            self.notes += tokenizer.fit(self.network.config.vocab_size, str(path))
        pooling, notes = read_pooling(path)
        self.notes += notes
        return Inputs(tokenizer, InputFormat.read(path), pooling or self.pooling)

    def _record_change(self, make: Callable[[], T]) -> tuple[Change, T]:
        """What a function changes in the base, which is as before afterwards, and what it returns."""
        with self.adapter(None):
            before = snapshot(self.network)
            try:
                result = make()
            finally:
                change = Change(before)
                change.undo(self.network.device)
        return change, result

    def _updates(self, name: str) -> dict[str, Factors]:
        """The low-rank updates of an adapter, of which there is nothing else."""
        others = {type(entry.after) for entry in self._adapter(name).change.entries} - {LoRALinear}
        if others:
            fault = f"the adapter {name!r} has more than low-rank updates of linears"
            raise InputError(
                fault, "weights", "only LoRA adapters without magnitudes, heads or rows of tokens can be added"
            )
        with self.adapter(name):
            return LoRA.factors(self.network)

    def _adapter(self, name: str) -> NamedAdapter:
        self._check_known(name)
        return self._adapters.by_name[name]

    def _check_new(self, name: str) -> None:
        self._check_separate()
        super()._check_new(name)

    def _check_separate(self) -> None:
        """Refuse to switch what is one network now."""
        if self._adapters.are_merged:
            hint = "load it again, and leave out prepare()"
            raise InputError("was prepared for generation, so that its adapter is merged", self.source, hint)
