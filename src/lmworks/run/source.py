"""The model of a run: an opened model, or a new one with random weights and often a newly trained tokenizer.

Its config and tokenizer are available before its weights are opened or initialized.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lmworks.base import process_memory
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.journal import RunFolder
from lmworks.families.registry import FAMILIES
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.new_tokens import add_tokens
from lmworks.language_model.opening import is_adapter, load_tokenizer, open_saved_model, read_config, unfinished_run
from lmworks.model import initialization, vocabulary
from lmworks.model.config import ModelConfig
from lmworks.model.quant_types import QUANT_TYPES
from lmworks.model.stored_layers import weight_bytes, widen
from lmworks.model.transformer import Transformer
from lmworks.run import base_weights
from lmworks.run.base_weights import WeightFormat
from lmworks.run.new_model import ModelSettings, NewTokenizer
from lmworks.run.ngram_recipe import is_ngram
from lmworks.run.recipe import Recipe, read
from lmworks.tasks.registry import task_class
from lmworks.tasks.settings import TaskSettings
from lmworks.text import datasets, python_rows, train_tokenizer
from lmworks.text.rows import Table
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_settings import TokenizerSettings
from lmworks.text.train_tokenizer import TooManyEntries, texts_of

TOKENIZER = "tokenizer"  # the folder in the run's folder that holds a new model's tokenizer


class Source(ABC):
    """The model that a run starts with.

    Attributes:
        notes: for the user.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """The model's config; the vocabulary size of a new model may still be open."""

    @abstractmethod
    def existing_tokenizer(self) -> Tokenizer | None:
        """Its tokenizer; None if one is still to be trained."""

    @abstractmethod
    def open(self, task: TaskSettings, rows: Table) -> LanguageModel:
        """The model with its weights, opened or initialized.

        Args:
            task: settings, with the task's name.
            rows: training rows, on which a new model's tokenizer is trained.

        Raises:
            InputError: files are damaged, or the family does not support the settings.
        """

    @property
    def decoder_start(self) -> int | None:
        """The id that starts the decoder of an encoder-decoder, if the model's files name it."""
        return None

    def weight_formats(self) -> list[WeightFormat]:
        """Formats in which the weights can be stored in memory, the preferred one first, the smallest last."""
        return [WeightFormat()]

    def convert_weights(self, base_precision: str) -> None:
        """Convert the opened weights to one of these formats."""
        return

    @abstractmethod
    def library_bytes(self) -> int:
        """Bytes that the process uses now, except for the weights: libraries, tokenizer, data."""

    def start_entries(self) -> dict[str, Any]:
        """Entries for the journal's ``start`` event."""
        return {}

    def save_for_resuming(self, folder: Path) -> None:
        """Save in the run's folder what resuming needs besides the recipe."""
        return


def source_of(recipe: Recipe) -> Source:
    """The source that a resolved recipe names; ids of new tokens are written into the method's settings.

    Raises:
        InputError: a new model is to get new tokens.
    """
    method = recipe.adaptation
    if recipe.is_new:
        if method.new_tokens:
            hint = "leave it out: the tokenizer of a new model is trained on its own texts"
            raise InputError("tokens are added to a model that is opened", f"{method.name}.new_tokens", hint)
        return NewModel(recipe)
    source = OpenedModel(str(recipe.model), base_weights.base_precision(recipe), method.new_tokens)
    if method.new_tokens:
        method.train_tokens(source.new_ids)
    return source


def recipe_of(run: RunFolder) -> Recipe:
    """The recipe of a run to be resumed, with relative paths resolved against the directory in which it began.

    Raises:
        InputError: it cannot be read, since another version may have written it; or the run trains an n-gram model.
    """
    start = next(iter(run.events("start")), {})
    if run.recipe.is_file() and is_ngram(str(run.recipe)):
        hint = f"begin it again, which takes seconds: lmworks resume {run.path}"
        raise InputError("the run of an n-gram model ended before the model was saved", str(run.path), hint)
    try:
        recipe = read(run.recipe)
    except InputError as error:
        verb = "pretrain PRESET" if start.get("new") else f"tune {start.get('model', 'MODEL')}"
        hint = (
            f"restore the file as the run began with it; where another version of lmworks wrote it, start anew: "
            f"lmworks {verb} {start.get('data', 'DATA')}"
        )
        raise InputError(f"the run's recipe cannot be read: {error.fault}", str(run.recipe), hint) from error
    recipe.out = str(run.path)
    began_in = str(start.get("working_directory", ""))
    for entry in recipe.tasks:
        kept = run.path / f"{entry.name}-{python_rows.FILE}"
        entry.data.source = str(kept) if kept.is_file() else _resolved(began_in, entry.data.source)
    if recipe.data.source not in datasets.NAMED:  # a folder may have the same name
        recipe.data.source = _resolved(began_in, recipe.data.source)
    recipe.data.additional = [_resolved(began_in, source) for source in recipe.data.additional]
    if (run.path / python_rows.FILE).is_file():
        recipe.data.source = str(run.path / python_rows.FILE)  # the folder may have moved
    if recipe.is_new:
        recipe.tokenizer = NewTokenizer(source=str(run.path / TOKENIZER))
    else:
        recipe.model = _resolved(began_in, str(recipe.model))
    return recipe


