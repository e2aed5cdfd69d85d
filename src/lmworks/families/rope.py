"""Rotary positions in a config.json, both ways.

Up to version 4 ``transformers`` writes ``rope_theta`` and ``rope_scaling``; from 5 on it writes ``rope_parameters``,
told for each kind of layer where they differ, and still reads the older ones. All are read here; the older are written,
because every version understands them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.family import Keys
from lmworks.model.config import ModelConfig

_YARN = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
FIELDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings", *_YARN),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "longrope": ("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
}
NEEDED = {"yarn": (), "llama3": FIELDS["llama3"], "longrope": ("short_factor", "long_factor")}
TRAINED = "original_max_position_embeddings"
LOCAL = "rope_local_base_freq"
_MEND = "compare with the config.json that the model was published with"


def read_rope(
    keys: Keys, theta: float = 10_000.0, local: float | None = None, trained: int | None = None, partial: bool = False
) -> dict[str, Any]:
    """The fields of a ModelConfig that say how positions rotate.

    Args:
        keys: the config.json.
        theta: the family's rope_theta where the config does not tell it.
        local: the same of sliding layers, in families where they have their own; else None.
        trained: the context before stretching, where the config does not tell it; None: the whole one.
        partial: the family may rotate a part of each head.

    Raises:
        InputError: a kind of scaling that we do not have, or one without its numbers.
    """
    newer, older = keys.take("rope_parameters"), keys.take("rope_scaling")
    told = _without_nulls(older or newer or {})
    theta, fields = keys.take("rope_theta") or theta, {}
    if local is not None:
        # the newer keys tell both kinds of layers, the older rope_scaling those alone that see everything
        sliding = _without_nulls((newer or {}).get("sliding_attention") or {})
        told.pop("sliding_attention", None)
        told = _without_nulls(told.get("full_attention", told))
        theta = ((newer or {}).get("full_attention") or {}).get("rope_theta") or theta
        local = keys.take(LOCAL) or local
        fields["rope_local_theta"] = sliding.pop("rope_theta", local)
        if sliding.pop("rope_type", "default") != "default" or sliding:
            raise InputError("stretched rotary positions of sliding layers are not computed here", keys.place, _MEND)
    told = _one_for_all_layers(told, keys.place)
    fields["rope_theta"] = told.pop("rope_theta", theta)
    whole = keys.take("partial_rotary_factor") or 1.0
    part = told.pop("partial_rotary_factor", whole)
    if part != 1.0 and not partial:
        raise InputError("partial_rotary_factor: heads of this family are rotated whole", keys.place, _MEND)
    fields["rotary_fraction"] = part
    older_name = told.pop("type", "default")
    kind = told.pop("rope_type", older_name)
    kind = "longrope" if kind == "su" else kind  # Phi-3's first name of it
    trained = keys.take(TRAINED) or told.get(TRAINED) or trained or keys.count("max_position_embeddings")
    return fields | {"rope_scaling": None if kind == "default" else _scaling(kind, told, trained, keys)}


def _scaling(kind: str, told: dict[str, Any], trained: int, keys: Keys) -> dict[str, Any]:
    if kind not in FIELDS:
        raise InputError(f"rope_type {kind!r} is not computed here", keys.place, "known: " + ", ".join(FIELDS))
    if kind in ("linear", "dynamic"):
        told.pop(TRAINED, None)  # transformers computes with max_position_embeddings
    if strange := sorted(set(told) - set(FIELDS[kind])):
        raise InputError(f"rope_scaling has unknown keys for {kind!r}: {', '.join(strange)}", keys.place, _MEND)
    if kind in ("yarn", "longrope"):
        told[TRAINED] = trained
        told.setdefault("factor", keys.count("max_position_embeddings") / trained)
    for name in NEEDED.get(kind, ("factor",)):
        if name not in told:
            raise InputError(f"rope_scaling of kind {kind!r} lacks {name}", keys.place, _MEND)
    return {"kind": kind, **told}


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The keys of a config.json that say how positions rotate, in the older form."""
    keys: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if config.rope_local_theta is not None:
        keys[LOCAL] = config.rope_local_theta
    if config.rotary_fraction != 1.0:
        keys["partial_rotary_factor"] = config.rotary_fraction
    if (scaling := config.rope_scaling) is None:
        return keys
    told = _without_nulls({name: getattr(scaling, name) for name in FIELDS[scaling.kind]})
    if scaling.kind != "longrope":
        return keys | {"rope_scaling": {"rope_type": scaling.kind, **told}}
    # Older versions of transformers take three keys alone, and the trained context from beside them.
    keys[TRAINED] = told.pop(TRAINED, config.max_position_embeddings)
    if told["factor"] == config.max_position_embeddings / keys[TRAINED]:
        del told["factor"]
    told |= {name: list(told[name]) for name in ("short_factor", "long_factor")}
    return keys | {"rope_scaling": {"type": scaling.kind, **told}}


def _without_nulls(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _one_for_all_layers(told: Mapping[str, Any], place: str) -> dict[str, Any]:
    """transformers 5 may tell the rotation of each kind of layer; most families have one for all."""
    kinds = [_without_nulls(value) for value in told.values() if isinstance(value, Mapping)]
    if not kinds:
        return dict(told)
    if any(kind != kinds[0] for kind in kinds) or len(kinds) != len(told):
        raise InputError("layers with different rotary positions are not computed here", place, _MEND)
    return kinds[0]
