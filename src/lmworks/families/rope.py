"""Rotary positions in a config.json, both ways.

Up to version 4 ``transformers`` writes ``rope_theta`` and ``rope_scaling``; from 5 on it writes ``rope_parameters``,
separately for each kind of layer if they differ, and still reads the older keys. All are read here; the older keys are
written, because every version reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.json_file import check_kinds
from lmworks.families.family import PUBLISHED, Keys
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
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("rope_type", "type"), (str,)),
    **dict.fromkeys(("short_factor", "long_factor"), (list,)),
    **dict.fromkeys(("truncate",), (bool,)),
    **dict.fromkeys(("rope_theta", "partial_rotary_factor", "factor", "low_freq_factor", "high_freq_factor"), (float,)),
    **dict.fromkeys((name for name in _YARN if name != "truncate"), (float,)),
    TRAINED: (int,),
}


def read_rope(
    keys: Keys, theta: float = 10_000.0, local: float | None = None, trained: int | None = None, partial: bool = False
) -> dict[str, Any]:
    """The fields of a ModelConfig that say how positions rotate.

    Args:
        keys: the config.json.
        theta: the family's rope_theta, for configs without it.
        local: the same of sliding layers, in families where they have their own; else None.
        trained: the context before scaling, for configs without it; None: the whole context.
        partial: the family may rotate a part of each head.

    Raises:
        InputError: a kind of scaling that we do not have, or one without its numbers.
    """
    newer, older = keys.take("rope_parameters", None, dict), keys.take("rope_scaling", None, dict)
    for values in (newer, older):
        _check_kinds(values or {}, keys.place)
    rope = _without_nulls(older or newer or {})
    theta, fields = _number(keys, "rope_theta", theta), {}
    if local is not None:
        # newer keys describe both kinds of layers, the older rope_scaling only layers with full attention
        sliding = _without_nulls((newer or {}).get("sliding_attention") or {})
        rope.pop("sliding_attention", None)
        rope = _without_nulls(rope.get("full_attention", rope))
        theta = _without_nulls((newer or {}).get("full_attention") or {}).get("rope_theta", theta)
        local = _number(keys, LOCAL, local)
        fields["rope_local_theta"] = sliding.pop("rope_theta", local)
        if sliding.pop("rope_type", "default") != "default" or sliding:
            raise InputError(
                "stretched rotary positions of sliding layers are not computed here", keys.place, PUBLISHED
            )
    rope = _one_for_all_layers(rope, keys.place)
    fields["rope_theta"] = rope.pop("rope_theta", theta)
    whole = _number(keys, "partial_rotary_factor", 1.0)
    part = rope.pop("partial_rotary_factor", whole)
    if part != 1.0 and not partial:
        raise InputError("partial_rotary_factor: heads of this family are rotated whole", keys.place, PUBLISHED)
    fields["rotary_fraction"] = part
    older_name = rope.pop("type", "default")
    kind = rope.pop("rope_type", older_name)
    kind = "longrope" if kind == "su" else kind  # Phi-3's first name of it
    trained = keys.take(TRAINED, None, int) or rope.get(TRAINED) or trained or keys.count("max_position_embeddings")
    if trained < 1:
        raise InputError(f"{TRAINED} is {trained}, not a number of at least one", keys.place, PUBLISHED)
    return fields | {"rope_scaling": None if kind == "default" else _scaling(kind, rope, trained, keys)}


def _number(keys: Keys, name: str, default: float) -> float:
    """The number of a key, the default where it is absent or null. A zero stays one: ModelConfig refuses it."""
    value = keys.take(name, None, float)
    return default if value is None else value


def _scaling(kind: str, rope: dict[str, Any], trained: int, keys: Keys) -> dict[str, Any]:
    if kind not in FIELDS:
        raise InputError(f"rope_type {kind!r} is not computed here", keys.place, "known: " + ", ".join(FIELDS))
    if kind in ("linear", "dynamic"):
        rope.pop(TRAINED, None)  # transformers computes with max_position_embeddings
    if strange := sorted(set(rope) - set(FIELDS[kind])):
        raise InputError(f"rope_scaling has unknown keys for {kind!r}: {', '.join(strange)}", keys.place, PUBLISHED)
    if kind in ("yarn", "longrope"):
        rope[TRAINED] = trained
        rope.setdefault("factor", keys.count("max_position_embeddings") / trained)
    for name in NEEDED.get(kind, ("factor",)):
        if name not in rope:
            raise InputError(f"rope_scaling of kind {kind!r} lacks {name}", keys.place, PUBLISHED)
    return {"kind": kind, **rope}


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The keys of a config.json that say how positions rotate, in the older form."""
    keys: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if config.rope_local_theta is not None:
        keys[LOCAL] = config.rope_local_theta
    if config.rotary_fraction != 1.0:
        keys["partial_rotary_factor"] = config.rotary_fraction
    if (scaling := config.rope_scaling) is None:
        return keys
    numbers = _without_nulls({name: getattr(scaling, name) for name in FIELDS[scaling.kind]})
    if scaling.kind != "longrope":
        return keys | {"rope_scaling": {"rope_type": scaling.kind, **numbers}}
    # Older versions of transformers read three keys here and the trained context from outside of them.
    keys[TRAINED] = numbers.pop(TRAINED, config.max_position_embeddings)
    if numbers["factor"] == config.max_position_embeddings / keys[TRAINED]:
        del numbers["factor"]
    numbers |= {name: list(numbers[name]) for name in ("short_factor", "long_factor")}
    return keys | {"rope_scaling": {"type": scaling.kind, **numbers}}


def _check_kinds(rope: Mapping[str, Any], place: str) -> None:
    """Check the types of all values, in both forms: for all layers or for each kind of layer."""
    check_kinds(rope, KINDS, place)
    for value in rope.values():
        if isinstance(value, Mapping):
            check_kinds(value, KINDS, place)


def _without_nulls(rope: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rope.items() if value is not None}


def _one_for_all_layers(rope: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Parameters for all layers, from the form of transformers 5 that has them for each kind of layer."""
    kinds = [_without_nulls(value) for value in rope.values() if isinstance(value, Mapping)]
    if not kinds:
        return dict(rope)
    if any(kind != kinds[0] for kind in kinds) or len(kinds) != len(rope):
        raise InputError("layers with different rotary positions are not computed here", place, PUBLISHED)
    return kinds[0]
