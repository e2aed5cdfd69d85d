"""Adapters on disk as ``peft`` writes and reads them: adapter_config.json and adapter_model.safetensors.

Translates between that format and low-rank factors by our module names. Where one of their linears consists of several
of ours (GPT-2's c_attn is our q_proj, k_proj and v_proj), factors are fused: the A's are stacked and B is
block-diagonal, so the rank is the sum of the ranks, and alpha is increased accordingly to keep the scale.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from lmworks.adapt.head_weights import PREFIX, SavedHead
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import check_kinds, read_object
from lmworks.families.family import Family
from lmworks.families.mapping import Row, our_modules, their_place
from lmworks.model.config import ModelConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TENSOR_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
# Keys of their config that are read here, or that change nothing once the adapter is trained.
READ_KEYS = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora"}
READ_KEYS |= {"rank_pattern", "alpha_pattern", "target_modules", "modules_to_save"}
IGNORED_KEYS = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
IGNORED_KEYS |= {"fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core"}
IGNORED_KEYS |= {"runtime_config", "eva_config", "loftq_config", "qalora_group_size", "ensure_weight_tying"}
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("peft_type", "bias", "base_model_name_or_path"), (str,)),
    **dict.fromkeys(("lora_alpha", "lora_dropout"), (float,)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), (dict,)),
    "r": (int,),
    "use_rslora": (bool,),
    "target_modules": (str, list),
    "modules_to_save": (list,),
    "layers_to_transform": (int, list),
    "init_lora_weights": (bool, str),
}
# Initializations that also change the base's weights, so that the factors alone do not give the trained model.
MERGE = "merge it into its base with peft (merge_and_unload), and load the model that is saved then"
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Factors:
    """A low-rank update of one linear: scale * b @ a, with a (r, in) and b (out, r)."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return len(self.a)

    @property
    def alpha(self) -> int | float:
        """scale * rank, without the rounding error of the division that gave the scale."""
        alpha = float(f"{self.scale * self.rank:.12g}")
        return int(alpha) if alpha.is_integer() else alpha


def write(
    folder: Path,
    factors: Mapping[str, Factors],
    outputs: Mapping[str, int],
    family: Family,
    config: ModelConfig,
    dropout: float = 0.0,
    base_source: str = "",
    head: SavedHead | None = None,
) -> None:
    """Write an adapter.

    Args:
        folder: created if it does not exist; other files in it are kept.
        factors: updates by our module names.
        outputs: out_features of every linear of the network by our names.
        family: gives the tensors' names.
        config: of the network.
        dropout: recorded for further training.
        base_source: how to find the base model again.
        head: of a task, which is kept whole.
    """
    rows = family.table(config)
    fused, transposed = _fuse(rows, factors, outputs)
    theirs = {_written(name, family, config): update for name, update in fused.items()}
    places = (their_place(rows, name) for name in outputs)
    all_modules = {_written(place.module, family, config) for place in places if place is not None}
    adapter_config = {
        **_ranks_and_targets(theirs, all_modules),
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else head.task_type,
        "base_model_name_or_path": base_source or None,
        "inference_mode": True,
        "lora_dropout": dropout,
        "fan_in_fan_out": transposed,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None if head is None else head.modules,
        "init_lora_weights": True,
    }
    tensors = {} if head is None else dict(head.tensors)
    for name, update in theirs.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = update.a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = update.b.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, to_bytes(tensors, {"format": "pt"}))
    atomic_write(folder / CONFIG, json.dumps(adapter_config, indent=2, sort_keys=True) + "\n")


def _ranks_and_targets(theirs: Mapping[str, Factors], all_modules: set[str]) -> dict[str, Any]:
    """The keys of adapter_config.json that say which modules are adapted, and by which ranks and alphas: the most
    frequent pair for all, the others by the ends of their modules' names.

    Args:
        theirs: updates by their module names.
        all_modules: their names of all linears, adapted or not.
    """
    rank_and_alpha = {name: (update.rank, update.alpha) for name, update in theirs.items()}
    (rank, alpha), _ = Counter(rank_and_alpha.values()).most_common(1)[0]
    rank_pattern, alpha_pattern = {}, {}
    for other in set(rank_and_alpha.values()) - {(rank, alpha)}:
        modules = {name for name, own in rank_and_alpha.items() if own == other}
        for suffix in _suffixes(modules, set(theirs)):
            rank_pattern[suffix], alpha_pattern[suffix] = other
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": _suffixes(set(theirs), all_modules),
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
    }


