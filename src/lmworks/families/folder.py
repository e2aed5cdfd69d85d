"""A Hugging Face folder <-> config, network and tokenizer.

Weights are read from and written to safetensors, never pickle. Those that already have the data type asked for stay in
the file's memory map and are not copied; what happens to them in memory does not reach the file.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, check_disk_space
from lmworks.base.json_file import read_object
from lmworks.families.family import Family
from lmworks.families.generation_config import GENERATION, TOKEN_IDS, ids_in, ids_within, read_generation
from lmworks.families.mapping import Rename, Row, to_ours, to_theirs
from lmworks.families.opened import (
    DTYPES,
    Opened,
    dtype_of,
    fill,
    not_finite,
    read_dtype,
    shapes_of,
    with_storages,
)
from lmworks.families.registry import family_of
from lmworks.families.sentence_pooling import FILES, SentencePooling, read_pooling, write_pooling
from lmworks.model.config import ModelConfig
from lmworks.model.stored_layers import stored_layers
from lmworks.model.trained_parameters import meta_network
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = WEIGHTS + ".index.json"
# What a saved model consists of; a folder that holds anything else is not replaced by one.
OURS = [CONFIG, GENERATION, "*.safetensors", INDEX, "tokenizer*", "special_tokens_map.json", "chat_template.jinja"]
OURS += ["vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "lmworks.json", *FILES]
OURS += ["adapter_config.json", "lmworks_base.json"]
FILE_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".onnx")  # names of models in one file
SHARD_BYTES = 5_000_000_000


def open_folder(path: str | Path, dtype: str = "float32", device: str = "cpu", storage: str | None = None) -> Opened:
    """Open a model folder whole.

    Args:
        path: holds config.json, model.safetensors (or its index and shards), and mostly tokenizer.json.
        dtype: what the weights are held in: float32, bfloat16 or float16.
        device: where to.
        storage: frozen weights instead, which take less memory: "bfloat16", or "stored": as the file has them.

    Raises:
        InputError: a file is missing or damaged, the family is not known, or config and weights do not fit together.
    """
    folder, requested = Path(path), read_dtype(dtype, storage, device)
    hf_config = _config(folder)
    family = family_of(hf_config, str(folder / CONFIG))
    weights = _Weights(_weight_files(folder), requested, family, _assignment(folder))
    config = family.read_config(hf_config, str(folder / CONFIG), set(weights))
    network, rows = meta_network(config), family.table(config)
    if family.is_bare(config):
        weights.strip(family.prefix)
    _leave_duplicates(weights, rows, family, folder)
    tensors = to_ours(rows, weights, shapes_of(network), family.ignored, str(folder))
    generation, notes = read_generation(folder, str(folder / CONFIG), hf_config, config.vocab_size)
    tokenizer = open_tokenizer(folder)
    if tokenizer is not None:
        tokenizer.end_ids = {token for token in tokenizer.end_ids if token < config.vocab_size}
        tokenizer.end_ids.update(ids_in(generation.get("eos_token_id")))
        notes += tokenizer.fit(config.vocab_size, str(folder))
    pooling, more = read_pooling(folder)
    notes += [*more, *not_finite(tensors, str(folder), drops=storage is not None)]
    held = tensors if storage is None else with_storages(network, tensors)
    return Opened(config, fill(network, held, device), tokenizer, hf_config, family, generation, notes, pooling)


def read_config(path: str | Path) -> ModelConfig:
    """What the model in a folder is, by its config and, where they are there, the names of its weights.

    Raises as :func:`open_folder` does for all but weights.
    """
    folder = Path(path)
    place, hf_config = str(folder / CONFIG), _config(folder)
    family = family_of(hf_config, place)
    try:
        names = set(_Weights(_weight_files(folder), torch.float32, family, _assignment(folder)))
    except InputError:
        names = set()
    return family.read_config(hf_config, place, names)


def open_tokenizer(path: str | Path) -> Tokenizer | None:
    """The tokenizer of a model folder; None where the folder shows no trace of one.

    Raises:
        InputError: there is a tokenizer, but in none of the forms read here.
    """
    traces = ("tokenizer*", "vocab.*", "spiece.model")
    return Tokenizer.open(path) if any(any(Path(path).glob(trace)) for trace in traces) else None


def save_folder(
    path: str | Path,
    network: Transformer,
    config: ModelConfig,
    family: Family,
    tokenizer: Tokenizer | None = None,
    hf_config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    pooling: SentencePooling | None = None,
) -> Path:
    """Write a model folder that ``transformers`` and lmworks open to the same logits; wholly or not at all.

    Args:
        path: the folder; new or empty.
        network: without adapters or quantized linears.
        config, family: what it is and whose names it is written in.
        tokenizer: None: none is written.
        hf_config: the config.json it came with; its token ids are kept.
        generation: generation_config.json, as it shall be.
        dtype: what the weights are written in; None: as they are.
        shard_bytes: no file of weights grows beyond this, unless one tensor alone does.
        overwrite: replace a model that was saved there; a folder that holds anything else is refused all the same.
        pooling: of a sentence encoder.

    Raises:
        InputError: the folder holds something, there is no room, or the family cannot say what the config says.
    """
    folder = Path(path)
    check_place(folder, overwrite)
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    written_dtype = dtype_of(dtype) if dtype else _own_dtype(network)
    weights |= {f"{name}.weight": layer.storage.dequantized(written_dtype) for name, layer in stored_layers(network)}
    keys = _config_keys(config, family, hf_config or {}, written_dtype)
    tensors = to_theirs(family.table(config), weights)
    theirs = {family.written_name(name, config): tensor for name, tensor in tensors.items()}
    size = sum(tensor.numel() for tensor in theirs.values()) * written_dtype.itemsize
    check_disk_space(folder, size, "the model's weights")
    with atomic_folder(folder) as aside:
        _write_json(aside / CONFIG, keys)
        if generation:
            _write_json(aside / GENERATION, generation)
        if tokenizer is not None:
            tokenizer.save(aside)
        if pooling is not None:
            write_pooling(aside, pooling, config.hidden_size)
        _save_weights(aside, theirs, written_dtype, shard_bytes)
    return folder


def _config_keys(
    config: ModelConfig, family: Family, hf_config: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, Any]:
    """The keys of config.json, with the token ids of the one that the model came with."""
    ids = {name: ids_within(hf_config.get(name), config.vocab_size) for name in TOKEN_IDS}
    keys = family.write_config(config, {name: value for name, value in ids.items() if value is not None})
    for name in ids.keys() & hf_config.keys():  # null is written where it stood: the family may have a default
        keys.setdefault(name, None)
    keys["torch_dtype"] = str(dtype).removeprefix("torch.")
    return keys


class _Weights(Mapping[str, torch.Tensor]):
    """The tensors of some safetensors files by their full names of today, each read when it is asked for."""

    def __init__(
        self,
        files: list[Path],
        dtype: torch.dtype | None,
        family: Family,
        assignment: Mapping[str, str] | None = None,
    ) -> None:
        """``assignment``: which file holds which tensor, as the index of shards says; other copies are not read."""
        self.dtype = dtype
        self._where: dict[str, tuple[Any, str, Path]] = {}
        for path in files:
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"not a whole safetensors file: {error}", str(path), "it was not fetched whole: fetch it again"
                ) from error
            names = set(file.keys())
            if assignment is not None:
                assigned = {name for name, holder in assignment.items() if holder == path.name}
                if missing := sorted(assigned - names):
                    fault = f"{INDEX} assigns {missing[0]} to this file, which does not hold it"
                    raise InputError(fault, str(path), "fetch the model again, whole")
                names = assigned
            self._where |= {family.current_name(name): (file, name, path) for name in sorted(names)}
        if not any(name.startswith(family.prefix) for name in self._where):  # saved without its head
            full = {name: name if _is_duplicate(name, family) else family.prefix + name for name in self._where}
            self._where = {full[name]: where for name, where in self._where.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        file, stored, path = self._where[name]
        try:
            tensor = file.get_tensor(stored)
        except SafetensorError as error:
            raise InputError(f"{stored} cannot be read: {error}", str(path), "fetch the file again") from error
        if not tensor.is_floating_point():
            raise InputError(
                f"{stored} holds {tensor.dtype}, not weights", str(path), "take the model that was not quantized"
            )
        return tensor if self.dtype is None else tensor.to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def drop(self, name: str) -> None:
        """Leave a tensor out."""
        del self._where[name]

    def strip(self, prefix: str) -> None:
        """Take what stands before the names away."""
        self._where = {name.removeprefix(prefix): where for name, where in self._where.items()}


def _is_duplicate(name: str, family: Family) -> bool:
    return any(re.fullmatch(pattern, name) for pattern, _ in family.duplicates)


def _config(folder: Path) -> dict[str, Any]:
    if (folder / CONFIG).is_file():
        return read_object(folder / CONFIG)
    if not folder.is_dir():
        raise InputError("there is no such folder", str(folder), "give the path of a model folder")
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            "this is an adapter, not a model", str(folder), "open its base model and give this folder as its adapter"
        )
    raise InputError("this is not a model folder: it has no config.json", str(folder), "give a folder that has one")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if assignment := _assignment(folder):
        names = sorted(set(assignment.values()))
        for name in names:
            if not (folder / name).is_file():
                raise InputError(f"{name} is missing", str(folder / INDEX), "fetch the model again, whole")
        return [folder / name for name in names]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise InputError(
            "its weights are pickled, and opening a pickle runs whatever code it holds",
            str(folder),
            "take a version with model.safetensors, or write one with transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    raise InputError("it has no weights: model.safetensors is missing", str(folder), "fetch the model again, whole")


def _assignment(folder: Path) -> dict[str, str] | None:
    """Which file holds which tensor, by the index of shards; None where one file holds all of them."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return None
    named = read_object(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise InputError("weight_map is not a table of file names", str(folder / INDEX), "fetch the model again, whole")
    if outside := next((file for file in named.values() if Path(file).name != file), None):
        fault = f"weight_map names {outside!r}, which is no file of this folder"
        raise InputError(fault, str(folder / INDEX), "do not trust this model: fetch it from where it was published")
    return named


def _leave_duplicates(weights: _Weights, rows: Sequence[Row], family: Family, folder: Path) -> None:
    """Drop duplicates of tied weights, such as the head's matrix in addition to the embeddings."""
    known = {row.theirs for row in rows}
    theirs = {row.ours: row.theirs for row in rows if isinstance(row, Rename)}
    for pattern, ours in family.duplicates:
        for name in [name for name in weights if name not in known and re.fullmatch(pattern, name)]:
            original = theirs.get(ours)
            if original is None or original not in weights:
                continue
            if not torch.equal(weights[name], weights[original]):
                raise InputError(
                    f"the config ties {name} to {original}, but the file holds two that differ",
                    str(folder),
                    'write "tie_word_embeddings": false into config.json if the head is meant to be its own',
                )
            weights.drop(name)


def check_place(folder: Path, overwrite: bool = False, further: Sequence[str] = ()) -> None:
    """Refuse a place that a model must not be written to.

    Args:
        folder: the place.
        overwrite: whether a model there may be replaced.
        further: patterns of names, of files that may stand beside a model and are replaced with it.

    Raises:
        InputError: a name that is a file's, a file, or a folder that is not empty; with ``overwrite``, one that holds
            anything but a model.
    """
    if not folder.exists():
        if folder.suffix.lower() in FILE_ENDINGS:
            hint = f"give a folder's name, such as {folder.with_suffix('')}"
            if folder.suffix.lower() == ".gguf":
                hint += "; lmworks export and lmworks quantize write GGUF files"
            fault = f"a model is written as a folder, and {folder.suffix} ends the name of a file"
            raise InputError(fault, str(folder), hint)
        return
    if not folder.is_dir():
        raise InputError("a file of this name stands in the way", str(folder), "choose another name")
    if any(folder.iterdir()) and not overwrite:
        hint = "choose a new or empty folder, or replace it with --overwrite (in Python overwrite=True)"
        raise InputError("is there already and not empty", str(folder), hint)
    known = [*OURS, *further]
    names = [file.name for file in folder.iterdir()]
    strange = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in known)]
    if strange:
        raise InputError(
            f"the folder holds what is not part of a model: {', '.join(sorted(strange)[:5])}",
            str(folder),
            "choose a new or empty folder",
        )


def _own_dtype(network: Transformer) -> torch.dtype:
    """What most of the weights are held in; float32 where these are quantized."""
    for _, layer in stored_layers(network):
        return dtype_of(layer.storage.dtype_name) if layer.storage.dtype_name in DTYPES else torch.float32
    return next(network.parameters()).dtype


def _save_weights(folder: Path, theirs: dict[str, torch.Tensor], dtype: torch.dtype, shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in theirs.items():
        size = tensor.numel() * dtype.itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: theirs[name].to("cpu", dtype).contiguous() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        file_of |= dict.fromkeys(names, file)
    if len(shards) > 1:
        size = sum(tensor.numel() for tensor in theirs.values()) * dtype.itemsize
        _write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": file_of})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
