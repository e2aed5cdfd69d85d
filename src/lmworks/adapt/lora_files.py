"""LoRA adapters as ``peft`` writes and reads them: their config and tensors <-> low-rank factors by our module names.

Where one of their linears consists of several of ours (GPT-2's c_attn is our q_proj, k_proj and v_proj), factors are
fused: the A's are stacked and B is block-diagonal, so the rank is the sum of the ranks, and alpha is increased
accordingly to keep the scale. DoRA's magnitudes are of rows, which are concatenated; those of rows without an update
are the norms of the base's rows.

Factors that are read are of torch or NumPy, as the files are. Imports torch only where factors are fused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lmworks.adapt.peft_files import (
    MERGE,
    PREFIX,
    PeftFiles,
    check_complete,
    our_linears,
    suffixes,
    written_module,
)
from lmworks.base.errors import InputError
from lmworks.base.json_file import check_kinds
from lmworks.families.mapping import Row, Split, our_modules, their_place
from lmworks.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from lmworks.families.family import Family

TENSOR_NAME = re.compile(
    re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<factor>[AB]|magnitude_vector)(?:\.default)?(?:\.weight)?"
)
MAGNITUDE = "magnitude_vector"
# Keys of their config that are read here, or that change nothing once the adapter is trained.
READ_KEYS = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"}
READ_KEYS |= {"fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core"}
READ_KEYS |= {"runtime_config", "eva_config", "loftq_config", "qalora_group_size", "ensure_weight_tying"}
READ_KEYS |= {"init_lora_weights", "bias", "use_dora", "trainable_token_indices"}
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("lora_alpha", "lora_dropout"), (float,)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), (dict,)),
    "bias": (str,),
    "r": (int,),
    **dict.fromkeys(("use_rslora", "use_dora"), (bool,)),
    "target_modules": (str, list),
    "layers_to_transform": (int, list),
    "init_lora_weights": (bool, str),
}
# Initializations that also change the base's weights, so that the factors alone do not give the trained model.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Factors:
    """A low-rank update of one linear: scale * b @ a, with a (r, in) and b (out, r); DoRA's has a magnitude (out,).

    Tensors of torch, or arrays of NumPy.
    """

    a: Any
    b: Any
    scale: float
    magnitude: Any = None

    @property
    def rank(self) -> int:
        """r."""
        return len(self.a)

    @property
    def alpha(self) -> int | float:
        """scale * rank, without the rounding error of the division that gave the scale."""
        alpha = float(f"{self.scale * self.rank:.12g}")
        return int(alpha) if alpha.is_integer() else alpha


def to_files(
    factors: Mapping[str, Factors],
    outputs: Mapping[str, int],
    family: Family,
    config: ModelConfig,
    dropout: float,
    row_norms: Callable[[str], torch.Tensor] | None = None,
) -> PeftFiles:
    """The files of an adapter.

    Args:
        factors: updates by our module names, all of them with a magnitude or none.
        outputs: out_features of every linear of the network by our names.
        family: gives the tensors' names.
        config: of the network.
        dropout: recorded for further training.
        row_norms: of magnitudes: gives the norms (out,) of the rows of a linear's weight, by our name.

    Raises:
        InputError: the format has no place for one of them.
    """
    rows = family.table(config)
    fused, transposed = _fuse(rows, factors, outputs, row_norms)
    theirs = {written_module(name, family, config): update for name, update in fused.items()}
    places = (their_place(rows, name) for name in outputs)
    all_modules = {written_module(place.module, family, config) for place in places if place is not None}
    adapter_config = {
        **_ranks_and_targets(theirs, all_modules),
        "lora_dropout": dropout,
        "fan_in_fan_out": transposed,
        "bias": "none",
        "use_rslora": False,
        "use_dora": any(update.magnitude is not None for update in theirs.values()),
        "init_lora_weights": True,
    }
    tensors = {}
    for name, update in theirs.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = update.a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = update.b
        if update.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_{MAGNITUDE}"] = update.magnitude
    return PeftFiles(adapter_config, tensors)


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
        for suffix in suffixes(modules, set(theirs)):
            rank_pattern[suffix], alpha_pattern[suffix] = other
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": suffixes(set(theirs), all_modules),
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
    }


def read(files: PeftFiles, family: Family, config: ModelConfig) -> dict[str, Factors]:
    """An adapter's updates by our module names.

    Args:
        files: of the adapter.
        family: of the base.
        config: of the base, with the adapter's head.

    Raises:
        InputError: it uses unsupported features, or does not match this model.
    """
    check_config(files)
    rows = family.table(config)
    factors: dict[str, Factors] = {}
    for module, pair in _pairs(files).items():
        ours = our_linears(module, rows, family, files)
        factors |= _split(pair, _parts(rows, ours, len(pair["B"]), files), _scale(module, len(pair["A"]), files))
    check_complete(files, set(factors), rows)
    return factors


def check_config(files: PeftFiles) -> None:
    """Refuse a config that has settings that are not computed here.

    Raises:
        InputError: it has.
    """
    config, place = files.config, files.config_path
    check_kinds(config, KINDS, place)
    for name in ("rank_pattern", "alpha_pattern"):
        values = config.get(name) or {}
        check_kinds(values, dict.fromkeys(values, (float,)), f"{place}, {name}")
    initialization = config.get("init_lora_weights", True)
    if isinstance(initialization, str) and initialization.lower().startswith(CHANGES_BASE):
        hint = "convert it with peft's path_initial_model_for_weight_conversion, or merge it there"
        raise InputError(f"init_lora_weights {initialization!r} changed the base's weights as well", place, hint)
    if config.get("bias", "none") != "none":
        raise InputError(f"bias {config['bias']!r}: trained biases are not loaded", place, MERGE)
    files.check(KINDS, READ_KEYS)


def _fuse(
    rows: Sequence[Row],
    factors: Mapping[str, Factors],
    outputs: Mapping[str, int],
    row_norms: Callable[[str], torch.Tensor] | None,
) -> tuple[dict[str, Factors], bool]:
    """Updates by our names -> updates by their names, and whether their weights are stored transposed."""
    import torch

    places = {name: their_place(rows, name) for name in factors}
    fused: dict[str, Factors] = {}
    transposed = False
    for name, place in places.items():
        if place is None:
            hint = f"leave {name.rpartition('.')[2]} out of target_modules"
            raise InputError(f"the format has no place for an adapter on {name}", hint=hint)
        transposed = transposed or place.transpose
        if place.count == 1:
            fused[place.module] = factors[name]
        elif place.module not in fused:
            parts = our_modules(rows, place.module)
            fused[place.module] = _stack(parts, factors, outputs)
            if factors[name].magnitude is not None:
                assert row_norms is not None
                magnitudes = [factors[part].magnitude if part in factors else row_norms(part) for part in parts]
                fused[place.module] = replace(fused[place.module], magnitude=torch.cat(magnitudes))
    return fused, transposed


def _stack(parts: Sequence[str], factors: Mapping[str, Factors], outputs: Mapping[str, int]) -> Factors:
    """Updates of several of our linears, adapted or not, as one update of the fused linear."""
    import torch

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


def _parts(rows: Sequence[Row], ours: Sequence[str], outputs: int, files: PeftFiles) -> dict[str, slice]:
    """The rows of each of our linears in a fused one that holds them."""
    weights = tuple(f"{name}.weight" for name in ours)
    sizes = next((row.sizes for row in rows if isinstance(row, Split) and row.ours == weights), None)
    if sizes is not None and sum(sizes) != outputs:
        fault = f"the factors of {', '.join(ours)} have {outputs} rows, the model {sum(sizes)}"
        raise InputError(fault, files.weights_path, "load the adapter onto the base that it was trained on")
    ends = list(accumulate(sizes or [-(-outputs // len(ours))] * len(ours)))
    return {name: slice(begin, end) for name, begin, end in zip(ours, [0, *ends], ends, strict=False)}


def _split(pair: Mapping[str, Any], ours: Mapping[str, slice], scale: float) -> dict[str, Factors]:
    """An update of a fused linear as updates of our linears, by their rows; they start with the same A.

    A block-diagonal update, as :func:`_stack` writes it, is split into its original factors.
    """
    a, b, magnitude = pair["A"], pair["B"], pair.get(MAGNITUDE)
    updates: dict[str, Factors] = {}
    for name, part in ours.items():
        own = slice(None)
        columns = [column for column, total in enumerate(abs(b[part]).sum(0).tolist()) if total > 0]
        if len(ours) > 1 and columns and len(a) % len(ours) == 0:
            rank = len(a) // len(ours)
            begin = columns[0] // rank * rank
            if columns[-1] < begin + rank:
                own = slice(begin, begin + rank)
        updates[name] = Factors(a[own], b[part, own], scale, None if magnitude is None else magnitude[part])
    return updates


def _pairs(files: PeftFiles) -> dict[str, dict[str, Any]]:
    """Factors A and B, and of DoRA the magnitude, by their module names."""
    place = files.weights_path
    pairs: dict[str, dict[str, Any]] = {}
    for key, tensor in files.tensors.items():
        match = TENSOR_NAME.fullmatch(key)
        if match is None:
            raise InputError(f"unexpected tensor {key}", place, MERGE)
        pairs.setdefault(match["module"], {})[match["factor"]] = tensor
    use_dora = bool(files.config.get("use_dora"))
    for module, pair in pairs.items():
        if not {"A", "B"} <= set(pair):
            raise InputError(f"{module} has lora_{next(iter(pair))} alone", place, "fetch or save the adapter again")
        if (MAGNITUDE in pair) is not use_dora:
            fault = (
                f"{module} has {'no' if use_dora else 'a'} lora_{MAGNITUDE}, and use_dora is {str(use_dora).lower()}"
            )
            raise InputError(fault, place, "fetch or save the adapter again")
        if any(len(pair[factor].shape) != 2 for factor in "AB") or pair["A"].shape[0] != pair["B"].shape[1]:
            shapes = " and ".join(str(tuple(pair[factor].shape)) for factor in "AB")
            raise InputError(f"the factors of {module} are {shapes}", place, "save the adapter again")
    if not pairs:
        raise InputError("the adapter holds no tensors", place, "save the adapter again")
    return pairs


def _scale(module: str, rank: int, files: PeftFiles) -> float:
    """alpha / r of a module, by the config and its patterns; checks that the config has the file's rank."""
    config = files.config

    def by_pattern(patterns: Mapping[str, Any] | None, default: Any) -> Any:
        for pattern, value in (patterns or {}).items():
            if re.match(rf"(?:.*\.)?(?:{pattern})$", module):
                return value
        return default

    expected = by_pattern(config.get("rank_pattern"), config.get("r", 8))
    if expected != rank:
        fault = f"{module} has rank {rank}, its config says {expected}"
        raise InputError(fault, files.config_path, "fetch or save the adapter again")
    alpha = by_pattern(config.get("alpha_pattern"), config.get("lora_alpha", 8))
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