def _written(module: str, family: Family, config: ModelConfig) -> str:
    """A module's name in the class of their model that the config asks for."""
    return family.written_name(f"{module}.weight", config).removesuffix(".weight")


def read(
    folder: Path,
    family: Family,
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    adapter_config: dict[str, Any],
) -> dict[str, Factors]:
    """An adapter's updates by our module names.

    Args:
        folder: for errors.
        family: of the base.
        config: of the base, with the adapter's head.
        tensors: of the adapter, without those of its head, by their names in the file.
        adapter_config: as :func:`read_lora_config` gives it.

    Raises:
        InputError: it is not a LoRA adapter, uses unsupported features, or does not match this model.
    """
    rows = family.table(config)
    factors: dict[str, Factors] = {}
    for module, pair in _pairs(tensors, folder).items():
        current = family.current_name(module)
        ours = our_modules(rows, current) or our_modules(rows, family.prefix + current)
        if not ours:
            raise InputError(
                f"{module} is no linear of a {family.name} model of this size",
                str(folder / WEIGHTS),
                "load the adapter onto the base that it was trained on",
            )
        factors |= _split(pair, ours, _scale(module, len(pair["A"]), adapter_config, folder))
    _check_complete(adapter_config, set(factors), rows, folder)
    return factors


def _fuse(
    rows: Sequence[Row], factors: Mapping[str, Factors], outputs: Mapping[str, int]
) -> tuple[dict[str, Factors], bool]:
    """Updates by our names -> updates by their names, and whether their weights are stored transposed."""
    places = {name: their_place(rows, name) for name in factors}
    fused: dict[str, Factors] = {}
    transposed = False
    for name, place in places.items():
        if place is None:
            hint = f"leave {name.rpartition('.')[2]} out of lora.target_modules"
            raise InputError(f"the format has no place for an adapter on {name}", hint=hint)
        transposed = transposed or place.transpose
        if place.count == 1:
            fused[place.module] = factors[name]
        elif place.module not in fused:
            fused[place.module] = _stack(our_modules(rows, place.module), factors, outputs)
    return fused, transposed


def _stack(parts: Sequence[str], factors: Mapping[str, Factors], outputs: Mapping[str, int]) -> Factors:
    """Updates of several of our linears, adapted or not, as one update of the fused linear."""
    present = [factors[part] for part in parts if part in factors]
    scale = present[0].scale
    if len(present) == len(parts) and all(torch.equal(update.a, present[0].a) for update in present):
        return Factors(present[0].a, torch.cat([update.b * (update.scale / scale) for update in present]), scale)
    row_blocks, total_rank, column = [], sum(update.rank for update in present), 0
    for part in parts:
        row_block = torch.zeros(outputs[part], total_rank)
        if part in factors:
            update = factors[part]
            row_block[:, column : column + update.rank] = update.b * (update.scale / scale)
            column += update.rank
        row_blocks.append(row_block)
    return Factors(torch.cat([update.a for update in present]), torch.cat(row_blocks), scale)


def _split(pair: Mapping[str, torch.Tensor], ours: Sequence[str], scale: float) -> dict[str, Factors]:
    """An update of a fused linear as updates of our linears; they start with the same A.

    A block-diagonal update, as :func:`_stack` writes it, is split into its original factors.
    """
    a, b = pair["A"].float(), pair["B"].float()
    updates: dict[str, Factors] = {}
    for name, rows in zip(ours, b.chunk(len(ours)), strict=True):
        columns = (rows.abs().amax(0) > 0).nonzero().squeeze(1)
        own = slice(None)
        if len(ours) > 1 and len(columns) and len(a) % len(ours) == 0:
            rank = len(a) // len(ours)
            begin = int(columns[0]) // rank * rank
            if int(columns[-1]) < begin + rank:
                own = slice(begin, begin + rank)
        updates[name] = Factors(a[own].clone(), rows[:, own].clone(), scale)
    return updates


