"""(IA)3 as ``peft`` writes and reads it: its config and tensors <-> scales by our module names.

Where one of their linears consists of several of ours (GPT-2's c_attn is our q_proj, k_proj and v_proj), its scale is
that of all of them; those that are not adapted have ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from lmworks.adapt.peft_files import PREFIX, PeftFiles, check_complete, our_linears, suffixes, written_module
from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.mapping import our_modules, their_place
from lmworks.model.config import ModelConfig

TENSOR_NAME = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.ia3_l(?:\.default)?")
READ_KEYS = {"target_modules", "feedforward_modules", "exclude_modules", "fan_in_fan_out", "init_ia3_weights"}
KINDS: dict[str, tuple[type, ...]] = dict.fromkeys(("target_modules", "feedforward_modules"), (str, list))


class Scale(NamedTuple):
    """Factors (n,) of a linear's output, or of its input."""

    factors: torch.Tensor
    of_input: bool


def to_files(scales: Mapping[str, Scale], outputs: Mapping[str, int], family: Family, config: ModelConfig) -> PeftFiles:
    """The files of an adapter.

    Args:
        scales: by our module names.
        outputs: out_features of every linear of the network by our names.
        family: gives the tensors' names.
        config: of the network.

    Raises:
        InputError: the format has no place for one of them.
    """
    rows = family.table(config)
    places = {name: their_place(rows, name) for name in outputs}
    theirs: dict[str, Scale] = {}
    transposed = False
    for name in scales:
        place = places[name]
        if place is None:
            hint = f"leave {name.rpartition('.')[2]} out of ia3.target_modules"
            raise InputError(f"the format has no place for an adapter on {name}", hint=hint)
        transposed = transposed or place.transpose
        theirs[written_module(place.module, family, config)] = _join(our_modules(rows, place.module), scales, outputs)
    everything = {written_module(place.module, family, config) for place in places.values() if place is not None}
    of_input = {name for name, scale in theirs.items() if scale.of_input}
    feedforward = suffixes(of_input, everything)
    adapter_config = {
        "target_modules": sorted({*suffixes(set(theirs) - of_input, everything), *feedforward}),
        "feedforward_modules": feedforward,
        "fan_in_fan_out": transposed,
        "init_ia3_weights": True,
    }
    tensors = {
        f"{PREFIX}{name}.ia3_l": scale.factors[None] if scale.of_input else scale.factors[:, None]
        for name, scale in theirs.items()
    }
    return PeftFiles(adapter_config, tensors)


def read(files: PeftFiles, family: Family, config: ModelConfig, outputs: Mapping[str, int]) -> dict[str, Scale]:
    """An adapter's scales by our module names.

    Args:
        files: of the adapter.
        family: of the base.
        config: of the base, with the adapter's head.
        outputs: out_features of every linear of the base by our names.

    Raises:
        InputError: it uses unsupported features, or does not match this model.
    """
    files.check(KINDS, READ_KEYS)
    rows, place = family.table(config), files.weights_path
    scales: dict[str, Scale] = {}
    present: set[str] = set()
    for key, tensor in files.tensors.items():
        match = TENSOR_NAME.fullmatch(key)
        if match is None:
            raise InputError(f"unexpected tensor {key}", place, "give a folder that peft saved")
        if tensor.ndim != 2 or 1 not in tensor.shape:
            fault = f"{key} is {tuple(tensor.shape)}, neither (1, in_features) nor (out_features, 1)"
            raise InputError(fault, place, "fetch or save the adapter again")
        ours = our_linears(match["module"], rows, family, files)
        present.update(ours)
        scales |= _split(Scale(tensor.flatten().float(), of_input=len(tensor) == 1), ours, outputs, place)
    if not present:
        raise InputError("the adapter holds no tensors", place, "save the adapter again")
    check_complete(files, present, rows)
    return scales


def _join(parts: Sequence[str], scales: Mapping[str, Scale], outputs: Mapping[str, int]) -> Scale:
    """The scale of the linear that consists of several of ours, adapted or not."""
    present = [scales[part] for part in parts if part in scales]
    if len(parts) == 1:
        return present[0]
    if not any(scale.of_input for scale in present):
        ones = {part: torch.ones(outputs[part]) for part in parts}
        return Scale(torch.cat([scales[part].factors if part in scales else ones[part] for part in parts]), False)
    first = present[0]
    same = all(scale.of_input and torch.equal(scale.factors, first.factors) for scale in present)
    if len(present) < len(parts) or not same:
        names = ", ".join(part.rpartition(".")[2] for part in parts)
        fault = f"{names} are one matrix in the format, so their inputs have one scale"
        raise InputError(fault, hint="merge the adapter, or scale their outputs: ia3.feedforward_modules")
    return first


def _split(scale: Scale, ours: Sequence[str], outputs: Mapping[str, int], place: str) -> dict[str, Scale]:
    """The scale of one of their linears as scales of our linears; one that is ones is left out if another is not."""
    if len(ours) == 1 or scale.of_input:
        return dict.fromkeys(ours, scale)
    sizes = [outputs[name] for name in ours]
    if sum(sizes) != len(scale.factors):
        fault = f"the adapter scales {len(scale.factors)} outputs, {', '.join(ours)} have {sum(sizes)}"
        raise InputError(fault, place, "load the adapter onto the base that it was trained on")
    parts = dict(zip(ours, scale.factors.split(sizes), strict=True))
    changed = {name for name, part in parts.items() if not torch.equal(part, torch.ones_like(part))}
    return {name: Scale(part.clone(), False) for name, part in parts.items() if name in changed or not changed}