def tokenizer_of(source: str | Path, base: str | Path | None = None) -> Tokenizer:
    """The tokenizer of any source of a model, an unfinished run among them, without the weights.

    Args:
        source: of the model.
        base: of an adapter, where its base lies now.

    Raises:
        InputError: there is no such model, or it has no tokenizer.
    """
    run = unfinished_run(source, base=base)
    if run is None:
        return load_tokenizer(source, base=base)
    tokenizer = source_of(recipe_of(run)).existing_tokenizer()
    assert tokenizer is not None  # that of a new model lies in the run's folder
    return tokenizer


def config_of(source: str | Path, base: str | Path | None = None) -> ModelConfig:
    """The config of any source of a model, an unfinished run among them, without the weights; see tokenizer_of."""
    run = unfinished_run(source, base=base)
    if run is None:
        return read_config(source, base=base)
    config = source_of(recipe_of(run)).config
    return config.config(tokenizer_of(source).vocab_size) if isinstance(config, ModelSettings) else config


def _resolved(folder: str, source: str) -> str:
    """A source; if it is a relative path that exists in ``folder`` and not in the working directory, the one there."""
    path = Path(folder, source)
    return str(path) if folder and not expand_home(source).exists() and path.exists() else source


class OpenedModel(Source):
    """A model from a folder, a file, the hub or a package index.

    Args:
        source: of the model.
        base_precision: of its weights, as ``train.base_precision``.
        new_tokens: that are added to its tokenizer and vocabulary.
    """

    def __init__(self, source: str, base_precision: str = "float32", new_tokens: Sequence[str] = ()) -> None:
        super().__init__()
        self.source, self.base_precision, self.new_tokens = source, base_precision, new_tokens
        self.model: LanguageModel | None = None

    @cached_property
    def config(self) -> ModelConfig:
        """The config, read without the weights.

        Raises:
            InputError: the source is an adapter, which no method trains further.
        """
        if is_adapter(self.source):
            hint = f"write a whole model first: lmworks save {self.source} FOLDER, then lmworks tune FOLDER ..."
            raise InputError("is an adapter or a prompt beside its base, which no method trains", self.source, hint)
        config = read_config(self.source)
        if not self.new_tokens:
            return config
        size = add_tokens(load_tokenizer(self.source), self.new_tokens, config.vocab_size).vocab_size
        return config.model_copy(update={"vocab_size": size})

    @property
    def new_ids(self) -> list[int]:
        """The ids of the new tokens, and of all others that the tokenizer has beyond the model's vocabulary."""
        config = read_config(self.source)
        return add_tokens(load_tokenizer(self.source), self.new_tokens, config.vocab_size).ids

    def existing_tokenizer(self) -> Tokenizer | None:
        """The tokenizer, read without the weights."""
        tokenizer = load_tokenizer(self.source)
        tokenizer.add_tokens(self.new_tokens)
        return tokenizer

    @property
    def decoder_start(self) -> int | None:
        """From its generation config."""
        return None if self.model is None else self.model.rules.decoder_start_token_id

    def open(self, task: TaskSettings, rows: Table) -> LanguageModel:
        """Open the model, with its tokenizer."""
        self._bytes_before = process_memory.resident_memory()
        storage = {"float32": None, "bfloat16": "bfloat16"}.get(self.base_precision, "stored")
        self.model = open_saved_model(self.source, storage=storage)
        if self.base_precision in QUANT_TYPES:
            self.notes += base_weights.quantize(self.model.network, self.base_precision)
        if self.base_precision == "auto" and not base_weights.has_blocks(self.model.network):
            widen(self.model.network)
        if self.new_tokens:
            added = add_tokens(self.model.tokenizer, self.new_tokens, self.model.config.vocab_size)
            vocabulary.grow(self.model.network, added.vocab_size)
            self.model.notes += added.notes
        self._bytes_opened = process_memory.resident_memory()
        self.notes += self.model.notes
        if self.model.few_shot is not None:
            self.model.few_shot = None
            self.notes.append("the prompt in the model's folder is not used: a run has one of its own")
        return self.model

    def library_bytes(self) -> int:
        """Measured; of a memory-mapped file, only the pages that were read are in memory."""
        assert self.model is not None
        weights = weight_bytes(self.model.network)
        after = max(0, process_memory.resident_memory() - self._bytes_opened)
        return self._bytes_before + max(0, self._bytes_opened - self._bytes_before - weights) + after

    def weight_formats(self) -> list[WeightFormat]:
        """Float32 unless the recipe asks otherwise; and quantized blocks as in the file, if it has them."""
        assert self.model is not None
        return base_weights.formats_of(self.model.network, self.base_precision)

    def convert_weights(self, base_precision: str) -> None:
        """Convert quantized weights to float32 if ``base_precision`` is float32."""
        if self.model is not None and base_precision == "float32":
            network = self.model.network
            network.dequantized_from = widen(network)


