"""generation_config.json: how a model's texts begin and end, and what its publisher advises for writing them.

Before there was such a file, config.json said the same. Ids of tokens that have no row in the embedding are read as
none and never written: -1 means none in Llama's configs, and ``transformers`` refuses to open larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.json_file import REPAIR, check_kinds, read_object

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
# What generation_config.json says, and config.json said before there was one.
RULES: tuple[str, ...] = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "max_length",
    "min_length",
)
RULES += ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size", "repetition_penalty")
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys((*TOKEN_IDS, "forced_bos_token_id", "forced_eos_token_id"), (int, list)),
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "architectures"), (list,)),
    **dict.fromkeys(("max_length", "min_length", "max_new_tokens", "min_new_tokens", "num_beams"), (int,)),
    **dict.fromkeys(("length_penalty", "repetition_penalty"), (float,)),
    "no_repeat_ngram_size": (int,),
    "early_stopping": (bool, str),
}


def read_generation(
    folder: Path, config_place: str, hf_config: Mapping[str, Any], rows: int
) -> tuple[dict[str, Any], list[str]]:
    """generation_config.json, or what config.json said before there was one; and notes.

    Ids of tokens that have no row are left out: -1 means none in Llama's configs, larger ones are noted.
    """
    place = folder / GENERATION
    generation = read_object(place, {})
    for path, values in ((config_place, hf_config), (str(place), generation)):
        check_kinds(values, KINDS, path)
    older = {name: hf_config[name] for name in (*TOKEN_IDS, *RULES) if hf_config.get(name) is not None}
    # a generation_config.json may leave the decoder's beginning to config.json
    decoder_start = {name: older[name] for name in ("decoder_start_token_id",) if name in older}
    file = str(place) if generation else config_place
    generation = decoder_start | generation if generation else older
    notes = []
    for name in sorted(set(generation) & set(TOKEN_IDS)):
        check_ids(name, generation[name], file)
        strange = [token for token in ids_in(generation[name]) if token >= rows]
        if strange:
            notes.append(f"{file}: {name} is {strange[0]}, but the embedding has {rows} rows: read as none")
        generation[name] = ids_within(generation[name], rows)
        if generation[name] is None:
            del generation[name]
    return generation, notes


def ids_in(value: Any) -> list[int]:
    """Token ids of a key that has one, several or none."""
    return [token for token in (value if isinstance(value, list) else [value]) if token is not None]


def check_ids(name: str, value: Any, place: str) -> None:
    """Refuse what is neither a token id nor a list of them nor nothing."""
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids_in(value)):
        raise InputError(f"{name} is {value!r}, not a token id", place, REPAIR)


def ids_within(value: Any, rows: int) -> Any:
    """One id, or a list of them, without those that the embedding has no row for."""
    if not isinstance(value, list):
        return value if isinstance(value, int) and 0 <= value < rows else None
    return [token for token in value if isinstance(token, int) and 0 <= token < rows] or None
