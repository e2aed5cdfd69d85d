"""The tokenizer files of a Hugging Face folder -> what a Tokenizer is made of.

Reads tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja and the end ids of
generation_config.json. Values of the wrong kind are errors that name file and key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from lmworks.base.errors import InputError
from lmworks.base.json_file import check_kinds, is_kind, read_object, wrong_kind

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")
"""Special tokens that tokenizer_config.json names as ``<role>_token``."""
CONFIG, MAP, GENERATION = "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"
KINDS: dict[str, tuple[type, ...]] = {
    **{f"{role}_token": (str, dict) for role in ROLES},
    "added_tokens_decoder": (dict,),
    "chat_template": (str, list),
    "add_bos_token": (bool,),
}


def read(folder: Path) -> dict[str, Any]:
    """Keyword arguments of a Tokenizer.

    Raises:
        InputError: a file is missing, cannot be read, or holds values of the wrong kind.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = "write one with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        raise InputError("there is no tokenizer.json here", str(folder), hint)
    try:
        core = tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"not a tokenizer that can be read ({error})", str(path), "fetch the file again") from error
    config: dict[str, Any] = {}
    for file in (MAP, CONFIG):  # the latter wins
        values = read_object(folder / file, {})
        check_kinds(values, KINDS, str(folder / file))
        for name in (f"{role}_token" for role in ROLES):
            if isinstance(token := values.get(name), dict) and not isinstance(token.get("content"), str):
                raise wrong_kind(f"content of {name}", token.get("content"), str(folder / file), str)
        config |= values
    _add_missing(core, config.pop("added_tokens_decoder", None) or {}, folder / CONFIG)
    ids = {role: _id_of(core, config.get(f"{role}_token")) for role in ROLES}
    templates = config.pop("chat_template", None)
    if (folder / "chat_template.jinja").is_file():
        templates = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(templates, list):  # several named ones: the default serves chat, all are kept for saving
        config["named_templates"] = templates
    return {
        "core": core,
        **{f"{role}_id": ids[role] for role in ROLES},
        "chat_template": _default_template(templates, folder / CONFIG),
        "adds_bos": config.get("add_bos_token"),
        "end_ids": _end_ids(folder / GENERATION),
        "config": config,
    }


def compact(core: tokenizers.Tokenizer) -> str:
    """tokenizer.json on one line. Merges of BPE are written "a b", as older versions of the library did, which it reads
    sooner than pairs; where that would not be clear, they stay pairs."""
    text = core.to_str()
    state = json.loads(text)
    merges = state["model"].get("merges")
    if not merges or any(" " in first + second or first.startswith("#version") for first, second in merges):
        return text
    state["model"]["merges"] = [" ".join(pair) for pair in merges]
    return json.dumps(state, ensure_ascii=False, separators=(",", ":"))


def _id_of(core: tokenizers.Tokenizer, token: str | dict[str, Any] | None) -> int | None:
    """The id of a token given as text or as {"content": text}; None where there is none."""
    text = token["content"] if isinstance(token, dict) else token
    return core.token_to_id(text) if text is not None else None


def _add_missing(core: tokenizers.Tokenizer, decoder: dict[str, Any], path: Path) -> None:
    """Add tokens that tokenizer_config.json knows and tokenizer.json does not; their ids must come out as said."""
    for key, token in decoder.items():
        if not key.isdecimal() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise wrong_kind(f"added_tokens_decoder, entry {key!r},", token, str(path), dict)
    for index, token in sorted(((int(key), value) for key, value in decoder.items()), key=lambda pair: pair[0]):
        if core.token_to_id(token["content"]) is not None:
            continue
        fields = {key: bool(token.get(key, False)) for key in ("single_word", "lstrip", "rstrip", "special")}
        added = tokenizers.AddedToken(token["content"], normalized=bool(token.get("normalized", True)), **fields)
        core.add_tokens([added])
        if core.token_to_id(token["content"]) != index:
            raise InputError(
                f"token {token['content']!r} is said to have id {index}, but tokenizer.json leaves no room for it",
                str(path),
                "fetch tokenizer.json and tokenizer_config.json of the same model again",
            )


def _default_template(templates: str | list[Any] | None, path: Path) -> str | None:
    if not isinstance(templates, list):
        return templates
    for entry in templates:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "template")):
            raise wrong_kind("an entry of chat_template", entry, str(path), dict)
    named = {entry["name"]: entry["template"] for entry in templates}
    return named.get("default", next(iter(named.values()), None))


def _end_ids(path: Path) -> list[int]:
    ends = read_object(path, {}).get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(is_kind(token, int) for token in ids):
        raise wrong_kind("eos_token_id", ends, str(path), int, list)
    return ids
