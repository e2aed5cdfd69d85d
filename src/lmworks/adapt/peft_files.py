"""Adapters on disk as ``peft`` has them: adapter_config.json and adapter_model.safetensors. Knows no method.

Imports torch only where its tensors are read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, deserialize

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import check_kinds, read_object
from lmworks.families.mapping import Row, our_modules
from lmworks.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from lmworks.families.family import Family

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of the name of every tensor of a module of the model
PROMPT_PREFIX = "base_model."  # the same for methods that PEFT calls prompt learning
IGNORED_KEYS = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
IGNORED_KEYS |= {"peft_type", "modules_to_save"}
"""Keys that are read for every method, or that change nothing once the adapter is trained."""
FLOATS: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
MERGE = "merge it into its base with peft (merge_and_unload), and load the model that is saved then"
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("peft_type", "base_model_name_or_path"), (str,)),
    "modules_to_save": (list,),
}


@dataclass(frozen=True)
class PeftFiles:
    """The two files of an adapter.

    Attributes:
        config: the keys of adapter_config.json that belong to the method; with those of every method once it is read.
        tensors: by their names in the file, without those of a head that is kept whole: of torch, or NumPy's arrays.
        folder: where they were read, for errors.
    """

    config: dict[str, Any]
    tensors: dict[str, Any]
    folder: Path = Path()

    @property
    def config_path(self) -> str:
        """adapter_config.json."""
        return str(self.folder / CONFIG)

    @property
    def weights_path(self) -> str:
        """adapter_model.safetensors."""
        return str(self.folder / WEIGHTS)

    def check(self, kinds: Mapping[str, tuple[type, ...]], read: set[str]) -> None:
        """Refuse a config with a value of the wrong type, or with settings that change the result and are not read.

        Args:
            kinds: types of the values of some keys.
            read: keys of the method, those without influence on a trained adapter among them.

        Raises:
            InputError: it has.
        """
        check_kinds(self.config, dict(kinds), self.config_path)
        unknown = sorted(name for name, value in self.config.items() if value and name not in read | IGNORED_KEYS)
        if unknown:
            fault = f"{', '.join(unknown)}: changes the result and is not computed here"
            raise InputError(fault, self.config_path, MERGE)


def written_module(module: str, family: Family, config: ModelConfig) -> str:
    """A module's name in the class of their model that the config asks for."""
    return family.written_name(f"{module}.weight", config).removesuffix(".weight")


def our_linears(module: str, rows: Sequence[Row], family: Family, files: PeftFiles) -> tuple[str, ...]:
    """Our names of the linears that a module of an adapter's file holds, in the order in which it holds them.

    Args:
        module: its name in the file.
        rows: of the base's table.
        family: of the base.
        files: of the adapter, for errors.

    Raises:
        InputError: the base has no such linear.
    """
    current = family.current_name(module)
    ours = our_modules(rows, current) or our_modules(rows, family.prefix + current)
    if not ours:
        raise InputError(
            f"{module} is no linear of a {family.name} model of this size",
            files.weights_path,
            "load the adapter onto the base that it was trained on",
        )
    return ours


def check_complete(files: PeftFiles, present: set[str], rows: Sequence[Row]) -> None:
    """Raise if a module that target_modules lists by name has no tensors.

    Args:
        files: of the adapter.
        present: our names of the linears that it adapts.
        rows: of the base's table.

    Raises:
        InputError: one has none.
    """
    targets, layers = files.config.get("target_modules"), files.config.get("layers_to_transform")
    if not isinstance(targets, list) or files.config.get("exclude_modules"):
        return  # a regular expression or none: the tensors alone determine what is adapted
    layers = [layers] if isinstance(layers, int) else layers
    for row in rows:
        module = row.theirs.removesuffix(".weight")
        if module == row.theirs or not any(f".{module}".endswith(f".{target}") for target in targets):
            continue
        numbers = [int(word) for word in module.split(".") if word.isdigit()]
        if layers is not None and not set(numbers) & set(layers):
            continue
        if not {name.removesuffix(".weight") for name in row.parts} <= present:
            raise InputError(f"no tensors for {module}", files.weights_path, "fetch or save the adapter again")


def suffixes(modules: set[str], all_modules: set[str]) -> list[str]:
    """The shortest name suffixes that match these modules and no others."""
    found = set()
    for name in modules:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            suffix = ".".join(parts[-count:])
            if all(other in modules for other in all_modules if f".{other}".endswith(f".{suffix}")):
                break
        found.add(suffix)
    return sorted(found)


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write both files; the folder is created if it does not exist, other files in it are kept."""
    from safetensors.torch import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic_write(folder / WEIGHTS, to_bytes(contiguous, {"format": "pt"}))
    atomic_write(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of any kind of adapter.

    Raises:
        InputError: it is missing, is not a JSON object, or has a value of the wrong type.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError("this folder holds no adapter", str(path), "give the folder that peft saved")
    config = read_object(path)
    check_kinds(config, KINDS, str(path))
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of an adapter by their names in the file.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors.torch import load_file

    path = _weights_in(folder)
    try:
        return load_file(path)
    except SafetensorError as fault:
        raise _damaged(path, fault) from None


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The same as float32 arrays, without torch.

    Raises:
        InputError: the file is missing or damaged, or holds other numbers than floats.
    """
    path = _weights_in(folder)
    try:
        tensors = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as fault:
        raise _damaged(path, fault) from None
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in FLOATS:
            raise InputError(
                f"{name} is of type {tensor['dtype']}", str(path), "save the adapter in float32 or bfloat16"
            )
        numbers = np.frombuffer(tensor["data"], FLOATS[tensor["dtype"]])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = numbers.astype(np.float32).reshape(tensor["shape"])
    return arrays


def _weights_in(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.exists():
        pickled = (folder / "adapter_model.bin").exists()
        safetensors = "pickles are never opened here; save the adapter by peft with safe_serialization=True"
        hint = safetensors if pickled else "give the folder peft saved"
        raise InputError("the adapter's weights are missing", str(path), hint)
    return path


def _damaged(path: Path, fault: Exception) -> InputError:
    return InputError(f"damaged: {fault}", str(path), "fetch or save the adapter again")