class NewModel(Source):
    """A model with random weights and an existing or a new tokenizer."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        assert isinstance(recipe.model, ModelSettings)
        assert recipe.family is not None
        assert recipe.tokenizer is not None
        if recipe.family not in FAMILIES:
            hint = f"one of: {', '.join(sorted(FAMILIES))}"
            raise InputError(f"there is no family {recipe.family!r}", "family", hint)
        self.settings, self.family = recipe.model, FAMILIES[recipe.family]
        self.tokenizer_settings = recipe.tokenizer
        self.tokenizer_event: dict[str, Any] = {}
        self.network: Transformer | None = None

    @property
    def config(self) -> ModelConfig:
        """The recipe's settings."""
        return self.settings

    def existing_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that the recipe names, if any."""
        return None if self.tokenizer_settings.source is None else tokenizer_of(self.tokenizer_settings.source)

    def open(self, task: TaskSettings, rows: Table) -> LanguageModel:
        """Train or open the tokenizer, and initialize weights with the seed of training."""
        self.tokenizer, self.tokenizer_event, notes = tokenizer_of_new(self.tokenizer_settings, rows, self.family.name)
        self.notes += notes
        tokenizer = self.tokenizer
        config = self.settings.config(tokenizer.vocab_size)
        ids = self._special_ids(task, tokenizer)
        self.family.write_config(config, ids)
        network = Transformer(config)
        initialization.draw(network, torch.Generator().manual_seed(self.recipe.train.seed))
        self.network = network.eval()
        name = str(self.recipe.name)
        return LanguageModel(self.network, tokenizer, self.family, name, name, hf_config=ids, generation=ids)

    def _special_ids(self, task: TaskSettings, tokenizer: Tokenizer) -> dict[str, int]:
        """The ids of special tokens, under their names in config.json and generation_config.json."""
        ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
        ids["decoder_start"] = task_class(task.name).new_decoder_start(task, tokenizer)
        return {f"{role}_token_id": number for role, number in ids.items() if number is not None}

    def library_bytes(self) -> int:
        """Measured; new weights are completely in memory."""
        process_memory.release_memory()
        weights = [] if self.network is None else [weight.nbytes for weight in self.network.parameters()]
        return process_memory.resident_memory() - sum(weights)

    def start_entries(self) -> dict[str, Any]:
        """The tokenizer's origin."""
        return {"tokenizer": self.tokenizer_event}

    def save_for_resuming(self, folder: Path) -> None:
        """Save the tokenizer."""
        self.tokenizer.save(folder / TOKENIZER)


def tokenizer_of_new(new: NewTokenizer, rows: Table, family: str) -> tuple[Tokenizer, dict[str, Any], list[str]]:
    """The tokenizer of a new model, opened or trained; its entry in the journal, and notes for the user.

    Args:
        new: of the recipe.
        rows: training rows.
        family: whose special tokens a trained one has.

    Raises:
        InputError: it cannot be opened, or not be trained by these settings on these rows.
    """
    if new.source is not None:
        tokenizer = tokenizer_of(new.source)
        event = {"source": new.source, "vocab_size": tokenizer.vocab_size}
        return tokenizer, event, [f"tokenizer of {new.source}, {tokenizer.vocab_size:,} ids"]
    try:
        trained, notes = _train(new, list(texts_of(row.values for row in rows.rows)), family)
    except InputError as error:
        hint = re.sub(r"--(?=[a-z])", "--tokenizer.", error.hint)
        raise InputError(error.fault, f"tokenizer.{error.place}", hint) from error
    vocab_size = trained.tokenizer.vocab_size
    event = {"source": "trained on the training rows", "kind": new.kind, "vocab_size": vocab_size}
    return trained.tokenizer, event, [f"tokenizer: {note}" for note in (*notes, *trained.notes)]


def _train(new: NewTokenizer, texts: list[str], family: str) -> tuple[train_tokenizer.TrainedTokenizer, list[str]]:
    """A new tokenizer, and a note if it has fewer ids than vocab_size."""
    settings = TokenizerSettings(**new.model_dump(exclude={"source", "at_most"}))
    try:
        return train_tokenizer.train(texts, settings, family), []
    except TooManyEntries as error:
        if not new.at_most:
            raise
        fewer = settings.model_copy(update={"vocab_size": error.filled})
        note = f"the text fills {error.filled:,} ids, not the preset's {settings.vocab_size:,}"
        return train_tokenizer.train(texts, fewer, family), [note]
