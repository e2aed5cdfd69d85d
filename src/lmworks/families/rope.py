"""Rotary positions in a config.json, both ways.

Up to version 4 ``transformers`` writes ``rope_theta`` and ``rope_scaling``; from 5 on it writes ``rope_parameters`` and
still reads the older two. Both are read here; the older two are written, because every version understands them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.family import Keys
from lmworks.model.config import RopeScaling

FIELDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}
NEEDED = {"yarn": (), "llama3": FIELDS["llama3"]}


def read_rope(keys: Keys) -> dict[str, Any]:
    """The fields rope_theta and rope_scaling of a ModelConfig.

    Raises:
        InputError: a kind of scaling that we do not have, or one without its numbers.
    """
    newer, older = keys.take("rope_parameters"), keys.take("rope_scaling")
    theta, context = keys.take("rope_theta"), keys.count("max_position_embeddings")
    keys.only("partial_rotary_factor", 1.0, None)
    told = _one_for_all_layers(dict(older or newer or {}), keys.place)
    theta = told.pop("rope_theta", None) or theta or 10_000.0
    kind = told.pop("rope_type", None) or told.pop("type", None) or "default"
    told.pop("type", None)
    if told.pop("partial_rotary_factor", 1.0) not in (1.0, None):
        raise InputError("partial rotary positions are not computed here", keys.place)
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind not in FIELDS:
        raise InputError(f"rope_type {kind!r} is not computed here", keys.place, "known: " + ", ".join(FIELDS))
    if kind in ("linear", "dynamic"):
        told.pop("original_max_position_embeddings", None)  # transformers computes with max_position_embeddings
    if strange := sorted(set(told) - set(FIELDS[kind])):
        raise InputError(f"rope_scaling has unknown keys for {kind!r}: {', '.join(strange)}", keys.place)
    told = {name: value for name, value in told.items() if value is not None}
    if kind == "yarn":
        original = told.setdefault("original_max_position_embeddings", context)
        told.setdefault("factor", context / original)
    for name in NEEDED.get(kind, ("factor",)):
        if name not in told:
            raise InputError(f"rope_scaling of kind {kind!r} lacks {name}", keys.place)
    return {"rope_theta": theta, "rope_scaling": {"kind": kind, **told}}


def write_rope(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The keys rope_theta and rope_scaling of a config.json."""
    if scaling is None:
        return {"rope_theta": theta, "rope_scaling": None}
    told = {name: getattr(scaling, name) for name in FIELDS[scaling.kind]}
    told = {name: value for name, value in told.items() if value is not None}
    return {"rope_theta": theta, "rope_scaling": {"rope_type": scaling.kind, **told}}


def _one_for_all_layers(told: Mapping[str, Any], place: str) -> dict[str, Any]:
    """transformers 5 may tell the rotation of each kind of layer; ours has one for all."""
    kinds = [value for value in told.values() if isinstance(value, Mapping)]
    if not kinds:
        return dict(told)
    if any(dict(kind) != dict(kinds[0]) for kind in kinds) or len(kinds) != len(told):
        raise InputError("layers with different rotary positions are not computed here", place)
    return dict(kinds[0])