def _suffixes(modules: set[str], all_modules: set[str]) -> list[str]:
    """The shortest name suffixes that match these modules and no others."""
    suffixes = set()
    for name in modules:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            suffix = ".".join(parts[-count:])
            if all(other in modules for other in all_modules if f".{other}".endswith(f".{suffix}")):
                break
        suffixes.add(suffix)
    return sorted(suffixes)


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
    for name in ("rank_pattern", "alpha_pattern"):
        values = config.get(name) or {}
        check_kinds(values, dict.fromkeys(values, (float,)), f"{path}, {name}")
    return config


def read_lora_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a LoRA adapter.

    Raises:
        InputError: it is no LoRA adapter, or has settings that are not computed here.
    """
    path, config = folder / CONFIG, read_config(folder)
    if config.get("peft_type") != "LORA":
        raise InputError(f"peft_type is {config.get('peft_type')!r}", str(path), "give an adapter of type LORA")
    initialization = config.get("init_lora_weights", True)
    if isinstance(initialization, str) and initialization.lower().startswith(CHANGES_BASE):
        hint = "convert it with peft's path_initial_model_for_weight_conversion, or merge it there"
        raise InputError(f"init_lora_weights {initialization!r} changed the base's weights as well", str(path), hint)
    if config.get("bias", "none") != "none":
        raise InputError(f"bias {config['bias']!r}: trained biases are not loaded", str(path), MERGE)
    supported = READ_KEYS | IGNORED_KEYS | {"init_lora_weights", "bias"}
    unknown = [name for name, value in config.items() if value and name not in supported]
    if unknown:
        raise InputError(f"{', '.join(sorted(unknown))}: changes the result and is not computed here", str(path), MERGE)
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of an adapter by their names in the file.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / WEIGHTS
    if not path.exists():
        pickled = (folder / "adapter_model.bin").exists()
        safetensors = "pickles are never opened here; save the adapter by peft with safe_serialization=True"
        hint = safetensors if pickled else "give the folder peft saved"
        raise InputError("the adapter's weights are missing", str(path), hint)
    try:
        return load_file(path)
    except SafetensorError as fault:
        raise InputError(f"damaged: {fault}", str(path), "fetch or save the adapter again") from None


def _pairs(tensors: Mapping[str, torch.Tensor], folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Factors A and B by their module names."""
    path = folder / WEIGHTS
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = TENSOR_NAME.fullmatch(key)
        if match is None:
            raise InputError(f"unexpected tensor {key}", str(path), MERGE)
        pairs.setdefault(match["module"], {})[match["factor"]] = tensor
    for module, pair in pairs.items():
        if set(pair) != {"A", "B"}:
            raise InputError(
                f"{module} has lora_{next(iter(pair))} alone", str(path), "fetch or save the adapter again"
            )
        if pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"the factors of {module} have different ranks", str(path), "save the adapter again")
    if not pairs:
        raise InputError("the adapter holds no tensors", str(path), "save the adapter again")
    return pairs


def _scale(module: str, rank: int, config: Mapping[str, Any], folder: Path) -> float:
    """alpha / r of a module, by the config and its patterns; checks that the config has the file's rank."""

    def by_pattern(patterns: Mapping[str, Any] | None, default: Any) -> Any:
        for pattern, value in (patterns or {}).items():
            if re.match(rf"(?:.*\.)?(?:{pattern})$", module):
                return value
        return default

    expected = by_pattern(config.get("rank_pattern"), config.get("r", 8))
    if expected != rank:
        raise InputError(
            f"{module} has rank {rank}, its config says {expected}",
            str(folder / CONFIG),
            "fetch or save the adapter again",
        )
    alpha = by_pattern(config.get("alpha_pattern"), config.get("lora_alpha", 8))
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _check_complete(config: Mapping[str, Any], present: set[str], rows: Sequence[Row], folder: Path) -> None:
    """Raise if a module that target_modules lists by name has no factors."""
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if not isinstance(targets, list) or config.get("exclude_modules"):
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
            raise InputError(f"no tensors for {module}", str(folder / WEIGHTS), "fetch or save the adapter again")
